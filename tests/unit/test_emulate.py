"""``armvm emulate``: reading a program's header, QEMU's command line, and errors."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ArmvmError, ConfigError, MissingCapability, NotFound
from armvm.usermode.programs import emulate
from armvm.usermode.programs.emulate import Program
from tests.elf_tools import elf_file, exit_with, tiny
from tests.namespace_tools import qemu_user
from tests.support import armvm

AARCH64 = qemu_user("aarch64")
needs_qemu = pytest.mark.skipif(not AARCH64.exists(), reason="needs qemu-user-static")


@pytest.fixture
def bins(tmp_path: Path) -> Callable[..., str]:
    """Make a directory with programs of these names; returns a search path of it alone."""

    def make(*names: str) -> str:
        where = tmp_path / "bins"
        where.mkdir(exist_ok=True)
        for name in names:
            (where / name).write_text('#!/bin/sh\necho "no pauth-impdef" >&2\nexit 1\n')
            (where / name).chmod(0o755)
        return str(where)

    return make


def argv(program: Program, path: str, **options: object) -> list[str]:
    values = {"name": "prog", "sysroot": None, "cpu": None, "has": lambda root, name: True}
    words = emulate.command(
        program,
        ["--flag"],
        machine="x86_64",
        path=path,
        **{**values, **options},  # type: ignore[arg-type]
    )
    return [str(word) for word in words]


def static(architecture: str = "arm") -> Program:
    return Program(path=Path("/p"), architecture=architecture, loader=None)


def dynamic(architecture: str = "arm", loader: str = "/lib/ld-linux-armhf.so.3") -> Program:
    return Program(path=Path("/p"), architecture=architecture, loader=loader)


@pytest.mark.parametrize(("key", "name"), emulate.ARCHITECTURES.items(), ids=str)
def test_an_architecture_is_known_by_machine_class_and_order(
    key: tuple[int, int, bool], name: str
) -> None:
    machine, bits, little = key
    assert emulate.architecture_of(elf_file(machine, bits=bits, little=little)) == name


def test_class_and_byte_order_count() -> None:
    assert emulate.architecture_of(elf_file(183, bits=32)) is None, "ILP32 is none of QEMU's"
    assert emulate.architecture_of(elf_file(40, bits=32, little=False)) == "armeb"
    assert emulate.architecture_of(b"\x7fELF") is None
    assert emulate.architecture_of(b"") is None


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("little", [True, False])
def test_the_loader_is_read_where_the_headers_say(tmp_path: Path, bits: int, little: bool) -> None:
    machine = {(32, True): 40, (64, True): 183, (32, False): 40, (64, False): 183}[bits, little]
    file = tmp_path / "prog"
    file.write_bytes(elf_file(machine, bits=bits, little=little, loader="/lib/ld.so.1"))
    file.chmod(0o755)
    assert emulate.look(file).loader == "/lib/ld.so.1"
    file.write_bytes(elf_file(machine, bits=bits, little=little))
    assert emulate.look(file).loader is None


@given(data=st.data())
def test_a_damaged_program_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(elf_file(183, loader="/lib/ld.so.1"))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.touch(mode=0o755)
    file.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        emulate.look(file)
    except ConfigError as error:
        assert error.hint


def test_a_huge_header_table_ends_soon(tmp_path: Path) -> None:
    data = bytearray(elf_file(183, loader="/lib/ld.so.1"))
    data[54:58] = struct.pack("<HH", 65535, 65535)
    (tmp_path / "p").touch(mode=0o755)
    (tmp_path / "p").write_bytes(data)
    start = time.monotonic()
    emulate.look(tmp_path / "p")
    assert time.monotonic() - start < 5


def test_the_static_qemu_is_preferred(bins: Callable[..., str]) -> None:
    assert argv(static(), bins("qemu-arm"))[0].endswith("/qemu-arm")
    assert argv(static(), bins("qemu-arm-static"))[0].endswith("/qemu-arm-static")


def test_the_command_line(bins: Callable[..., str]) -> None:
    path = bins("qemu-arm-static", "qemu-aarch64-static", "qemu-riscv64-static")
    assert argv(static(), path)[1:] == ["-cpu", "max", "-0", "prog", "/p", "--flag"]
    words = argv(dynamic(), path, sysroot=Path("/s"), cpu="cortex-a7")
    assert words[1:] == ["-cpu", "cortex-a7", "-L", "/s", "-0", "prog", "/p", "--flag"]
    # This QEMU says that it does not know the property.
    assert argv(static("aarch64"), path)[1:3] == ["-cpu", "max"]
    assert argv(static("riscv64"), path)[1:] == ["-0", "prog", "/p", "--flag"]


@needs_qemu
def test_the_hosts_qemu_is_asked_for_quick_pointer_authentication() -> None:
    """Every QEMU since 6.0 has it; a property that no QEMU has is refused."""
    assert emulate.takes_quick_cpu(str(AARCH64))
    assert emulate.cpu_for("aarch64", str(AARCH64)) == "max,pauth-impdef=on"


def test_without_qemu_the_package_is_named() -> None:
    with pytest.raises(MissingCapability, match="qemu-arm") as caught:
        emulate.qemu_for("arm", "/nonexistent")
    assert "qemu-user-static" in str(caught.value.hint)


def test_a_loader_whose_name_is_too_long_is_missing() -> None:
    with pytest.raises(MissingCapability, match="requires the loader"):
        emulate.check_loader(dynamic(loader="/" + "A" * 300), None, lambda *_: False)


def test_a_missing_loader_is_named_with_what_would_bring_it(bins: Callable[..., str]) -> None:
    path = bins("qemu-arm-static", "qemu-riscv64-static")
    with pytest.raises(MissingCapability, match=r"ld-linux-armhf\.so\.3") as caught:
        argv(dynamic(), path, has=lambda root, name: False)
    hint = str(caught.value.hint)
    assert "armvm rootfs create DIR --image debian:12 --arch armhf" in hint
    assert "/usr/arm-linux-gnueabihf" not in hint
    with pytest.raises(MissingCapability) as caught:
        argv(dynamic(), path, has=lambda root, name: str(root) == "/usr/arm-linux-gnueabihf")
    assert str(caught.value.hint).startswith("--sysroot /usr/arm-linux-gnueabihf; or ")
    with pytest.raises(MissingCapability, match="not found in /s"):
        argv(dynamic(), path, sysroot=Path("/s"), has=lambda root, name: False)
    with pytest.raises(MissingCapability) as caught:
        argv(dynamic("riscv64", "/lib/ld.so"), path, has=lambda root, name: False)
    assert "rootfs" not in str(caught.value.hint)


def test_the_hosts_own_programs_need_no_emulation(bins: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="own processor"):
        argv(static("x86_64"), bins("qemu-x86_64-static"))


@pytest.mark.parametrize("model", ["", "-L", "max max", "max;reboot", "a" * 300, "max\n"])
def test_what_is_no_processor_is_refused(model: str) -> None:
    with pytest.raises(ConfigError):
        emulate.check_cpu(model)
    assert emulate.check_cpu("max,sve=off,pauth-impdef=on")


# ---- as a program --------------------------------------------------------------------------


@needs_qemu
def test_exit_codes_and_input_are_passed(tmp_path: Path) -> None:
    code = tmp_path / "exits"
    code.write_bytes(exit_with(42))
    code.chmod(0o755)
    assert armvm("emulate", code).code == 42
    assert armvm("emulate", "--cpu", "cortex-a57", code, "--quiet", "-h").code == 42
    echo = tmp_path / "echoes"
    echo.write_bytes(tiny("echo"))
    assert "chmod +x" in armvm("emulate", echo).failed(7).err
    echo.chmod(0o755)
    assert armvm("emulate", echo, stdin="hello").ok().out == "hello"
    trap = tmp_path / "traps"
    trap.write_bytes(tiny("trap"))
    trap.chmod(0o755)
    assert armvm("emulate", trap).code == 128 + 4


@needs_qemu
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing-here"], 4, "program 'nothing-here' not found"),
        (["/etc/passwd"], 3, "is not a program that QEMU's user mode supports"),
        (["/tmp"], 3, "/tmp"),
        (["--sysroot", "/nowhere", "x"], 4, "directory /nowhere not found"),
        (["--sysroot", "/", "x"], 3, "own root file system"),
        (["--sysroot", "/usr", "--image", "debian:12", "x"], 2, "leave one out"),
        (["--image", "debian:99", "x"], 4, "debian-99"),
    ],
)
def test_refusals(words: list[str], code: int, said: str) -> None:
    assert said in armvm("emulate", *words).failed(code).err


def test_a_name_that_is_too_long_is_refused() -> None:
    assert "it is too long" in armvm("emulate", "x" * 5000).failed(3).err
    with pytest.raises(ArmvmError):
        emulate.look(Path("x\0y"))
    with pytest.raises(NotFound):
        emulate.look(Path("/nowhere/x"))
