"""A saved state through a pipe: whole or an error, and nobody waits for ever."""

from __future__ import annotations

import os
import random
import stat
import threading
import time

import pytest

from armvm.base.errors import DomainError
from armvm.host.memory import state_pipe

BIG = random.Random(0).randbytes(1 << 16) * 48
PATIENCE = 10.0


class Peer:
    """What QEMU does with the end that it is handed: it keeps a copy of its own."""

    def __init__(self) -> None:
        self.end = -1

    def take(self, end: int) -> None:
        self.end = os.dup(end)

    def close(self) -> None:
        os.close(self.end)

    def write(self, data: bytes) -> None:
        """Write all of it and close, without anybody's help."""
        with os.fdopen(self.end, "wb") as file:
            file.write(data)

    def read(self) -> bytes:
        with os.fdopen(self.end, "rb") as file:
            return file.read()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough


def test_the_other_end_is_no_plain_file() -> None:
    peer = Peer()
    with state_pipe.receiving(peer.take):
        assert stat.S_ISFIFO(os.fstat(peer.end).st_mode), "QEMU 11 refuses files"
    peer.close()
    with state_pipe.sending(peer.take, b""):
        assert stat.S_ISFIFO(os.fstat(peer.end).st_mode)
    peer.close()


@pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["none", "one byte", "more than fits"])
def test_all_of_it_comes_through_while_this_thread_does_something_else(data: bytes) -> None:
    before = descriptors()
    peer = Peer()
    with state_pipe.receiving(peer.take) as received:
        peer.write(data)
        assert received(PATIENCE) == data
    with state_pipe.sending(peer.take, data):
        assert peer.read() == data
    assert descriptors() == before


def test_what_has_no_end_is_an_error() -> None:
    peer = Peer()
    begun = time.monotonic()
    with (
        state_pipe.receiving(peer.take) as received,
        pytest.raises(DomainError, match="did not finish") as caught,
    ):
        os.write(peer.end, b"half")
        received(0.2)
    assert time.monotonic() - begun < PATIENCE
    assert "4 bytes" in str(caught.value.detail)
    with pytest.raises(BrokenPipeError):
        os.write(peer.end, b"more")
    peer.close()


def test_too_much_is_an_error_on_both_sides() -> None:
    peer = Peer()
    with (
        state_pipe.receiving(peer.take, limit=len(BIG) // 2) as received,
        pytest.raises(DomainError, match="did not finish"),
    ):
        with pytest.raises(BrokenPipeError):
            peer.write(BIG)
        received(PATIENCE)


def test_a_reader_that_hangs_up_or_leaves_some_is_no_error_of_the_pipes() -> None:
    before = descriptors()
    for take in (Peer.close, lambda one: os.read(one.end, 10)):
        peer = Peer()
        with state_pipe.sending(peer.take, BIG):
            take(peer)
    peer.close()
    assert descriptors() == before


def test_an_end_that_is_not_taken_leaves_nothing_behind() -> None:
    before, threads = descriptors(), threading.active_count()

    def refuse(_end: int) -> None:
        raise DomainError("no descriptors here")

    with pytest.raises(DomainError, match="here"), state_pipe.receiving(refuse):
        pass
    with pytest.raises(DomainError, match="here"), state_pipe.sending(refuse, BIG):
        pass
    assert (descriptors(), threading.active_count()) == (before, threads)
