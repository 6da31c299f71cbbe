"""Undoing: everything, the last first, with no signal in between. Real signals, own processes."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from armvm.base.errors import StorageError
from armvm.base.progress import Plain, Quiet
from armvm.base.signals import shielded
from armvm.provision.machine.undo import Undo


class Stopped(BaseException):
    """What the handlers of these tests raise."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise Stopped, as the command line does."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_is_undone_when_all_went_well() -> None:
    done: list[str] = []
    with Undo(Quiet()) as undo:
        undo.add(lambda: done.append("a"))
    assert done == []


def test_the_last_is_undone_first_and_the_error_goes_on() -> None:
    done: list[str] = []
    with pytest.raises(ZeroDivisionError), Undo(Quiet()) as undo:
        for step in "abc":
            undo.add(lambda step=step: done.append(step))  # type: ignore[misc]
        raise ZeroDivisionError
    assert done == ["c", "b", "a"]


@pytest.mark.parametrize("failure", [StorageError("pool gone"), OSError("disk gone")])
def test_a_step_that_fails_is_told_and_the_others_are_taken(failure: Exception) -> None:
    done: list[str] = []
    out = io.StringIO()

    def fail() -> None:
        raise failure

    with pytest.raises(ZeroDivisionError), Undo(Plain(out)) as undo:
        undo.add(lambda: done.append("a"))
        undo.add(fail)
        undo.add(lambda: done.append("c"))
        raise ZeroDivisionError
    assert done == ["c", "a"]
    assert out.getvalue() == f"warning: cleanup failed: {failure}\n"


def test_an_interrupt_is_a_reason_to_undo(interruptible: None) -> None:
    done: list[str] = []
    with pytest.raises(Stopped), Undo(Quiet()) as undo:
        undo.add(lambda: done.append("a"))
        os.kill(os.getpid(), signal.SIGINT)
    assert done == ["a"]


def test_a_second_interrupt_waits_until_all_is_undone(interruptible: None) -> None:
    done: list[str] = []

    def interrupted_step() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("b")

    with pytest.raises(Stopped) as caught, Undo(Quiet()) as undo:
        undo.add(lambda: done.append("a"))
        undo.add(interrupted_step)
        raise ZeroDivisionError
    assert done == ["b", "a"]
    assert caught.value.args == (signal.SIGTERM,)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_a_shielded_block_comes_to_its_end_first(interruptible: None) -> None:
    done: list[str] = []
    with pytest.raises(Stopped) as caught, shielded():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("all")
    assert done == ["all"]
    assert caught.value.args == (signal.SIGINT,), "the first counts"


def test_shields_nest(interruptible: None) -> None:
    done: list[str] = []
    with pytest.raises(Stopped), shielded():
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_after_the_shield_all_is_as_before(interruptible: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    with shielded():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError), shielded():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with shielded():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_need_no_shield() -> None:
    done: list[str] = []

    def work() -> None:
        with shielded():
            done.append("x")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["x"]
