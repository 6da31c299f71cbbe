"""armvm's own NAT network: without STP, on a free subnet, with a reserved address per machine.

libvirt's ``default`` network has STP on, so that a port forwards nothing for some 4 s, and its
dnsmasq probes an address for 3 s before it assigns it; a reserved one is assigned at once (both
measured). virsh and virt-manager show and manage it like any other network.
"""

from __future__ import annotations

import libvirt

from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.host.connection import Connection, errors
from armvm.host.network.define import definition, find, no_subnet, start, taken_subnets
from armvm.host.network.subnets import free_subnets

OWN_NETWORK = "armvm"
#: Seconds to wait for another process to finish creating the network.
_PATIENCE = 10.0


def ensure(connection: Connection, *, local: bool, progress: Progress) -> None:
    """Create the network if it does not exist, and start it.

    *local* means that this machine's routes are the host's. Raises HostError if no subnet is
    free, and the translations of libvirt's errors.
    """
    with errors(f"creating the network {OWN_NETWORK}"):
        if _is_active(connection):
            return
        if find(connection, OWN_NETWORK) is None:
            _make(connection, local)
        network = find(connection, OWN_NETWORK)
        if network is not None and not network.isActive():
            try:
                network.create()
            except libvirt.libvirtError:
                if not _soon_active(connection):
                    raise
    progress.say(f"started the network {OWN_NETWORK}")


def _make(connection: Connection, local: bool) -> None:
    """Define and start the network on the first subnet that libvirt accepts."""
    for subnet in free_subnets(one for one, _ in taken_subnets(connection, local=local)):
        try:
            if start(connection, definition(OWN_NETWORK, subnet, isolated=False)):
                return
        except libvirt.libvirtError:
            if _soon_active(connection):  # another process created it
                return
            raise
    raise no_subnet(OWN_NETWORK)


def _is_active(connection: Connection) -> bool:
    network = find(connection, OWN_NETWORK)
    return network is not None and bool(network.isActive())


def _soon_active(connection: Connection) -> bool:
    return bool(until(lambda: _is_active(connection), timeout=_PATIENCE, interval=0.1))
