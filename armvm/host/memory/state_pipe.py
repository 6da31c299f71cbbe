"""QEMU's saved state through a pipe: one end is handed to QEMU, a thread serves the other one.

QEMU takes no plain file as a descriptor any more (since 11); libvirt itself saves through pipes,
and AppArmor does not ask about them, as it does about sockets. The thread is needed: while a
pipe is full, QEMU may answer nothing on its monitor.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from armvm.base.errors import DomainError

#: The most that is taken from QEMU, in bytes. A state has some MiB; more than this would be the
#: guest's memory, which is not to come this way.
LIMIT = 512 << 20
#: The most that is read or written at once, in bytes.
_PART = 1 << 20
#: Milliseconds after which a thread notices that it is no longer wanted.
_TICK = 50


@contextmanager
def receiving(
    hand_over: Callable[[int], None], *, limit: int = LIMIT
) -> Iterator[Callable[[float], bytes]]:
    """Hand a pipe's writing end over, and receive what is written to it during the block.

    What is yielded returns all of it, when the other side has closed its end; it waits for that
    for some seconds. It raises DomainError when the end does not come, or comes too late: after
    *limit* bytes nothing more is read, and whoever writes gets an error.
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
                "the state that QEMU saves has no end",
                detail=f"{len(received)} bytes came, at most {limit} are taken",
            )
        return bytes(received)

    with _serving(work, wanted) as thread:
        _hand_over(hand_over, theirs)
        yield result


@contextmanager
def sending(hand_over: Callable[[int], None], data: bytes) -> Iterator[None]:
    """Hand a pipe's reading end over, and write *data* to it during the block.

    Whoever reads may leave some of it, or close its end early: it says itself what it lacks.
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
    """Hand a copy of *descriptor* over, and close ours: else its end would never be seen."""
    try:
        hand_over(descriptor)
    finally:
        os.close(descriptor)


def _ready(descriptor: int, event: int, wanted: threading.Event) -> bool:
    """Wait until a descriptor can be used; tell whether it is to be."""
    poll = select.poll()
    poll.register(descriptor, event)
    while wanted.is_set():
        if poll.poll(_TICK):
            return True
    return False
