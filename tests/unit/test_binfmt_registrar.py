"""What armvm registers, without a kernel: refused before anything is written, and on record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.errors import ArmvmError, Conflict, MissingCapability, NotFound, PermissionDenied
from armvm.base.progress import Plain, Quiet
from armvm.usermode.architectures import find
from armvm.usermode.binfmt import own_file, register
from armvm.usermode.binfmt.own_file import Own
from armvm.usermode.binfmt.registration import line, rule_for
from armvm.usermode.binfmt.replace import Places
from armvm.usermode.binfmt.request import Request, rule_of
from tests.unit.test_binfmt_handlers import DATA, STATUS

ARM64 = find("arm64")
DEBIAN = (STATUS / "debian-pof").read_text()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A directory that looks like an empty binfmt_misc, and an empty /etc/binfmt.d."""
    root, etc = tmp_path / "binfmt_misc", tmp_path / "binfmt.d"
    root.mkdir()
    etc.mkdir()
    (root / "register").touch()
    (root / "status").write_text("enabled\n")
    return Places(root=root, etc=etc, uid=0)


@pytest.fixture
def wanted(tmp_path: Path) -> Request:
    program = tmp_path / "qemu-aarch64-static"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return Request(program=program)


def unchanged(places: Places) -> bool:
    return not (places.root / "register").read_text() and not list(places.etc.iterdir())


def test_only_root_registers_and_others_are_told_of_emulate(
    places: Places, wanted: Request
) -> None:
    with pytest.raises(PermissionDenied) as caught:
        register.register(ARM64, wanted, Quiet(), replace(places, uid=1000))
    assert "armvm emulate" in (caught.value.hint or "")
    assert unchanged(places)


@pytest.mark.parametrize("text", [DEBIAN, DEBIAN.replace("enabled", "disabled")])
@pytest.mark.parametrize("name", ["qemu-aarch64", "something"])
def test_anothers_handler_is_not_replaced_unasked(
    places: Places, wanted: Request, name: str, text: str
) -> None:
    (places.root / name).write_text(text)
    with pytest.raises(Conflict) as caught:
        register.register(ARM64, wanted, Quiet(), places)
    assert "--replace" in (caught.value.hint or "")
    assert ("echo 1 >" in (caught.value.hint or "")) is text.startswith("disabled")
    assert unchanged(places)
    assert (places.root / name).read_text() == text


def test_anothers_file_for_the_next_boot_is_not_replaced_unasked(
    places: Places, wanted: Request
) -> None:
    text = (DATA / "binfmt.d" / "qemu-aarch64.conf").read_text()
    (places.etc / "qemu-aarch64.conf").write_text(text)
    with pytest.raises(Conflict, match="another tool's"):
        register.register(ARM64, wanted, Quiet(), places)
    with pytest.raises(NotFound):
        register.unregister(ARM64, places)
    assert (places.etc / "qemu-aarch64.conf").read_text() == text


def test_what_is_there_already_is_left_as_it_is(places: Places, wanted: Request) -> None:
    path = "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"
    (places.root / "whatever").write_text(DEBIAN.replace(path, str(wanted.program)))
    done = register.register(ARM64, wanted, Quiet(), places)
    assert not done.changed
    assert done.path is None
    assert unchanged(places)


def test_where_binfmt_misc_is_off_nothing_is_registered(places: Places, wanted: Request) -> None:
    (places.root / "status").write_text("disabled\n")
    with pytest.raises(Conflict, match="binfmt_misc is disabled"):
        register.register(ARM64, wanted, Quiet(), places)
    assert unchanged(places)


def test_what_the_kernel_does_not_show_is_not_kept_for_the_next_boot(
    places: Places, wanted: Request
) -> None:
    with pytest.raises(MissingCapability, match="lists it differently"):
        register.register(ARM64, wanted, Quiet(), places)
    assert not list(places.etc.iterdir())


def test_an_interpreter_that_others_can_change_is_warned_of(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    with pytest.raises(ArmvmError):
        register.register(ARM64, Request(program=program), Plain(sys.stderr), places)
    assert "users other than root can write to" in capsys.readouterr().err


def test_the_hosts_own_architecture_has_no_handler(wanted: Request) -> None:
    with pytest.raises(Conflict, match="natively"):
        rule_of(ARM64, wanted, Quiet(), machine="aarch64")
    assert rule_of(ARM64, wanted, Quiet(), machine="x86_64").magic == ARM64.magic


def test_a_file_of_armvms_is_its_record(places: Places) -> None:
    rule = rule_for(ARM64, "/opt/qemu-3")
    own = Own(path=places.etc / "qemu-aarch64.conf", text=line(rule), rule=rule)
    own_file.write(own, ARM64)
    assert own_file.read(ARM64, places.etc) == own
    assert own.path.stat().st_mode & 0o777 == 0o644
    assert own_file.read(find("arm"), places.etc) is None
    own_file.remove(own)
    assert own_file.read(ARM64, places.etc) is None


def test_a_record_that_was_changed_is_not_believed(places: Places) -> None:
    rule = rule_for(ARM64, "/opt/qemu", name="armvm-aarch64")
    path = places.etc / "zz-armvm-aarch64.conf"
    own = Own(path=path, text=line(rule), rule=rule)
    own_file.write(own, ARM64)
    good = path.read_text()
    path.write_text(good.replace(own.text, f"# before: nonsense\n{own.text}"))
    assert own_file.read(ARM64, places.etc) == own
    path.write_text(good.replace(":armvm-aarch64:", ":another:"))
    assert own_file.read(ARM64, places.etc) is None
    path.write_text(good.replace("# armvm binfmt register", "# somebody's"))
    assert own_file.read(ARM64, places.etc) is None


def test_a_handler_that_somebody_registered_anew_is_theirs(places: Places, wanted: Request) -> None:
    rule = rule_for(ARM64, str(wanted.program))
    own = Own(path=places.etc / "qemu-aarch64.conf", text=line(rule), rule=rule)
    own_file.write(own, ARM64)
    (places.root / "qemu-aarch64").write_text(DEBIAN)
    with pytest.raises(Conflict, match="another tool"):
        register.unregister(ARM64, places)
    assert own.path.exists()
    assert (places.root / "qemu-aarch64").read_text() == DEBIAN


def test_unregister_removes_the_handler_and_the_file(places: Places, wanted: Request) -> None:
    rule = rule_for(ARM64, str(wanted.program))
    own = Own(path=places.etc / "qemu-aarch64.conf", text=line(rule), rule=rule)
    own_file.write(own, ARM64)
    path = "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"
    (places.root / "qemu-aarch64").write_text(DEBIAN.replace(path, str(wanted.program)))
    register.unregister(ARM64, places)
    assert (places.root / "qemu-aarch64").read_text() == "-1"
    assert not own.path.exists()
