"""QEMU's forwards as its monitor tells them."""

from __future__ import annotations

from armvm.host.network.forwards import rules_in
from armvm.settings.ports import parse_forward
from tests.unit.test_host_forward import USERNET


def told(*words: str) -> set[str]:
    return {str(rule) for rule in rules_in("\n".join(words), "hostnet0")}


def test_the_rules_of_one_netdev_are_found() -> None:
    assert rules_in(USERNET, "hostnet0") == {parse_forward("8080:80"), parse_forward("20022:22")}
    assert rules_in(USERNET, "hostnet1") == {parse_forward("20033:22")}
    assert rules_in(USERNET, "hostnet2") == set()


def test_everywhere_and_udp() -> None:
    """As QEMU 7.2 prints what listens at all addresses, and a datagram's forward."""
    head = "Hub -1 (hostnet0):"
    assert told(head, "  TCP[HOST_FORWARD]  43   *  8443   10.0.2.15   443     0     0") == {
        "0.0.0.0:8443:443"
    }
    assert told(head, "  UDP[HOST_FORWARD]  44   127.0.0.1  5353   10.0.2.15   53   0  0") == {
        "5353:53/udp"
    }
    assert told(head, "  TCP[HOST_FORWARD]  43   127.0.0.1  0   10.0.2.15   443  0  0") == set()
