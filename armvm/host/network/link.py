"""A running machine's network link: down while it has another machine's identity."""

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
    """Set a machine's first network link up or down; only for this run."""
    with errors(f"changing the network link of {domain.name()}"):
        interface = at(parse(domain.XMLDesc(0)), "devices/interface")
        for old in interface.findall("link"):
            interface.remove(old)
        etree.SubElement(interface, "link", state="up" if up else "down")
        domain.updateDeviceFlags(to_text(interface), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def wait_without_address(domain: Domain, timeout: float) -> None:
    """Wait until a guest whose link is down has given up its address.

    Asks the agent. *timeout* is in seconds; raises NotReady on timeout.
    """
    until(
        lambda: not addresses(domain, by_agent=True),
        timeout=timeout,
        interval=_POLL,
        late=lambda: NotReady(
            f"timed out after {timeout:g} s: {domain.name()} still has its address, but no link"
        ),
    )
