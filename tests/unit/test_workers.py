"""Functions in processes of their own: outcomes, time-outs, crashes, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from armvm.base.poll import until

ROOT = Path(__file__).resolve().parents[2]

#: Other processes run these tests at the same time: one must not find another's.
_SLEEP = f"sleep 61.{os.getpid()}"

_HEAD = f"""
import os, sys, time, signal, subprocess
from armvm.base.errors import NotFound
from armvm.base.process.workers import run_all

def slow(send):
    subprocess.run({_SLEEP.split()!r})

def fails(send):
    raise NotFound("nothing here", hint="look elsewhere")

class Private(NotFound):
    def __init__(self, number):
        super().__init__(f"number {{number}}", detail="its detail")

def fails_privately(send):
    raise Private(3)

def sends(send):
    send("a"); send("b")
    return {{"pid": os.getpid(), "session": os.getsid(0), "input": sys.stdin.read()}}
"""


def program(code: str) -> subprocess.Popen[str]:
    """Start a Python program; in this process, other threads are running."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _HEAD + code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(code: str) -> str:
    out, err = program(code).communicate(timeout=60)
    assert err == ""
    return out


def sleepers() -> bool:
    """Return whether one of this process's tests left its program; a killed one ends soon."""

    def gone() -> bool:
        return subprocess.run(["pgrep", "-xf", _SLEEP], capture_output=True).returncode == 1

    return not until(gone, timeout=10, interval=0.05)


def test_values_errors_and_messages_arrive_in_order() -> None:
    out = said(
        """
heard = []
done = run_all({"x": sends, "y": fails}, heard=lambda key, value: heard.append(key + value))
value = done["x"].value
assert list(done) == ["x", "y"] and heard == ["xa", "xb"], heard
assert value["pid"] == value["session"] != os.getpid() and value["input"] == ""
error = done["y"].error
assert isinstance(error, NotFound) and error.message == "nothing here"
private = run_all({"z": fails_privately})["z"].error
assert type(private) is NotFound and str(private) == "number 3", private
assert private.detail == "its detail"
print(error.hint)
"""
    )
    assert out == "look elsewhere\n"


def test_one_that_hangs_is_killed_with_what_it_started() -> None:
    begun = time.monotonic()
    out = said('print(run_all({"x": slow, "y": sends}, timeout=1)["x"].error)')
    assert out == "timed out after 1 s\n"
    assert time.monotonic() - begun < 10
    assert not sleepers()


def test_a_process_that_dies_is_an_error_and_a_bug_is_told() -> None:
    assert "ended unexpectedly" in said(
        'print(run_all({"x": lambda send: os.kill(os.getpid(), 9)})["x"].error)'
    )
    out = said(
        """
try:
    run_all({"x": lambda send: 1 / 0, "y": slow})
except RuntimeError as error:
    print(error)
"""
    )
    assert "ZeroDivisionError" in out
    assert not sleepers()


def test_at_most_so_many_run_at_once() -> None:
    out = said(
        """
def works(send):
    send(1); time.sleep(0.3); send(-1)
now = most = 0
def heard(key, value):
    global now, most
    now += value
    most = max(most, now)
run_all({str(one): works for one in range(5)}, parallel=2, heard=heard)
print(most)
"""
    )
    assert out == "2\n"


def test_an_interruption_lets_them_clean_up_and_kills_the_rest() -> None:
    process = program(
        """
class Ended(BaseException):
    pass
def end(number, frame):
    raise Ended
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
def tidy(send):
    try:
        send("up")
        time.sleep(60)
    finally:
        print("tidied", flush=True)
def stubborn(send):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send("up")
    slow(send)
try:
    run_all({"x": tidy, "y": stubborn}, patience=1, heard=lambda *_: print("up", flush=True))
except Ended:
    print("ended")
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("tidied\nended\n", "")
    assert not sleepers()
