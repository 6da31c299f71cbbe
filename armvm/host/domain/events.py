"""libvirt's events about domains, as they arrive.

Source: libvirt-domain.html, virConnectDomainEventRegisterAny, virDomainEventType and the types of
its details, whose names are read from libvirt itself: newer versions have more of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import libvirt

from armvm.base.errors import ConnectFailed
from armvm.host.connection import Connection, Domain, errors

_PREFIX = "VIR_DOMAIN_EVENT_"
_TYPES = "DEFINED UNDEFINED STARTED SUSPENDED RESUMED STOPPED SHUTDOWN PMSUSPENDED CRASHED".split()
#: The guest restarted, but its QEMU process did not end.
REBOOTED = "rebooted"
#: Milliseconds between two checks whether to stop waiting: libvirt's loop ignores signals.
_TICK = 100

#: Waits at most that many seconds, and returns the events that arrived; [] on timeout.
Wait = Callable[[float], "list[Event]"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to a domain, and why; ``time`` is in seconds since the epoch."""

    time: float
    name: str
    uuid: str
    event: str
    detail: str


def event_names(kind: int, detail: int) -> tuple[str, str]:
    """Return libvirt's names of a lifecycle event and its detail: ``started``, ``booted``."""
    found = next((one for one in _TYPES if getattr(libvirt, _PREFIX + one, None) == kind), None)
    if found is None:
        return f"event {kind}", f"detail {detail}"
    prefix = f"{_PREFIX}{found}_"
    details = {
        getattr(libvirt, one): one.removeprefix(prefix)
        for one in dir(libvirt)
        if one.startswith(prefix)
    }
    words = details.get(detail, f"detail {detail}")
    return found.lower(), words.lower().replace("_", " ")


@contextmanager
def listening(connection: Connection, domain: Domain | None = None) -> Iterator[Wait]:
    """Listen to the events of *domain*, or of all domains.

    Call `armvm.host.console.stream.start_event_loop` before you open the connection.
    Raises ConnectFailed if the connection is lost.
    """
    came: list[Event] = []

    def note(about: Domain, event: str, detail: str) -> None:
        came.append(
            Event(
                time=time.time(),
                name=about.name(),
                uuid=about.UUIDString(),
                event=event,
                detail=detail,
            )
        )

    def lifecycle(_connection: object, about: Domain, kind: int, detail: int, _: object) -> None:
        note(about, *event_names(kind, detail))

    def reboot(_connection: object, about: Domain, _: object) -> None:
        note(about, REBOOTED, "")

    handlers = (
        (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
        (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, reboot),
    )
    registered: list[int] = []
    try:
        with errors("listening to libvirt"):
            for kind, handler in handlers:
                registered.append(connection.domainEventRegisterAny(domain, kind, handler, None))
        yield lambda seconds: _wait(connection, came, seconds)
    finally:
        for one in registered:
            with contextlib.suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(one)


def _wait(connection: Connection, came: list[Event], seconds: float) -> list[Event]:
    end = time.monotonic() + seconds
    timer = libvirt.virEventAddTimeout(_TICK, lambda _timer, _opaque: None, None)
    try:
        while not came and time.monotonic() < end:
            libvirt.virEventRunDefaultImpl()
            if not connection.isAlive():
                raise ConnectFailed(
                    "libvirt closed the connection", hint="check that its daemon is running"
                )
    finally:
        libvirt.virEventRemoveTimeout(timer)
    found = list(came)
    came.clear()
    return found
