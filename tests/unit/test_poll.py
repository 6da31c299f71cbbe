"""Polling, by a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from armvm.base.errors import NotReady
from armvm.base.poll import until


class Clock:
    """A clock whose time passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def answers(*values: Any) -> Callable[[], Any]:
    """Return a check that gives these answers in turn, and fails when it is asked too often."""
    rest = iter(values)
    return lambda: next(rest)


@pytest.mark.parametrize("value", [True, 0, "", 7, []])
def test_the_first_answer_is_returned_without_sleeping(value: object) -> None:
    clock = Clock()
    check = answers(value)
    assert until(check, timeout=9, interval=1, clock=clock, sleep=clock.sleep) is value
    assert clock.slept == []


def test_none_and_false_mean_not_yet() -> None:
    clock = Clock()
    check = answers(None, False, None, "there")
    assert until(check, timeout=9, interval=0.5, clock=clock, sleep=clock.sleep) == "there"
    assert clock.slept == [0.5, 0.5, 0.5]


def test_a_timeout_returns_none() -> None:
    clock = Clock()
    assert until(lambda: False, timeout=3, interval=1, clock=clock, sleep=clock.sleep) is None
    assert clock.now == 103


def test_a_timeout_raises_what_the_caller_made() -> None:
    clock = Clock()
    with pytest.raises(NotReady, match="not within 2 s"):
        until(
            lambda: None,
            timeout=2,
            interval=5,
            late=lambda: NotReady("not within 2 s"),
            clock=clock,
            sleep=clock.sleep,
        )
    assert clock.slept == [2], "the last sleep ends with the time"


def test_the_check_is_called_once_more_when_the_time_ends() -> None:
    clock = Clock()

    def check() -> bool:
        return clock.now >= 102.5

    assert until(check, timeout=2.5, interval=1, clock=clock, sleep=clock.sleep) is True
    assert clock.slept == [1, 1, 0.5]


def test_a_check_that_outlasts_the_time_is_called_once_more() -> None:
    clock = Clock()
    calls: list[float] = []

    def check() -> bool:
        calls.append(clock.now)
        clock.now += 10
        return len(calls) == 2

    assert until(check, timeout=3, interval=1, clock=clock, sleep=clock.sleep) is True
    assert calls == [100, 110]


def test_no_time_is_one_check() -> None:
    clock = Clock()
    assert until(answers(None), timeout=0, interval=1, clock=clock, sleep=clock.sleep) is None


def test_without_a_timeout_it_goes_on() -> None:
    clock = Clock()
    check = answers(*[None] * 1000, 5)
    assert until(check, timeout=None, interval=60, clock=clock, sleep=clock.sleep) == 5


def test_an_error_of_the_check_ends_it() -> None:
    def check() -> bool:
        raise NotReady("it was switched off")

    with pytest.raises(NotReady, match="switched off"):
        until(check, timeout=9, interval=1)


def test_what_interrupts_the_sleep_ends_it() -> None:
    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until(lambda: False, timeout=None, interval=1, sleep=sleep)
