"""A running machine's network link: down while it has another machine's identity."""

from __future__ import annotations

import libvirt
from lxml import etree

from armvm.base.errors import NotReady
from armvm.base.poll import until
from armvm.host.connection import Domain, errors
from armvm.host.network.card import linked
from armvm.host.network.networks import addresses
from armvm.host.xml import at, parse, to_text

_POLL = 0.2


def set_link(domain: Domain, *, up: bool) -> None:
    """Set a machine's network links up or down, except user networking's; only for this run."""
    with errors(f"changing the network link of {domain.name()}"):
        for interface in linked(parse(domain.XMLDesc(0))):
            for old in interface.findall("link"):
                interface.remove(old)
            etree.SubElement(interface, "link", state="up" if up else "down")
            domain.updateDeviceFlags(to_text(interface), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def wait_without_address(domain: Domain, timeout: float) -> None:
    """Wait until a guest whose links are down has given up its addresses there.

    Asks the agent. *timeout* is in seconds; raises NotReady on timeout.
    """
    with errors(f"reading {domain.name()}"):
        macs = [at(one, "mac").get("address", "") for one in linked(parse(domain.XMLDesc(0)))]
    until(
        lambda: not any(addresses(domain, by_agent=True, mac=mac) for mac in macs),
        timeout=timeout,
        interval=_POLL,
        late=lambda: NotReady(
            f"timed out after {timeout:g} s: {domain.name()} still has its address, but no link"
        ),
    )
