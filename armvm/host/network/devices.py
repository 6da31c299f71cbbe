"""The host's network interfaces, to which bridge= and macvtap= connect machines."""

from __future__ import annotations

from pathlib import Path

import libvirt

from armvm.base.errors import ConfigError, NotFound
from armvm.host.connection import Connection, errors
from armvm.host.xml import parse
from armvm.settings.networks import Attachment, Kind

_SYS = Path("/sys/class/net")


def check_device(connection: Connection, wanted: Attachment, *, local: bool) -> None:
    """Raise an error if a bridge or macvtap network's device cannot be used.

    Looks on this host if it is the libvirt host (*local*); otherwise asks libvirt for its node
    devices. NotFound for a missing device, ConfigError for one of the wrong kind.
    """
    device = wanted.source
    found = _local_devices() if local else _node_devices(connection)
    if found is None:
        return  # libvirt cannot list them; it checks the device when the machine starts
    if device not in found:
        known = ", ".join(sorted(found)) or "none"
        raise NotFound(
            f"network interface {device} not found on the host",
            hint=f"available interfaces: {known}",
        )
    owner = _network_with_bridge(connection, device)
    if owner is not None:
        raise ConfigError(
            f"{wanted} cannot be used: {device} is the bridge of the network {owner}",
            hint=f"use --network {owner}",
        )
    if device == "lo":
        raise ConfigError(f"{wanted} cannot be used: lo is the host's loopback interface")
    if wanted.kind is Kind.BRIDGE and local and not (_SYS / device / "bridge").is_dir():
        raise ConfigError(
            f"{device} is not a bridge",
            hint=f"use --network macvtap={device} after another network, or make a bridge of it "
            "with the host's network configuration",
        )
    if wanted.kind is Kind.MACVTAP and local and (_SYS / device / "brport").is_dir():
        raise ConfigError(
            f"{wanted} cannot be used: {device} is a port of a bridge",
            hint=f"use --network bridge={(_SYS / device / 'brport/bridge').resolve().name}",
        )


def _local_devices() -> list[str]:
    return [one.name for one in _SYS.iterdir()]


def _node_devices(connection: Connection) -> list[str] | None:
    """Return the interfaces that libvirt knows on its host; None if it cannot list them."""
    with errors("listing the host's network interfaces"):
        try:
            devices = connection.listAllDevices(libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET)
            found = [parse(one.XMLDesc(0)).findtext("capability/interface") for one in devices]
        except libvirt.libvirtError:
            return None
    return [name for name in found if name] or None


def _network_with_bridge(connection: Connection, device: str) -> str | None:
    """Return the libvirt network, with addresses of its own, whose bridge is *device*."""
    with errors("listing the networks"):
        for network in connection.listAllNetworks(0):
            document = parse(network.XMLDesc(0))
            bridge, forward = document.find("bridge"), document.find("forward")
            foreign = forward is not None and forward.get("mode") == "bridge"
            if bridge is not None and bridge.get("name") == device and not foreign:
                return str(network.name())
    return None
