"""Reserved addresses on a network of libvirt's test driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from armvm.base.errors import Conflict, HostError
from armvm.host import connection as connecting
from armvm.host.connection import Connection
from armvm.host.network.define import NAMESPACE
from armvm.host.network.reservations import check, reserve
from armvm.host.xml import parse, select

MINE, CARD = "52:54:00:00:00:01", "52:54:00:00:00:02"
#: All addresses of a network: one reserved without a name, one for no card of QEMU's, one for a
#: card under another name, and one for a machine that is gone.
NETWORK = f"""<network><name>lab</name><metadata><n:network xmlns:n="{NAMESPACE}"/></metadata>
<bridge name="virbr9"/><ip address="10.9.0.1" prefix="29"><dhcp>
<range start="10.9.0.2" end="10.9.0.5"/>
<host mac="52:54:00:00:00:12" ip="10.9.0.2"/>
<host mac="00:16:3e:00:00:13" name="container" ip="10.9.0.3"/>
<host mac="{CARD.upper()}" name="old-name" ip="10.9.0.4"/>
<host mac="52:54:00:00:00:15" name="gone" ip="10.9.0.5"/>
</dhcp></ip></network>"""
DOMAIN = """<domain type="test"><name>{}</name><memory>1</memory><os><type>hvm</type></os>
<devices><interface type="network"><mac address="{}"/><source network="lab"/></interface>
</devices></domain>"""


@pytest.fixture
def connection() -> Iterator[Connection]:
    """A connection with the network "lab" and two machines."""
    connection = connecting.connect("test:///default")
    connection.networkDefineXML(NETWORK)
    connection.defineXML(DOMAIN.format("mine", MINE))
    connection.defineXML(DOMAIN.format("renamed", CARD))
    yield connection
    connection.close()


def names(connection: Connection) -> list[str | None]:
    document = parse(connection.networkLookupByName("lab").XMLDesc(0))
    return [one.get("name") for one in select(document, "ip/dhcp/host")]


def test_only_entries_of_machines_that_are_gone_are_released(connection: Connection) -> None:
    assert reserve(connection, "lab", MINE, "mine") == "10.9.0.5"
    assert names(connection) == [None, "container", "old-name", "mine"]
    with pytest.raises(HostError, match="no free address"):
        reserve(connection, "lab", "52:54:00:00:00:03", "another")


@pytest.mark.parametrize("address", ["10.9.0.2", "10.9.0.3", "10.9.0.4"])
def test_others_keep_their_addresses(connection: Connection, address: str) -> None:
    with pytest.raises(Conflict, match="is reserved for"):
        check(connection, "lab", address, "mine")
    assert check(connection, "lab", "10.9.0.5", "mine") is None
