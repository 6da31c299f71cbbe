"""Read and follow a machine's serial log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from armvm.base.errors import NotFound
from armvm.guest.boot.plain_text import Cleaner, last_lines
from armvm.host.connection import Domain, errors, is_local
from armvm.host.console.serial_log import Place, read_older, read_on
from armvm.host.domain.handle import Handle

#: Polling interval in seconds while following a log.
INTERVAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to read: the last *lines* (None: all), also *older* files, and how to show them."""

    lines: int | None = None
    older: bool = False
    follow: bool = False
    raw: bool = False
    colours: bool = False


def read_log(machine: Handle, request: Request) -> Iterator[bytes]:
    """Yield a serial log's bytes; with *follow*, also new output until the machine stops.

    Removes escape sequences, except with *raw*. Raises NotFound if the log does not exist.
    """
    path = machine.instance.serial_log
    local = is_local(machine.uri)
    if path is None:
        raise NotFound(
            f"{machine.name} does not write a serial log",
            hint=f"its <serial> device lacks a <log> element; add one: virsh edit {machine.name}",
        )
    place = Place()
    begun = read_on(machine.connection, path, place, local=local)
    older = read_older(machine.connection, path, local=local) if request.older else b""
    if not older + begun and not machine.running:
        raise NotFound(
            f"serial log of {machine.name} not found",
            hint=f"start it first: armvm start {machine.name}",
        )
    shown = _text_of(request)
    yield _cut(shown(older + begun, not request.follow), request.lines)
    if request.follow:
        running = True
        while running:
            # Check first, so that the output before a stop is still read.
            running = _is_active(machine.domain)
            yield shown(read_on(machine.connection, path, place, local=local), not running)
            if running:
                time.sleep(INTERVAL)


def _text_of(request: Request) -> Callable[[bytes, bool], bytes]:
    """Return a function that converts log bytes for output; True marks the last call."""
    if request.raw:
        return lambda data, _final: data
    cleaner = Cleaner(colours=request.colours)
    return lambda data, final: cleaner.feed(data, final=final).encode()


def _cut(data: bytes, lines: int | None) -> bytes:
    if lines is None:
        return data
    # Latin-1 keeps every byte unchanged.
    return last_lines(data.decode("latin-1"), lines).encode("latin-1")


def _is_active(domain: Domain) -> bool:
    with errors(f"reading the state of {domain.name()}"):
        return bool(domain.isActive())
