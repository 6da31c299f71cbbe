"""armvm's own virtio channels into a clone; `armvm.guest.agents.command_server` is their other end.

The guest agent could carry the same data, but it writes each command to the guest's log and starts
several processes for each: half a second under emulation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
from lxml import etree

from armvm.base.errors import Conflict, NotReady
from armvm.host.connection import Connection, Domain, errors
from armvm.host.xml import parse, select

#: The channels' names; in the guest they are /dev/virtio-ports/NAME. Each carries one command at a
#: time; the first one also carries a clone's identity.
NAMES = tuple(f"org.armvm.{number}" for number in range(4))
#: libvirt's error for a channel that another client has open (qemu_driver.c).
_IN_USE = "Active channel stream exists"
#: The longest answer that is read, in bytes.
MAX_ANSWER = 1 << 20


def add_channels(domain: etree._Element) -> None:
    """Add the channels to a domain element, after its other channels."""
    for name in reversed(NAMES):
        last = select(domain, "devices/channel")[-1]
        channel = etree.Element("channel", type="unix")
        etree.SubElement(channel, "target", type="virtio", name=name)
        last.addnext(channel)


def has_channels(domain: etree._Element) -> bool:
    """Return whether a domain element has all the channels."""
    there = {target.get("name") for target in select(domain, "devices/channel/target")}
    return there.issuperset(NAMES)


def states(domain: Domain) -> dict[str, bool]:
    """Return a running machine's channels, and whether a process in the guest has opened each."""
    with errors(f"reading {domain.name()}"):
        live = parse(domain.XMLDesc(0))
    return {
        target.get("name", ""): target.get("state") == "connected"
        for target in select(live, "devices/channel/target")
        if target.get("name") in NAMES
    }


@contextmanager
def opened(connection: Connection, domain: Domain, name: str, *, force: bool) -> Iterator[Any]:
    """Open a channel as a libvirt stream, and close it after the block.

    With *force*, another client that has it open is disconnected. Raises Conflict if another client
    has it open.
    """
    with errors(f"talking to {domain.name()}"):
        stream = connection.newStream(0)
        try:
            domain.openChannel(name, stream, libvirt.VIR_DOMAIN_CHANNEL_FORCE if force else 0)
        except libvirt.libvirtError as error:
            if _IN_USE in str(error):
                raise Conflict(f"channel {name} of {domain.name()} is in use") from error
            raise
        try:
            yield stream
        finally:
            abort(stream)


@contextmanager
def talk(
    connection: Connection, domain: Domain, *, timeout: float, force: bool = True
) -> Iterator[Callable[[bytes], bytes]]:
    """Talk to the process that waits at the first channel, and hang up at the end.

    Yields a function that sends a request and returns the answer. *timeout* is in seconds, for the
    whole block. With *force*, another client that has the channel open is disconnected. Raises
    NotReady on timeout, or if the guest hangs up, and Conflict if another client has it open.
    """
    name = domain.name()
    with opened(connection, domain, NAMES[0], force=force) as stream:
        late = threading.Timer(timeout, abort, [stream])
        late.daemon = True
        late.start()
        try:
            yield lambda request: _exchange(stream, name, request)
        except libvirt.libvirtError as error:
            if late.is_alive():
                raise
            raise NotReady(f"timed out after {timeout:g} s: {name} did not answer") from error
        finally:
            late.cancel()


def send(stream: Any, data: bytes) -> bool:
    """Send all of *data*; return False if the stream has ended."""
    try:
        while data:
            data = data[stream.send(data) :]
    except libvirt.libvirtError:
        return False
    return True


def receive(stream: Any) -> bytes:
    """Wait for some bytes; empty if the stream has ended."""
    try:
        return bytes(stream.recv(1 << 16))
    except libvirt.libvirtError:
        return b""


def abort(stream: Any) -> None:
    """Close a stream, also while another thread waits for it."""
    try:
        stream.abort()
    except libvirt.libvirtError:
        return  # the stream had already ended


def _exchange(stream: Any, name: str, request: bytes) -> bytes:
    rest = request + b"\n"
    while rest:
        rest = rest[stream.send(rest) :]
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER:
        part = stream.recv(4096)
        if not part:
            break
        answer += part
    if not answer.endswith(b"\n"):
        raise NotReady(f"{name} closed the channel without an answer")
    return answer
