"""Forwards as people write them, and which of them the host cannot have together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.settings.ports import PortForward, Protocol, parse_forward

PORT = st.integers(1, 65535)


@given(
    host=PORT,
    guest=PORT,
    listen=st.ip_addresses(v=4).map(str),
    protocol=st.sampled_from(Protocol),
)
def test_what_is_written_is_read_again(
    host: int, guest: int, listen: str, protocol: Protocol
) -> None:
    rule = PortForward(host=host, guest=guest, listen=listen, protocol=protocol)
    assert parse_forward(str(rule)) == rule


def test_the_loopback_and_tcp_go_without_saying() -> None:
    assert str(parse_forward("127.0.0.1:8080:80/tcp")) == "8080:80"
    assert parse_forward(" 8080:80 ").listen == "127.0.0.1"
    assert str(parse_forward("0.0.0.0:5353:53/udp")) == "0.0.0.0:5353:53/udp"


@pytest.mark.parametrize(
    "text",
    [
        *("", "80", "0:80", "80:0", "65536:80", "80:65536", "a:b", "80:80/sctp", "-1:80"),
        *("1.2.3:80:80", "1.2.3.400:80:80", "::1:80:80", "80:80\nquit", "80:80-:22", "8٣:80"),
    ],
)
def test_what_is_no_forward_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_forward(text)
    assert "8080:80" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("80:80", "80:81", True),
        ("80:80", "0.0.0.0:80:80", True),
        ("0.0.0.0:80:80", "10.0.0.1:80:80", True),
        ("80:80", "10.0.0.1:80:80", False),
        ("80:80", "81:80", False),
        ("53:53", "53:53/udp", False),
    ],
)
def test_clashes(one: str, other: str, clash: bool) -> None:
    assert parse_forward(one).clashes(parse_forward(other)) is clash
    assert parse_forward(other).clashes(parse_forward(one)) is clash
