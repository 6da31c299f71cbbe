"""`armvm binfmt` as a program: what needs neither root nor a handler."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from armvm.usermode.architectures import ARCHITECTURES, Architecture, find
from armvm.usermode.binfmt import sample_programs
from armvm.usermode.binfmt.handlers import Table, parse
from armvm.usermode.binfmt.trial import Way, explained
from tests.namespace_tools import qemu_user
from tests.support import ARMVM, armvm, environment
from tests.unit.test_binfmt_handlers import DATA, STATUS


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(sample_programs.program(find("s390x")))
    path.chmod(0o755)
    return path


def test_status_and_its_json(tmp_path: Path) -> None:
    found = armvm("binfmt", "status", "--json").ok().json
    assert [one["name"] for one in found["architectures"]] == [one.name for one in ARCHITECTURES]
    assert "s390x" in armvm("binfmt", "status", "s390x").ok().out
    armvm("binfmt", "status", "vax").failed(4)


def test_conf_is_debians_line_in_magic_and_mask() -> None:
    ours = armvm("binfmt", "conf", "ppc64el").ok().out.strip().split(":")
    debian = (DATA / "binfmt.d" / "qemu-ppc64le.conf").read_text().strip().split(":")
    assert ours[4:6] == debian[4:6]
    armvm("binfmt", "conf", "arm", "--interpreter", "relative").failed(3)


def test_explain_tells_what_a_file_is(program: Path) -> None:
    out = armvm("binfmt", "explain", program).ok().out
    for words in ("64 bits", "big endian", "S/390", "static"):
        assert words in out
    assert armvm("binfmt", "explain", program, "--json").ok().json["architecture"] == "s390x"
    armvm("binfmt", "explain", program / "none").failed(4)


def on_terminal(*args: str | Path, **changes: str) -> str:
    """What armvm writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = {**environment(TERM="xterm", **changes)}
    variables = {key: value for key, value in variables.items() if value}
    with subprocess.Popen([*ARMVM, *map(str, args)], stdout=theirs, stdin=theirs, env=variables):
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    return text.decode()


def test_colour_is_for_terminals_without_no_color(program: Path) -> None:
    assert "\x1b[" in on_terminal("binfmt", "explain", program, NO_COLOR="")
    plain = on_terminal("binfmt", "explain", program)
    assert "\x1b[3" not in plain
    assert "S/390" in plain


def test_names_from_files_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_bytes(b"#!/bin/\x1b[31mred\n")
    path.chmod(0o755)
    assert "\x1b" not in armvm("binfmt", "explain", path).ok().out


def test_wrong_calls_are_told_so() -> None:
    armvm("binfmt", "register", "arm", "aarch64", "--interpreter", "/bin/true").failed(2)
    armvm("binfmt", "register", "arm", "--", "true").failed(4)
    for gone in ("reset", "revert"):
        armvm("binfmt", gone, "arm").failed(2)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)
def test_the_tiny_program_runs(architecture: Architecture, tmp_path: Path) -> None:
    qemu = qemu_user(architecture.name)
    if not qemu.exists():
        pytest.skip("needs qemu-user-static")
    path = tmp_path / "program"
    path.write_bytes(sample_programs.program(architecture))
    path.chmod(0o755)
    done = subprocess.run([qemu, path], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (sample_programs.SAYS, b"")
    assert path.stat().st_size < 200


@pytest.mark.parametrize(
    ("number", "way", "changes", "reason"),
    [
        (8, Way.DIRECT, ("enabled", "disabled"), "is disabled"),
        (2, Way.DIRECT, ("POF", "PO"), "cannot be used"),
        (2, Way.CHROOT, ("POF", "PO"), "inside the chroot"),
        (2, Way.NAMESPACE, ("POF", "PO"), "where the program runs"),
        (13, Way.DIRECT, ("", ""), "is not executable"),
        (40, Way.DIRECT, ("", ""), "ELOOP"),
        (8, Way.DIRECT, ("", ""), "has its own binfmt_misc"),
    ],
)
def test_failures_are_told_apart(
    number: int, way: Way, changes: tuple[str, str], reason: str, tmp_path: Path
) -> None:
    text = (STATUS / "debian-pof").read_text().replace("/usr/libexec", str(tmp_path))
    handler = parse("qemu-aarch64", text.replace(*changes) if changes[0] else text)
    table = Table(mounted=True, on=True, handlers=(handler,))
    told, _ = explained(way, number, find("arm64"), table, tmp_path)
    assert reason in told
