"""Follow the events of machines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from armvm.base.errors import NotFound, NotReady
from armvm.base.result import Doc, UtcTime, Uuid
from armvm.host import connection as connecting
from armvm.host.connection import Connection
from armvm.host.console.stream import start_event_loop
from armvm.host.domain.events import Event as Event
from armvm.host.domain.events import Wait, listening
from armvm.host.domain.instance import find_domain, instances, observe

#: Longest single wait for libvirt, in seconds.
_PATIENCE = 3600.0


@dataclass(frozen=True, kw_only=True)
class EventDetails:
    """An event of a machine."""

    time: Annotated[UtcTime, Doc("When armvm received it, in UTC.")]
    name: Annotated[str, Doc("The machine.")]
    uuid: Annotated[Uuid, Doc("Its UUID.")]
    event: Annotated[
        str,
        Doc(
            "libvirt's name of the event: defined, undefined, started, suspended, resumed, "
            "stopped, shutdown, pmsuspended, crashed; or rebooted."
        ),
    ]
    detail: Annotated[str, Doc("libvirt's name of the reason; may be empty.")]


def describe(event: Event) -> EventDetails:
    """Return an event as ``events --json`` prints it."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event.time))
    return EventDetails(**{**vars(event), "time": when})


def connect(uri: str | None) -> Connection:
    """Open a connection that receives events; None means the default URI."""
    start_event_loop()  # before the connection is opened
    return connecting.connect(uri)


def follow(
    connection: Connection,
    name: str | None,
    tell: Callable[[Event], None],
    *,
    everything: bool = False,
    count: int | None = None,
    timeout: float | None = None,
) -> None:
    """Call *tell* with each event of armvm's machines, or of the machine *name*.

    The machine may not exist yet. With *everything*, include domains that armvm did not create.
    Returns after *count* events or *timeout* seconds. Raises NotReady if the time ends before
    *count* events.
    """
    with listening(connection) as wait:
        # Listed after listening starts, so that no machine is missed in between.
        known = {one.uuid for one in instances(connection)}

        def meant(event: Event) -> bool:
            if name is not None and event.name != name:
                return False
            if everything or event.uuid in known:
                return True
            if _is_ours(connection, event.name):
                known.add(event.uuid)
            return event.uuid in known

        _follow(wait, meant, tell, count, timeout)


def _follow(
    wait: Wait,
    meant: Callable[[Event], bool],
    tell: Callable[[Event], None],
    count: int | None,
    timeout: float | None,
) -> None:
    end = float("inf") if timeout is None else time.monotonic() + timeout
    told = 0
    while True:
        left = end - time.monotonic()
        if left <= 0:
            break
        for event in wait(min(left, _PATIENCE)):
            if not meant(event):
                continue
            tell(event)
            told += 1
            if told == count:
                return
    if count is not None:
        raise NotReady(f"timed out after {timeout:g} s: received {told} of {count} events")


def _is_ours(connection: Connection, name: str) -> bool:
    try:
        observe(find_domain(connection, name))
    except NotFound:
        return False
    return True
