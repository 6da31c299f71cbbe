"""A server's serial console output. Nova keeps its last 100 KiB."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from armvm.base.errors import NotFound
from armvm.cloud.connection import Connection, answers
from armvm.cloud.server import Server, again
from armvm.guest.boot.plain_text import Cleaner, last_lines
from armvm.guest.boot.scrollback import growth

#: Seconds between two requests while following a log.
INTERVAL = 2.0
#: More than Nova sends (MAX_CONSOLE_BYTES), in characters.
LONGEST = 1 << 20


def console(connection: Connection, server: Server) -> bytes:
    """Return the end of a server's serial console output."""
    with answers(connection.cloud, f"reading the log of {server.name}"):
        told = connection.api.compute.get_server_console_output(server.id)
    text = told.get("output") if isinstance(told, dict) else None
    return str(text or "")[-LONGEST:].encode(errors="replace")


def read_log(
    connection: Connection,
    server: Server,
    *,
    lines: int | None,
    follow: bool,
    raw: bool,
    colours: bool,
) -> Iterator[bytes]:
    """Yield the log; with *follow*, also new output until the server stops.

    Removes escape sequences, except with *raw*. Raises NotFound if a server that is off has no log.
    """
    text = _text_of(raw, colours)
    before = console(connection, server)
    if not before and not server.running:
        raise NotFound(
            f"serial log of {server.name} not found",
            hint=f"start it first: armvm start {server.name} --on {connection.cloud.name}",
        )
    begun = text(before, not follow)
    # Latin-1 keeps every byte unchanged.
    yield begun if lines is None else last_lines(begun.decode("latin-1"), lines).encode("latin-1")
    while follow:
        # Check first, so that the output before a stop is still read.
        follow = again(connection, server).running
        after = console(connection, server)
        yield text(growth(before, after), not follow)
        before = after
        if follow:
            time.sleep(INTERVAL)


def _text_of(raw: bool, colours: bool) -> Callable[[bytes, bool], bytes]:
    if raw:
        return lambda data, _final: data
    cleaner = Cleaner(colours=colours)
    return lambda data, final: cleaner.feed(data, final=final).encode()
