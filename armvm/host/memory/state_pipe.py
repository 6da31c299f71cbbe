"""QEMU's saved state through a pipe: QEMU gets one end, a thread serves the other.

QEMU does not accept a plain file as a descriptor (since 11); libvirt itself saves through pipes,
and AppArmor does not check them, as it does sockets. A thread is needed: while a pipe is full,
QEMU may not answer on its monitor.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from armvm.base.errors import DomainError

#: The most bytes that are accepted from QEMU. A state has some MiB; more would mean that it
#: contains the guest's memory.
LIMIT = 512 << 20
#: The most that is read or written at once, in bytes.
_PART = 1 << 20
#: Milliseconds between two checks whether a thread should end.
_TICK = 50


@contextmanager
def receiving(
    hand_over: Callable[[int], None], *, limit: int = LIMIT
) -> Iterator[Callable[[float], bytes]]:
    """Pass on a pipe's write end, and receive the bytes written to it during the block.

    Yields a function that returns all of it once the other side has closed its end; it waits
    some seconds for that. It raises DomainError if the end does not come in time: after *limit*
    bytes reading stops, and the writer gets an error.
    """
    ours, theirs = os.pipe()
    received = bytearray()
    wanted, ended = threading.Event(), threading.Event()

    def work() -> None:
        try:
            while _ready(ours, select.POLLIN, wanted):
                part = os.read(ours, _PART)
                if not part:
                    ended.set()
                    return
                received.extend(part)
                if len(received) > limit:
                    return
        finally:
            os.close(ours)

    def result(patience: float) -> bytes:
        thread.join(patience)
        if not ended.is_set():
            raise DomainError(
                "QEMU did not finish saving its state",
                detail=f"received {len(received)} bytes (at most {limit})",
            )
        return bytes(received)

    with _serving(work, wanted) as thread:
        _hand_over(hand_over, theirs)
        yield result


@contextmanager
def sending(hand_over: Callable[[int], None], data: bytes) -> Iterator[None]:
    """Pass on a pipe's read end, and write *data* to it during the block.

    The reader may stop early, or close its end: it reports missing data itself.
    """
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    wanted = threading.Event()

    def work() -> None:
        rest = memoryview(data)
        try:
            with suppress(BrokenPipeError):
                while rest and _ready(ours, select.POLLOUT, wanted):
                    with suppress(BlockingIOError):
                        rest = rest[os.write(ours, rest[:_PART]) :]
        finally:
            os.close(ours)

    with _serving(work, wanted):
        _hand_over(hand_over, theirs)
        yield


@contextmanager
def _serving(work: Callable[[], None], wanted: threading.Event) -> Iterator[threading.Thread]:
    """Run *work* in a thread that ends with the block."""
    thread = threading.Thread(target=work, daemon=True)
    wanted.set()
    thread.start()
    try:
        yield thread
    finally:
        wanted.clear()
        thread.join()


def _hand_over(hand_over: Callable[[int], None], descriptor: int) -> None:
    """Pass on a copy of *descriptor*, and close ours: otherwise the pipe would never end."""
    try:
        hand_over(descriptor)
    finally:
        os.close(descriptor)


def _ready(descriptor: int, event: int, wanted: threading.Event) -> bool:
    """Wait until a descriptor is ready; return False if it is no longer *wanted*."""
    poll = select.poll()
    poll.register(descriptor, event)
    while wanted.is_set():
        if poll.poll(_TICK):
            return True
    return False
