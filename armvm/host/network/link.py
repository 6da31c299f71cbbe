"""A running machine's network cable: pulled while it has another machine's identity."""

from __future__ import annotations

import libvirt
from lxml import etree

from armvm.base.errors import NotReady
from armvm.base.poll import until
from armvm.host.connection import Domain, errors
from armvm.host.network.networks import addresses
from armvm.host.xml import at, parse, to_text

_POLL = 0.2


def set_link(domain: Domain, *, up: bool) -> None:
    """Plug a machine's first network cable in, or pull it; only while this run lasts."""
    with errors(f"changing the network link of {domain.name()}"):
        interface = at(parse(domain.XMLDesc(0)), "devices/interface")
        for old in interface.findall("link"):
            interface.remove(old)
        etree.SubElement(interface, "link", state="up" if up else "down")
        domain.updateDeviceFlags(to_text(interface), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def wait_without_address(domain: Domain, timeout: float) -> None:
    """Wait until a guest whose cable was pulled has given up its address.

    The agent is asked. *timeout* is in seconds; raises NotReady when they are over.
    """
    until(
        lambda: not addresses(domain, by_agent=True),
        timeout=timeout,
        interval=_POLL,
        late=lambda: NotReady(f"{domain.name()} keeps its address without a network"),
    )
