"""libvirt's events in libvirt's words, heard from its own test driver."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import libvirt
import pytest

from armvm.host.domain.events import event_names

#: Listens to a guest of the test driver's while it is suspended, resumed and destroyed.
_LISTEN = """
import json
from armvm.host import connection as connecting
from armvm.host.console.stream import start_event_loop
from armvm.host.domain.events import listening

start_event_loop()
connection = connecting.connect("test:///default")
domain = connection.lookupByName("test")
heard = []
with listening(connection) as wait:
    heard.append(len(wait(0.2)))
    domain.suspend()
    domain.resume()
    domain.destroy()
    while len(heard) < 4:
        heard += [[one.name, one.event, one.detail] for one in wait(5)]
domain.create()
with listening(connection) as wait:
    heard.append(len(wait(0.1)))
print(json.dumps(heard))
"""


@pytest.mark.parametrize(
    ("kind", "detail", "words"),
    [
        ("STARTED", "STARTED_BOOTED", ("started", "booted")),
        ("STOPPED", "STOPPED_FROM_SNAPSHOT", ("stopped", "from snapshot")),
        ("SHUTDOWN", "SHUTDOWN_GUEST", ("shutdown", "guest")),
        ("DEFINED", "DEFINED_RENAMED", ("defined", "renamed")),
        ("CRASHED", "CRASHED_PANICKED", ("crashed", "panicked")),
    ],
)
def test_events_have_libvirts_names(kind: str, detail: str, words: tuple[str, str]) -> None:
    numbers = [getattr(libvirt, f"VIR_DOMAIN_EVENT_{one}") for one in (kind, detail)]
    assert event_names(*numbers) == words


def test_what_a_newer_libvirt_tells_has_its_numbers() -> None:
    assert event_names(99, 7) == ("event 99", "detail 7")
    assert event_names(libvirt.VIR_DOMAIN_EVENT_STARTED, 99) == ("started", "detail 99")


def test_events_come_in_their_order_and_none_is_heard_twice() -> None:
    """In a process of its own: libvirt's event loop cannot be taken out again."""
    done = subprocess.run(
        [sys.executable, "-c", _LISTEN], capture_output=True, text=True, timeout=60, check=True
    )
    heard: list[Any] = json.loads(done.stdout)
    assert heard == [
        0,
        ["test", "suspended", "paused"],
        ["test", "resumed", "unpaused"],
        ["test", "stopped", "destroyed"],
        0,
    ]
