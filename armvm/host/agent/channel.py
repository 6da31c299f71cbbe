"""armvm's own virtio channel into a guest: one line out, one line back.

The guest agent could carry the same lines, but it writes each command to the guest's log and
starts a process for each: half a second under emulation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
from lxml import etree

from armvm.base.errors import NotReady
from armvm.host.connection import Connection, Domain, errors
from armvm.host.xml import parse, select

#: The channel's name; in the guest it is /dev/virtio-ports/NAME.
NAME = "org.armvm.rebirth.0"
#: The longest answer that is read, in bytes.
MAX_ANSWER = 1 << 20


def add_channel(domain: etree._Element) -> None:
    """Add the channel to a domain element, after its other channels."""
    last = select(domain, "devices/channel")[-1]
    channel = etree.Element("channel", type="unix")
    etree.SubElement(channel, "target", type="virtio", name=NAME)
    last.addnext(channel)


def is_open(domain: Domain) -> bool:
    """Return whether a process in the guest has opened the channel."""
    with errors(f"reading {domain.name()}"):
        live = parse(domain.XMLDesc(0))
    found = select(live, "devices/channel/target[@state='connected']")
    return any(target.get("name") == NAME for target in found)


@contextmanager
def talk(
    connection: Connection, domain: Domain, *, timeout: float
) -> Iterator[Callable[[bytes], bytes]]:
    """Talk to the process that waits at the channel, and hang up at the end.

    Yields a function that sends a line and returns the answer. *timeout* is in seconds, for the
    whole block. Raises NotReady on timeout, or if the guest hangs up.
    """
    name = domain.name()
    with errors(f"talking to {name}"):
        stream = connection.newStream(0)
        domain.openChannel(NAME, stream, libvirt.VIR_DOMAIN_CHANNEL_FORCE)
        late = threading.Timer(timeout, _abort, [stream])
        late.daemon = True
        late.start()
        try:
            yield lambda line: _exchange(stream, name, line)
        except libvirt.libvirtError as error:
            if late.is_alive():
                raise
            raise NotReady(f"timed out after {timeout:g} s: {name} did not answer") from error
        finally:
            late.cancel()
            _abort(stream)


def _exchange(stream: Any, name: str, line: bytes) -> bytes:
    rest = line + b"\n"
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


def _abort(stream: object) -> None:
    try:
        stream.abort()  # type: ignore[attr-defined]
    except libvirt.libvirtError:
        return  # the stream had already ended
