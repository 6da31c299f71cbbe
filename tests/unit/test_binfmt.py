"""binfmt_misc handlers: what the kernel shows is understood, what we ask of it is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from armvm.base.errors import MissingCapability
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt import aarch64, handlers, registration
from armvm.usermode.programs import emulate, interpreter
from tests.elf_tools import elf_file

#: As a Debian 12 kernel shows its own handler.
DEBIAN = """\
enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
ARM = """\
enabled
interpreter /usr/libexec/qemu-binfmt/arm-binfmt-P
flags: POF
offset 0
magic 7f454c4601010100000000000000000002002800
mask ffffffffffffff00fffffffffffffffffeffffff
"""
EXTENSION = "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n"


def elf(*, bits: int = 2, kind: int = 2, machine: int = 0xB7, abi: int = 0) -> bytes:
    """The first 20 bytes of a little-endian ELF file."""
    return bytes([0x7F, *b"ELF", bits, 1, 1, abi, *[0] * 8, kind, 0, machine, 0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that looks like binfmt_misc with other architectures' handlers."""
    (tmp_path / "register").write_text("")
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "qemu-arm").write_text(ARM)
    (tmp_path / "jar").write_text(EXTENSION)
    return tmp_path


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "qemu-aarch64-static"
    path.touch()
    return path


def found_in(directory: Path) -> Callable[[Architecture], Path]:
    """Return what finds interpreters in a directory alone."""
    return lambda one: interpreter.find(one, debian=directory / "none", binaries=directory)


def test_a_handler_takes_its_own_programs_only() -> None:
    handler = handlers.parse("qemu-aarch64", DEBIAN)
    assert handler.enabled
    assert handler.fixed
    assert handler.interpreter == "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"
    assert handler.takes(elf())
    assert handler.takes(elf(kind=3)), "position-independent programs"
    assert handler.takes(elf(abi=3)), "programs marked as GNU/Linux's"
    assert not handler.takes(elf(machine=0x3E)), "x86-64"
    assert not handler.takes(elf(bits=1, machine=0x28)), "32-bit arm"
    assert not handler.takes(elf(kind=1)), "object files are no programs"
    assert not handler.takes(b"\x7fELF"), "shorter than the magic"


def test_the_magic_is_the_one_that_debian_registers() -> None:
    handler = handlers.parse("qemu-aarch64", DEBIAN)
    assert (handler.magic, handler.mask) == (aarch64.AARCH64.magic, aarch64.AARCH64.mask)


def test_the_registration_line_is_one_the_kernel_accepts() -> None:
    line = registration.line(
        registration.rule_for(aarch64.AARCH64, str(Path("/usr/bin/qemu-aarch64-static")))
    )
    assert 11 <= len(line) <= 1920
    empty, name, kind, offset, magic, mask, path, flags = line.split(":")
    assert (empty, name, kind, offset) == ("", "qemu-aarch64", "M", "0")
    assert path == "/usr/bin/qemu-aarch64-static"
    assert set(flags) == set("POF")
    for part, wanted in ((magic, aarch64.AARCH64.magic), (mask, aarch64.AARCH64.mask)):
        assert bytes.fromhex(part.replace("\\x", "")) == wanted
        assert part.count("\\x") == len(wanted)


def test_other_handlers_are_not_mistaken_for_it(root: Path) -> None:
    assert {handler.name for handler in handlers.handlers(root)} == {"qemu-arm", "jar"}
    assert aarch64.aarch64_handler(root) is None


def test_it_is_known_by_its_magic_whatever_its_name(root: Path) -> None:
    (root / "something-arm64").write_text(DEBIAN)
    found = aarch64.aarch64_handler(root)
    assert found is not None
    assert found.name == "something-arm64"


def test_an_enabled_handler_goes_before_a_disabled_one(root: Path) -> None:
    (root / "a").write_text(DEBIAN.replace("enabled", "disabled"))
    (root / "b").write_text(DEBIAN)
    found = aarch64.aarch64_handler(root)
    assert found is not None
    assert found.name == "b"


def test_an_enabled_handler_is_left_alone(root: Path) -> None:
    (root / "mine").write_text(DEBIAN.replace("POF", "OCF"))
    handler = aarch64.ensure_handler(root, machine="x86_64", uid=0, find=found_in(root / "none"))
    assert handler is not None
    assert handler.name == "mine"
    assert (root / "register").read_text() == ""


def test_an_arm64_host_needs_none(tmp_path: Path) -> None:
    assert aarch64.ensure_handler(tmp_path / "none", machine="aarch64", uid=1000) is None


def test_a_handler_that_works_in_no_other_root_is_said_to_be_so(root: Path) -> None:
    (root / "qemu-aarch64").write_text(DEBIAN.replace("POF", "PO"))
    with pytest.raises(MissingCapability, match="lacks flag F") as caught:
        aarch64.ensure_handler(root, machine="x86_64", uid=0)
    assert f"echo -1 > {root}/qemu-aarch64" in (caught.value.hint or "")


def test_without_an_interpreter_the_package_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingCapability) as caught:
        aarch64.ensure_handler(root, machine="x86_64", uid=0, find=found_in(tmp_path))
    assert "qemu-user-static" in (caught.value.hint or "")


