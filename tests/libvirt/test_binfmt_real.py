"""Handlers for real: registered with the kernel, used by real programs, taken back.

Each test has a user namespace with a binfmt_misc of its own, which begins empty, and an empty
/etc/binfmt.d, so that the program runs unchanged and the host stays as it is. Root runs the main
sequence on the host too, before whatever handlers are there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from armvm.usermode.architectures import find
from armvm.usermode.binfmt import own_namespace, sample_programs
from tests.foreign_programs import busybox
from tests.namespace_tools import qemu_user
from tests.support import ARMVM, Result, armvm

ROOT = Path("/proc/sys/fs/binfmt_misc")
ETC = Path("/etc/binfmt.d")
QEMU = qemu_user("aarch64")

pytestmark = pytest.mark.skipif(
    not (QEMU.exists() and ETC.is_dir()), reason="needs qemu-user-static and /etc/binfmt.d"
)


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where commands run: *enter* is what brings them there; it may *replace* others' handlers."""

    enter: tuple[str, ...]
    replace: tuple[str, ...] = ()

    def armvm(self, *args: str | Path) -> Result:
        """Run armvm there."""
        return armvm(*args, prefix=(*self.enter, *ARMVM))

    def call(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run another program there."""
        return subprocess.run(
            [*self.enter, *map(str, words)], capture_output=True, text=True, check=False
        )

    def register(self, line: str) -> None:
        """Register a handler as another tool would."""
        code = "import sys; open(sys.argv[1], 'wb').write(sys.argv[2].encode())"
        done = self.call(sys.executable, "-c", code, ROOT / "register", line)
        assert done.returncode == 0, done.stderr

    def state(self) -> Any:
        """Return all that registering changes: handlers in order with content and time, files."""
        code = (
            "import os, sys, json\n"
            "print(json.dumps([[(e.name, os.stat(e.path).st_mtime_ns, e.name != 'register' and "
            "open(e.path).read()) for e in os.scandir(d) if e.name != 'register'] "
            "for d in sys.argv[1:]]))"
        )
        done = self.call(sys.executable, "-c", code, ROOT, ETC)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def space() -> Iterator[Host]:
    """A namespace of its own, with an empty table of handlers."""
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo; exec sleep 600"],
        stdout=subprocess.PIPE,
    ) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            enter = ("nsenter", "--target", str(holder.pid), "--user", "--mount")
            host = Host(enter=(*enter, "--preserve-credentials", "--"))
            for kind, place in (("binfmt_misc", ROOT), ("tmpfs", ETC)):
                done = host.call("mount", "-t", kind, kind, place)
                if done.returncode != 0:
                    pytest.skip(f"needs Linux 6.7 and user namespaces: {done.stderr}")
            yield host
        finally:
            holder.kill()


@pytest.fixture(params=["namespace", "host"])
def place(request: pytest.FixtureRequest) -> Host:
    """A namespace, and the host itself where root asks."""
    if request.param == "namespace":
        found: Host = request.getfixturevalue("space")
        return found
    if os.geteuid() != 0 or not os.access(ROOT / "register", os.W_OK):
        pytest.skip("needs root, and binfmt_misc mounted so that it can be written")
    return Host(enter=(), replace=("--replace",))


def rooted(tmp_path: Path, program: Path) -> Path:
    """A root directory that holds nothing but one program."""
    root = tmp_path / f"root-{program.name}"
    root.mkdir()
    shutil.copy(program, root / "busybox")
    return root


def hidden(directory: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """The words that run a command in a mount namespace where a directory is empty."""
    helper: list[str | Path] = [
        sys.executable,
        "-I",
        "-S",
        own_namespace.__file__,
        "--hide",
        directory,
    ]
    return ["unshare", "--mount", "--", *helper, "--", *command]


def foreign(interpreter: Path, flags: str, name: str = "qemu-aarch64") -> str:
    """A line as other tools write it."""
    magic, mask = (
        "".join(f"\\x{byte:02x}" for byte in part)
        for part in (find("arm64").magic, find("arm64").mask)
    )
    return f":{name}:M::{magic}:{mask}:{interpreter}:{flags}"


def test_register_run_three_ways_and_unregister(place: Host, tmp_path: Path) -> None:
    before = place.state()
    done = place.armvm("binfmt", "register", "aarch64", "armhf", *place.replace).ok()
    assert len(done.out.splitlines()) == 2
    try:
        status = place.armvm("binfmt", "status", "arm64", "arm", "--json").ok().json
        assert all(one["handler"] for one in status["architectures"])
        top = {one["name"]: one for one in reversed(status["handlers"])}
        for one in status["architectures"]:
            handler = top[one["handler"]]
            assert handler["enabled"]
            assert handler["static"]
            assert handler["registered_by"] == "binfmt.d"
            assert handler["declared_in"].startswith(str(ETC))
            assert handler["shadowed_by"] is None
        for architecture, machine in (("arm64", "aarch64"), ("armhf", "armv7l")):
            program = busybox(architecture)
            direct = place.call(program, "uname", "-m")
            assert (direct.stdout.strip(), direct.stderr) == (machine, "")
            root = rooted(tmp_path, program)
            caged = place.call("chroot", root, "/busybox", "uname", "-m")
            assert (caged.stdout.strip(), caged.stderr) == (machine, "")
            handler = status["architectures"][architecture == "armhf"]["handler"]
            interpreter = Path(top[handler]["interpreter"])
            apart = place.call(*hidden(interpreter.parent, [program, "uname", "-m"]))
            assert (apart.stdout.strip(), apart.stderr) == (machine, "")
        tried = place.armvm("binfmt", "test", "arm64", "armhf", "--json").ok().json
        assert {way["outcome"] for one in tried for way in one["trials"]} == {"works"}
    finally:
        place.armvm("binfmt", "unregister", "aarch64", "arm").ok()
    assert place.state() == before


def test_without_f_the_chroot_fails_and_test_says_why(space: Host, tmp_path: Path) -> None:
    space.armvm("binfmt", "register", "aarch64", "--flags", "PO").ok()
    program = busybox("arm64")
    assert space.call(program, "uname", "-m").stdout.strip() == "aarch64"
    root = rooted(tmp_path, program)
    caged = space.call("chroot", root, "/busybox", "uname", "-m")
    assert caged.returncode == 127
    assert "No such file or directory" in caged.stderr
    tried = space.armvm("binfmt", "test", "arm64", "--json")
    assert tried.code == 12
    direct, chroot, namespace = tried.json[0]["trials"]
    assert direct["outcome"] == "works"
    for one in (chroot, namespace):
        assert one["outcome"] == "fails"
        assert "lacks flag F" in one["reason"]
        assert "armvm binfmt register aarch64" in one["fix"]
    space.armvm("binfmt", "register", "aarch64").ok()
    assert space.armvm("binfmt", "test", "arm64").ok().out.count("works") == 3


def test_the_other_failures_are_told_apart(space: Host, tmp_path: Path) -> None:
    def reason() -> str:
        tried = space.armvm("binfmt", "test", "arm64", "--json")
        assert tried.code == 12
        return str(tried.json[0]["trials"][0]["reason"])

    assert "no handler is registered" in reason()
    qemu = tmp_path / "qemu-aarch64"
    shutil.copy(QEMU, qemu)
    space.register(foreign(qemu, ""))
    assert (
        space.armvm("binfmt", "test", "arm64", "--json").json[0]["trials"][0]["outcome"] == "works"
    )
    qemu.chmod(0o644)
    assert "is not executable" in reason()
    qemu.unlink()
    assert "cannot be used" in reason()
    space.call("sh", "-c", f"echo 0 > {ROOT}/qemu-aarch64")
    assert "is disabled" in reason()
    space.call("sh", "-c", f"echo 0 > {ROOT}/status")
    assert "binfmt_misc is disabled" in reason()


def test_another_tools_handler_is_never_touched(space: Host, tmp_path: Path) -> None:
    """One whose interpreter lives in the kernel alone, as a container's does, is there again."""
    qemu = tmp_path / "qemu-aarch64"
    shutil.copy(QEMU, qemu)
    space.register(foreign(qemu, "OCF"))
    qemu.unlink()
    before = space.state()
    refused = space.armvm("binfmt", "register", "aarch64").failed(5)
    assert "--replace" in refused.err
    assert space.state() == before
    space.armvm("binfmt", "register", "aarch64", "--replace").ok()
    found = space.armvm("binfmt", "status", "aarch64", "--json").ok().json
    assert [one["name"] for one in found["handlers"]] == ["armvm-aarch64", "qemu-aarch64"]
    assert found["architectures"][0]["handler"] == "armvm-aarch64"
    assert found["handlers"][1]["shadowed_by"] == "armvm-aarch64"
    space.armvm("binfmt", "unregister", "aarch64").ok()
    assert space.state() == before
    assert space.call(busybox("arm64"), "uname", "-m").stdout.strip() == "aarch64"


def test_a_newer_interpreter_takes_the_place_of_the_older(space: Host, tmp_path: Path) -> None:
    newer = tmp_path / "qemu-newer"
    shutil.copy(QEMU, newer)
    empty = space.state()
    space.armvm("binfmt", "register", "aarch64").ok()
    space.armvm("binfmt", "register", "aarch64", "--interpreter", newer).ok()
    assert str(newer) in space.call("cat", ROOT / "qemu-aarch64").stdout
    found = space.armvm("binfmt", "status", "aarch64", "--json").ok().json
    assert [one["name"] for one in found["handlers"]] == ["qemu-aarch64"]
    space.armvm("binfmt", "unregister", "aarch64").ok()
    assert space.state() == empty
    space.armvm("binfmt", "unregister", "aarch64").failed(4)


def test_an_upgrade_under_a_fixed_handler_is_told(space: Host, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu-aarch64"
    shutil.copy(QEMU, qemu)
    space.armvm("binfmt", "register", "aarch64", "--interpreter", qemu).ok()

    def warnings() -> str:
        found = space.armvm("binfmt", "status", "aarch64", "--json").ok().json
        return " ".join(found["handlers"][0]["warnings"])

    assert "newer" not in warnings()
    time.sleep(0.02)  # the kernel's clock of files goes in ticks
    shutil.copy(QEMU, tmp_path / "upgrade")
    (tmp_path / "upgrade").replace(qemu)
    assert "newer" in warnings()
    qemu.unlink()
    assert "can no longer be used" in warnings()


def test_bad_interpreters_change_nothing(space: Host, tmp_path: Path) -> None:
    before = space.state()
    own = tmp_path / "own"
    own.write_bytes(sample_programs.program(find("arm64")))
    own.chmod(0o755)
    for words, code in (
        (("--interpreter", "/nonexistent"), 4),
        (("--interpreter", tmp_path), 4),
        (("--interpreter", sys.executable), 6),
        (("--interpreter", own), 6),
        (("--interpreter", "/tmp/a:b"), 3),
        (("--flags", "XY"), 3),
    ):
        space.armvm("binfmt", "register", "aarch64", *words).failed(code)
    assert space.state() == before


def test_the_order_is_the_kernels(space: Host, tmp_path: Path) -> None:
    """Registered from both ends of the CPUs, where inode numbers do not grow."""
    program = tmp_path / "program"
    program.write_bytes(sample_programs.program(find("arm64")))
    program.chmod(0o755)
    cpus = sorted(os.sched_getaffinity(0))
    for number, name in enumerate(("m", "a", "z", "k")):
        interpreter = tmp_path / name
        interpreter.write_text(f"#!/bin/sh\necho {name}\n")
        interpreter.chmod(0o755)
        pinned = Host(enter=(*space.enter, "taskset", "-c", str(cpus[-(number % 2)])))
        pinned.register(foreign(interpreter, "", name=name))
        assert space.call(program).stdout.strip() == name
        found = space.armvm("binfmt", "status", "aarch64", "--json").ok().json
        assert found["architectures"][0]["handler"] == name
        assert found["order_certain"]
    assert [one["name"] for one in found["handlers"]] == ["k", "z", "a", "m"]
