"""Polling: ask until there is an answer or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
def until(
    check: Callable[[], T | None],
    *,
    timeout: None,
    interval: float,
    clock: Callable[[], float] = ...,
    sleep: Callable[[float], object] = ...,
) -> T: ...
@overload
def until(
    check: Callable[[], T | None],
    *,
    timeout: float,
    interval: float,
    late: Callable[[], Exception],
    clock: Callable[[], float] = ...,
    sleep: Callable[[float], object] = ...,
) -> T: ...
@overload
def until(
    check: Callable[[], T | None],
    *,
    timeout: float,
    interval: float,
    clock: Callable[[], float] = ...,
    sleep: Callable[[float], object] = ...,
) -> T | None: ...
def until(
    check: Callable[[], T | None],
    *,
    timeout: float | None,
    interval: float,
    late: Callable[[], Exception] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> T | None:
    """Call *check* every *interval* seconds, and return its first answer.

    None and False mean "not yet"; every other value is an answer, 0 included. *check* is called
    at least once, the last time when the time has ended. After *timeout* seconds (None: never) the
    error that *late* makes is raised; without *late*, None is returned. What *check* raises ends
    the polling. A signal handler that raises interrupts the sleep.
    """
    end = None if timeout is None else clock() + timeout
    while True:
        last = end is not None and clock() >= end
        answer = check()
        if answer is not None and answer is not False:
            return answer
        if last:
            if late is not None:
                raise late()
            return None
        sleep(interval if end is None else min(interval, max(0.0, end - clock())))
