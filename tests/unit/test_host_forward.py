"""User networking's ssh forward: QEMU's words are read, ports are chosen."""

from __future__ import annotations

import pytest

from armvm.base.errors import DomainError
from armvm.host.connection import connect
from armvm.host.network.ssh_forward import PORTS, choose_port, forwarded_port, netdev_of

#: `info usernet` of QEMU 7.2, with a connection through the forward and two netdevs.
USERNET = """\
Hub -1 (hostnet0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   45       127.0.0.1 21999       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  43       127.0.0.1  8080       10.0.2.15    80     0     0\r
  TCP[HOST_FORWARD]  44       127.0.0.1 20022       10.0.2.15    22     0     0\r
  UDP[236 sec]       48       10.0.2.15 36134        10.0.2.3    53     0     0\r
Hub -1 (hostnet1):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[HOST_FORWARD]  49       127.0.0.1 20033       10.0.2.15    22     0     0\r
"""


@pytest.mark.parametrize(
    ("netdev", "port"),
    [("hostnet0", 20022), ("hostnet1", 20033), ("hostnet", None), ("hostnet10", None)],
)
def test_the_rule_of_one_netdev_is_found(netdev: str, port: int | None) -> None:
    assert forwarded_port(USERNET, netdev) == port


def test_other_rules_are_none_of_ours() -> None:
    for old, new in (
        ("127.0.0.1 20022", "  0.0.0.0 20022"),
        ("    22     0", "   222     0"),
        ("HOST_FORWARD", "FIN_WAIT_2"),
    ):
        assert forwarded_port(USERNET.replace(old, new), "hostnet0") is None
    assert forwarded_port("", "hostnet0") is None


def test_a_line_in_the_newer_form_names_the_netdev_alone() -> None:
    text = USERNET.replace("Hub -1 (hostnet0):", "hostnet0:")
    assert forwarded_port(text, "hostnet0") == 20022


def test_a_chosen_port_is_free_and_below_the_ephemeral_ones() -> None:
    taken = set(PORTS) - {20007, 20008}
    for _ in range(10):
        assert choose_port(taken) in (20007, 20008)
    assert choose_port(()) in PORTS
    assert PORTS.start > 1024
    assert PORTS.stop <= 32768


def test_a_machine_without_user_networking_is_named_in_the_cure() -> None:
    connection = connect("test:///default")
    with pytest.raises(DomainError) as caught:
        netdev_of(connection.lookupByName("test"))
    assert "virsh edit test" in str(caught.value.hint)
