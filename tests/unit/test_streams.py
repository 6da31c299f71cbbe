"""Standard streams that cannot take all that is written: of another encoding, full, closed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ARMVM, armvm, environment


def shell(redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"exec {shlex.join([*ARMVM, *words])} {redirection}"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_characters_that_the_terminal_lacks_are_replaced(encoding: str) -> None:
    done = armvm("explain", "seed", env={"PYTHONIOENCODING": encoding}).ok()
    assert done.out


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", os.strerror(28)), (">&-", os.strerror(9))],
    ids=["full", "closed"],
)
def test_output_that_cannot_be_written_is_told(redirection: str, why: str) -> None:
    done = shell(redirection, "--version")
    assert done.returncode == 1
    assert done.stderr.startswith(f"armvm: cannot write to standard output: {why}\n")
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr


def test_with_standard_error_closed_nothing_goes_to_standard_output(tmp_path: Path) -> None:
    done = shell("2>&- <&-", "seed", "-o", str(tmp_path / "x"), "--ssh-key", "/none")
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["seed", "-o", "/none/x", "--ssh-key", "/none"], 4), (["--version"], 0), (["no-such"], 2)],
)
def test_standard_error_that_cannot_be_written_changes_nothing(words: list[str], code: int) -> None:
    done = shell("2>/dev/full", *words)
    assert done.returncode == code
    assert done.stdout == shell("2>/dev/null", *words).stdout


def test_what_is_said_goes_on_where_standard_error_is_lost_half_way() -> None:
    """By a reader that leaves, or a disk that fills up: what was printed stays printed."""
    script = """
import os, sys
from armvm.cli.streams import prepare
prepare()
print("first", file=sys.stderr)
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)
for _ in range(3):
    print("lost" * 9000, file=sys.stderr)
print("done")
sys.stdout.flush()
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "first\n")


def test_what_a_signal_interrupts_is_not_written_twice() -> None:
    """Ctrl-C just after a write: what is in the buffer then is written once more at the end."""
    script = """
import signal, sys
from armvm.cli.streams import prepare
prepare()
armed = False
def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
number = 0
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while number < 5000:
    number += 1
    try:
        armed = True
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        armed = False
    except KeyboardInterrupt:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    numbers = done.stdout.split()
    assert len(numbers) > 1000
    assert len(numbers) == len(set(numbers))