def test_an_ordinary_user_is_given_the_command_and_nothing_is_written(
    root: Path, program: Path
) -> None:
    with pytest.raises(MissingCapability, match="only root") as caught:
        aarch64.ensure_handler(root, machine="x86_64", uid=1000, find=found_in(program.parent))
    hint = caught.value.hint or ""
    assert hint.startswith("sudo sh -c ")
    assert (root / "register").read_text() == ""


def test_the_command_in_the_hint_does_what_root_would_have_done(root: Path, program: Path) -> None:
    from armvm.base import process

    with pytest.raises(MissingCapability) as caught:
        aarch64.ensure_handler(root, machine="x86_64", uid=1000, find=found_in(program.parent))
    process.run(["sh", "-c", (caught.value.hint or "").removeprefix("sudo ")])
    assert (root / "register").read_text() == registration.line(
        registration.rule_for(aarch64.AARCH64, str(program))
    )


def test_a_disabled_handler_is_enabled_by_root_alone(root: Path) -> None:
    path = root / "qemu-aarch64"
    path.write_text(DEBIAN.replace("enabled", "disabled"))
    with pytest.raises(MissingCapability, match="disabled") as caught:
        aarch64.ensure_handler(root, machine="x86_64", uid=1000)
    assert f"echo 1 > {path}" in (caught.value.hint or "")
    # A plain file stays what was written to it, so the kernel "does not show" the handler.
    with pytest.raises(MissingCapability, match="does not list"):
        aarch64.ensure_handler(root, machine="x86_64", uid=0)
    assert path.read_text() == "1"


def test_root_registers_where_there_is_none(root: Path, program: Path) -> None:
    with pytest.raises(MissingCapability, match="does not list"):
        aarch64.ensure_handler(root, machine="x86_64", uid=0, find=found_in(program.parent))
    assert (root / "register").read_text() == registration.line(
        registration.rule_for(aarch64.AARCH64, str(program))
    )


def test_an_interpreter_without_static_in_its_name_serves_if_it_is_static(
    root: Path, tmp_path: Path
) -> None:
    program = tmp_path / "qemu-aarch64"
    program.write_bytes(elf_file(62))
    program.chmod(0o755)
    with pytest.raises(MissingCapability, match="does not list"):
        aarch64.ensure_handler(root, machine="x86_64", uid=0, find=found_in(tmp_path))
    assert str(program) in (root / "register").read_text()


def test_a_dynamic_interpreter_is_refused(root: Path, tmp_path: Path) -> None:
    program = tmp_path / "qemu-aarch64"
    program.write_bytes(elf_file(62, loader="/lib64/ld-linux-x86-64.so.2"))
    program.chmod(0o755)
    with pytest.raises(MissingCapability, match="dynamically") as caught:
        aarch64.ensure_handler(root, machine="x86_64", uid=0, find=found_in(tmp_path))
    assert interpreter.APT_PACKAGE in (caught.value.hint or "")
    assert (root / "register").read_text() == ""


def test_all_who_look_for_an_interpreter_know_the_same_names(tmp_path: Path) -> None:
    for name in interpreter.names("aarch64"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).touch(mode=0o755)
        assert found_in(directory)(aarch64.AARCH64) == directory / name
        assert emulate.qemu_for("aarch64", str(directory)) == str(directory / name)
