"""The console as a user has it: a real terminal (pexpect's) before a real guest."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.libvirt.world import virsh
from tests.support import ARMVM, armvm, environment, fresh_name

PROMPT = r"debian@\S+:\S+\$ "


@pytest.fixture(scope="module")
def clone(golden: str) -> Iterator[str]:
    """A machine made from the shared golden; its console logs in by itself."""
    name = fresh_name("armvm-console")
    try:
        armvm("create", "--from", golden, "--name", name).ok()
        yield name
    finally:
        armvm("delete", "--yes", name)


@contextlib.contextmanager
def attached(
    name: str, *options: str, size: tuple[int, int] = (33, 101)
) -> Iterator[pexpect.spawn[str]]:
    """``armvm console`` on a terminal of its own."""
    words = [*ARMVM[1:], "console", name, *options]
    console = pexpect.spawn(
        ARMVM[0], words, env=environment(), encoding="utf8", timeout=60, dimensions=size
    )
    try:
        console.expect("Ctrl-]")
        yield console
    finally:
        console.close(force=True)


def leave(console: pexpect.spawn[str]) -> int | None:
    """Type Ctrl-], and return the exit code."""
    console.send("\x1d")
    console.expect(pexpect.EOF)
    console.wait()
    code: int | None = console.exitstatus
    return code


def wake(console: pexpect.spawn[str]) -> None:
    console.send("\r")
    console.expect(PROMPT)


def told_size(console: pexpect.spawn[str], rows: int, columns: int) -> None:
    """Ask the guest for its idea of the size until it has heard of ours, for 30 s."""
    end = time.monotonic() + 30
    while True:
        console.send("echo is-$(stty size | tr ' ' x)-\r")
        console.expect(r"is-(\d+x\d+)-")
        assert isinstance(console.match, re.Match)
        if console.match[1] == f"{rows}x{columns}":
            return
        assert time.monotonic() < end, console.match[1]
        time.sleep(0.5)


def test_commands_size_and_leaving(clone: str) -> None:
    with attached(clone) as console:
        wake(console)
        console.send("echo here-$((40 + 2))-$(uname -m)\r")
        console.expect("here-42-aarch64")
        told_size(console, 33, 101)
        console.setwinsize(44, 120)
        told_size(console, 44, 120)
        assert leave(console) == 0
    assert armvm("show", clone, "--json").ok().json["state"] == "running"


def test_what_was_missed_is_shown_once(clone: str) -> None:
    """While the guest speaks, consoles come and go: no line is lost between, none comes twice."""
    with attached(clone, "--lines", "0") as console:
        wake(console)
        console.send(
            "for i in $(seq 100 129); do echo count-$i-; sleep 0.02; done; echo th''rough\r"
        )
        console.expect("count-104-")
        leave(console)
    time.sleep(1)
    with attached(clone, "--lines", "5000") as console:
        console.expect("through", timeout=60)
        seen = console.before or ""
        leave(console)
    numbers = [int(number) for number in re.findall(r"count-(\d+)-", seen)]
    assert numbers == list(range(100, 130))
    with attached(clone, "--lines", "3") as console:
        time.sleep(1)
        leave(console)
        assert "count-129-" in (console.before or "")
        assert "count-120-" not in (console.before or "")


def test_a_far_host_is_no_different(clone: str, tmp_path: Path) -> None:
    """libvirt's ssh transport, with a command in ssh's place that stays on this host."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    uri = f"qemu+ssh://localhost/system?command={ssh}"
    with attached(clone, "--connect", uri, size=(31, 91)) as console:
        console.expect("count-129-")  # by libvirt: the log is no file of ours
        wake(console)
        told_size(console, 31, 91)
        assert leave(console) == 0
    done = armvm("console", clone, "--connect", uri, stdin="echo far-$((40 + 2))\n")
    assert "far-42" in done.ok().out


def test_a_pipe_is_answered_to_its_end(clone: str) -> None:
    done = armvm(
        "console", clone, stdin="\nfor i in 1 2 3; do sleep 1; echo piped-$i-$((i*i)); done\n"
    )
    assert "piped-3-9" in done.ok().out
    assert "Ctrl-]" not in done.err


def test_who_cannot_type_is_refused(clone: str) -> None:
    told = armvm("console", clone).failed(2)
    assert "/dev/null" in told.err
    assert "echo" in told.err
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *ARMVM, "console", clone],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert closed.returncode == 2
    assert "Traceback" not in closed.stderr


def test_force_takes_over_and_the_other_hears_of_it(clone: str) -> None:
    with attached(clone) as first:
        wake(first)
        assert "--force" in armvm("console", clone, stdin="\n").failed(5).err
        with attached(clone, "--force", "--lines", "0") as second:
            if (
                first.expect(["another user or program took over the console", pexpect.TIMEOUT], 15)
                == 1
            ):
                first.send("\r")  # libvirt does not always tell; who types then hears of it
                first.expect(f"the console of {clone} is in use")
            first.expect(pexpect.EOF)
            first.wait()
            assert first.exitstatus == 5
            wake(second)
            assert leave(second) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_terminal_is_as_it_was_after_a_signal(clone: str, number: signal.Signals) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [*ARMVM, "console", clone, "--lines", "0"],
        env=environment(), stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while termios.tcgetattr(slave)[3] & termios.ECHO:
            assert time.monotonic() < end
            time.sleep(0.1)
        # What a full-screen program in the guest switches on is switched off again.
        os.write(master, b"\rprintf '\\033[?10''49h\\033[?25l'; echo swit''ched\r")
        seen = b""
        while b"switched" not in seen:
            assert select.select([master], [], [], 60)[0], seen
            seen += os.read(master, 4096)
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert termios.tcgetattr(slave) == before
        while select.select([master], [], [], 1)[0]:  # it has ended: what is there, is all
            seen += os.read(master, 4096)
        after = seen[seen.rindex(b"switched") :]
        assert b"\x1b[?1049l" in after
        assert b"\x1b[?25h" in after
        assert b"\x1b[0m" in after
    finally:
        process.kill()
        process.communicate()
        for descriptor in (master, slave):
            os.close(descriptor)


def test_it_stays_through_stop_and_start(clone: str) -> None:
    """Last: the clone boots cold here, but only its first seconds are waited for."""
    with attached(clone) as stays:
        wake(stays)
        virsh("destroy", clone)
        stays.expect("has stopped; waiting for it to start")
        time.sleep(1)
        armvm("start", clone, "--no-wait").ok()
        stays.expect("has started again")
        stays.expect("UEFI firmware")
        virsh("reset", clone)
        stays.expect("UEFI firmware", timeout=60)
        virsh("destroy", clone)
        stays.expect("has stopped; waiting for it to start")
        assert leave(stays) == 0
    armvm("start", clone, "--no-wait").ok()
    with attached(clone, "--no-reattach") as console:
        virsh("destroy", clone)
        console.expect("has stopped")
        console.expect(pexpect.EOF)
        console.wait()
        assert console.exitstatus == 0
    armvm("start", clone, "--no-wait").ok()
    with attached(clone) as console:
        armvm("delete", "--yes", clone).ok()
        console.expect(f"machine '{clone}' not found")
        console.expect(pexpect.EOF)
        console.wait()
        assert console.exitstatus == 4
