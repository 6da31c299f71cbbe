"""What comes of running a file: told for every kind, and never with a traceback."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import ArmvmError, NotFound
from armvm.base.result import as_json
from armvm.provision.binfmt.explain import explain as facts
from armvm.usermode.architectures import ARCHITECTURES, Architecture, find
from armvm.usermode.binfmt import sample_programs
from armvm.usermode.binfmt.execution import Explanation, Outcome, command
from armvm.usermode.binfmt.handlers import Table, parse
from armvm.usermode.binfmt.outcome import explain
from armvm.usermode.programs import elf
from tests import schemas
from tests.unit.test_binfmt_handlers import STATUS

HANDLER = parse("qemu-aarch64", (STATUS / "debian-pof").read_text())
NONE = Table(mounted=True, on=True, handlers=())
FULL = Table(mounted=True, on=True, handlers=(HANDLER,))


def dynamic(loader: bytes = b"/lib/ld-linux-aarch64.so.1", machine: int = 183) -> bytes:
    """A dynamic program: PT_INTERP, PT_LOAD, PT_DYNAMIC with two libraries and a RUNPATH."""
    strings = b"\0libc.so.6\0libfoo.so.1\0$ORIGIN/lib\0"
    interp, base = 64 + 3 * 56, 0x10000
    text = interp + len(loader) + 1
    section = text + len(strings)
    tags = [(1, 1), (1, 11), (29, 23), (5, base + text), (0, 0)]
    body = loader + b"\0" + strings + b"".join(struct.pack("<qQ", *tag) for tag in tags)
    size = interp + len(body)
    ident = find("aarch64").magic[:16] + struct.pack("<2H", 3, machine)
    head = ident + struct.pack("<I3QI6H", 1, base, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    headers = [
        (3, 4, interp, base + interp, len(loader) + 1),
        (1, 5, 0, base, size),
        (2, 4, section, base + section, 16 * len(tags)),
    ]
    load = b"".join(
        struct.pack("<2I6Q", kind, flags, at, where, where, length, length, 8)
        for kind, flags, at, where, length in headers
    )
    return head + load + body


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return made(tmp_path / "program", sample_programs.program(find("aarch64")))


def made(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def told(path: Path, table: Table = NONE, **options: Any) -> Explanation:
    return explain(path, table, machine="x86_64", **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)
def test_every_architectures_header_is_read(architecture: Architecture, tmp_path: Path) -> None:
    path = made(tmp_path / "x", sample_programs.program(architecture))
    found = elf.read(path)
    assert found is not None
    assert (found.bits, found.little) == (architecture.bits, architecture.little)
    assert (found.type_name, found.machine) == ("executable", architecture.machine)
    assert (found.static, found.segments, found.problems) == (True, 1, ())
    assert told(path).architecture == architecture


def test_loader_and_libraries_are_read(tmp_path: Path) -> None:
    found = elf.read(made(tmp_path / "x", dynamic()))
    assert found is not None
    assert found.loader == "/lib/ld-linux-aarch64.so.1"
    assert found.needed == ("libc.so.6", "libfoo.so.1")
    assert found.runpath == ("$ORIGIN/lib",)
    assert found.type_name == "position-independent executable"


def test_without_a_handler_it_is_an_exec_format_error_with_its_fix(program: Path) -> None:
    found = told(program)
    assert found.outcome is Outcome.FAILS
    assert "Exec format error" in found.happens
    assert "armvm binfmt register aarch64" in (found.fix or "")


@pytest.mark.parametrize(
    ("table", "why", "fix"),
    [
        (Table(mounted=False, on=False, handlers=()), "not mounted", "register aarch64"),
        (Table(mounted=True, on=False, handlers=(HANDLER,)), "binfmt_misc is disabled", "/status"),
        (
            Table(
                mounted=True,
                on=True,
                handlers=(
                    parse("q", (STATUS / "debian-pof").read_text().replace("enabled", "disabled")),
                ),
            ),
            "q is disabled",
            "binfmt_misc/q",
        ),
    ],
    ids=["unmounted", "off", "disabled"],
)
def test_why_no_handler_takes_it(program: Path, table: Table, why: str, fix: str) -> None:
    found = told(program, table)
    assert found.outcome is Outcome.FAILS
    assert why in found.happens
    assert fix in (found.fix or "")


def test_a_handler_whose_interpreter_is_gone(program: Path, tmp_path: Path) -> None:
    gone = (STATUS / "debian-pof").read_text().replace("/usr/libexec", str(tmp_path))
    kept = told(program, Table(mounted=True, on=True, handlers=(parse("q", gone),)))
    assert kept.outcome is Outcome.RUNS, "F keeps it"
    assert "opened at registration" in kept.happens
    lost = parse("q", gone.replace("POF", "PO"))
    found = told(program, Table(mounted=True, on=True, handlers=(lost,)))
    assert found.outcome is Outcome.FAILS
    assert "ENOENT" in found.happens
    assert "--replace" in (found.fix or "")


def test_a_dynamic_program_finds_its_libraries_in_a_sysroot(tmp_path: Path) -> None:
    program = made(tmp_path / "program", dynamic())
    bare = told(program, FULL)
    assert bare.outcome is Outcome.LIKELY_FAILS
    assert "QEMU_LD_PREFIX" in (bare.fix or "")
    root = tmp_path / "root"
    for name in ("lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu/libc.so.6"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(dynamic())
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libfoo.so.1").write_bytes(dynamic(machine=62))
    found = told(program, FULL, sysroot=str(root))
    assert f"QEMU_LD_PREFIX={root}" in found.happens
    assert found.loader is not None
    assert found.loader.path == f"{root}/lib/ld-linux-aarch64.so.1"
    assert found.libraries[0].path == f"{root}/usr/lib/aarch64-linux-gnu/libc.so.6"
    assert found.libraries[1].path is None, "a library of another machine is none"
    assert "libfoo.so.1" in found.happens
    (tmp_path / "lib" / "libfoo.so.1").write_bytes(dynamic())
    by_prefix = told(program, FULL, environment={"QEMU_LD_PREFIX": str(root)})
    assert by_prefix.libraries[1].path == f"{tmp_path}/lib/libfoo.so.1"
    assert by_prefix.outcome is Outcome.RUNS


def test_a_program_in_its_own_root_is_told_to_have_it_as_prefix(tmp_path: Path) -> None:
    for name in ("bin/program", "lib/ld-linux-aarch64.so.1", "lib/libc.so.6", "lib/libfoo.so.1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        made(tmp_path / name, dynamic())
    program = tmp_path / "bin" / "program"
    assert told(program, FULL).fix == f"QEMU_LD_PREFIX={tmp_path} {program}"


@pytest.mark.parametrize(
    ("data", "kind", "outcome", "words"),
    [
        (b"", "empty", "fails", "ENOEXEC"),
        (b"echo hello\n", "text", "fails", "lacks a '#!' line"),
        (b"#!\necho\n", "script", "fails", "lacks an interpreter"),
        (b"#!/nonexistent/sh\n", "script", "fails", "ENOENT"),
        (b"#!/bin/sh\r\necho\r\n", "script", "fails", "ENOENT"),
        (b"#!/bin/sh\necho\n", "script", "runs", "/bin/sh"),
        (b"#!python\n", "script", "fails", "not an absolute path"),
        (b"MZ\0\0", "other", "fails", "neither ELF nor a script"),
        (b"\x7fELF", "elf", "fails", "Exec format error"),
        (bytes([*find("arm64").magic[:16], 1, 0, 183, 0]), "elf", "fails", "relocatable"),
    ],
    ids=["empty", "text", "bare", "gone", "crlf", "script", "relative", "dos", "cut", "object"],
)
def test_other_files_get_a_sensible_answer(
    tmp_path: Path, data: bytes, kind: str, outcome: str, words: str
) -> None:
    found = facts(made(tmp_path / "x", data), None, {}, root=tmp_path, machine=os.uname().machine)
    schemas.check("binfmt explain", as_json(found))
    assert (found.kind, found.outcome) == (kind, outcome)
    assert words in found.happens


def test_a_script_of_a_foreign_interpreter_fails_for_its_reason(tmp_path: Path) -> None:
    shell = made(tmp_path / "sh", sample_programs.program(find("arm")))
    found = told(made(tmp_path / "script", f"#!{shell}\n".encode()))
    assert found.outcome is Outcome.FAILS
    assert "register arm" in (found.fix or "")


def test_a_script_with_the_wrong_line_ends_is_told_so(tmp_path: Path) -> None:
    found = told(made(tmp_path / "script", b"#!/bin/sh\r\necho\r\n"))
    assert "CR LF" in (found.fix or "")
    assert found.script == "/bin/sh\r"


def test_a_script_of_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    assert told(made(path, f"#!{path}\n".encode())).outcome is Outcome.FAILS


def test_what_may_not_be_executed_is_said_first(program: Path) -> None:
    program.chmod(0o644)
    found = told(program, FULL)
    assert found.outcome is Outcome.FAILS
    assert "chmod +x" in (found.fix or "")


def test_text_is_not_made_executable_by_a_hint(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# armvm")
    found = told(readme)
    assert "it is not a program" in found.happens
    assert found.fix is None


def test_what_is_no_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "none", "pipe", "a\0b", "x" * 5000):
        with pytest.raises(NotFound) as caught:
            told(tmp_path / name)
        assert caught.value.hint


def test_a_program_of_the_current_directory_is_called_by_its_path(
    program: Path, tmp_path: Path
) -> None:
    program.chmod(0o644)
    assert command(Path("program")) == "./program"
    assert told(program).fix == f"chmod +x {program}"


def test_mutated_files_never_break_it(tmp_path: Path) -> None:
    """500 files, made from real programs and ours by changing, cutting and repeating bytes."""
    chance = random.Random(6)
    seeds = [dynamic(), *(sample_programs.program(one) for one in ARCHITECTURES)]
    seeds.append(Path("/bin/true").read_bytes()[:40000])
    (tmp_path / "register").touch()
    (tmp_path / "qemu-aarch64").write_text((STATUS / "debian-pof").read_text())
    kinds = set()
    for number in range(500):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(chance.randint(1, 12)):
            at = chance.randrange(min(len(data), 900))
            data[at] = chance.choice((0, 0xFF, 0x7F, chance.randrange(256)))
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        path = made(tmp_path / "mutant", bytes(data))
        try:
            found = facts(path, None, {}, root=tmp_path, machine="x86_64")
        except ArmvmError as error:
            assert error.hint
        else:
            schemas.check("binfmt explain", as_json(found))
            kinds.add((found.kind, found.outcome))
    assert {("elf", "fails"), ("elf", "runs"), ("elf", "fails later")} <= kinds
