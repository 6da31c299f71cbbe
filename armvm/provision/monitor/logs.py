"""A machine's serial log, read and followed as a use case."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from armvm.base.errors import NotFound
from armvm.guest.boot.plain_text import Cleaner, last_lines
from armvm.host.connection import Domain, errors, is_local
from armvm.host.console.serial_log import Place, read_older, read_on
from armvm.host.domain.handle import Handle

#: Seconds between two looks at a log that is followed.
INTERVAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of a log: its last *lines* (None: all), the *older* files, how it is shown."""

    lines: int | None = None
    older: bool = False
    follow: bool = False
    raw: bool = False
    colours: bool = False


def read_log(machine: Handle, wish: Wish) -> Iterator[bytes]:
    """Yield a serial log's bytes; with *follow*, what comes until the machine stops.

    Escape sequences are left out, unless it is wanted *raw*. Raises NotFound where there is none.
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
    older = read_older(machine.connection, path, local=local) if wish.older else b""
    if not older + begun and not machine.running:
        raise NotFound(
            f"serial log of {machine.name} not found",
            hint=f"start it first: armvm start {machine.name}",
        )
    shown = _text_of(wish)
    yield _cut(shown(older + begun, not wish.follow), wish.lines)
    if wish.follow:
        running = True
        while running:
            # Asked first: its last words are read after its end.
            running = _is_active(machine.domain)
            yield shown(read_on(machine.connection, path, place, local=local), not running)
            if running:
                time.sleep(INTERVAL)


def _text_of(wish: Wish) -> Callable[[bytes, bool], bytes]:
    """Return what makes the bytes that are shown of those that came; True says: the last ones."""
    if wish.raw:
        return lambda data, _final: data
    cleaner = Cleaner(colours=wish.colours)
    return lambda data, final: cleaner.feed(data, final=final).encode()


def _cut(data: bytes, lines: int | None) -> bytes:
    if lines is None:
        return data
    # Latin-1 keeps every byte as it is, and all lines.
    return last_lines(data.decode("latin-1"), lines).encode("latin-1")


def _is_active(domain: Domain) -> bool:
    with errors(f"reading the state of {domain.name()}"):
        return bool(domain.isActive())
