"""Parse port forwards, host port to guest port: ``8080:80``, ``5353:53/udp``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

LOOPBACK = "127.0.0.1"
_FORM = re.compile(r"(?:([0-9.]{7,15}):)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?")
_HINT = "HOST:GUEST, the host's port first (examples: 8080:80, 0.0.0.0:8080:80, 5353:53/udp)"


class Protocol(Enum):
    """The protocol of a port."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, kw_only=True)
class PortForward:
    """A port on the host (at the address ``listen``) that leads to a port of the guest.

    Raises ValueError for an invalid port number or IPv4 address.
    """

    host: int
    guest: int
    listen: str = LOOPBACK
    protocol: Protocol = Protocol.TCP

    def __post_init__(self) -> None:
        for port in (self.host, self.guest):
            if not 1 <= port <= 65535:
                raise ValueError(f"invalid port {port}")
        ipaddress.IPv4Address(self.listen)

    def __str__(self) -> str:
        address = "" if self.listen == LOOPBACK else f"{self.listen}:"
        suffix = "" if self.protocol is Protocol.TCP else f"/{self.protocol.value}"
        return f"{address}{self.host}:{self.guest}{suffix}"

    def clashes(self, other: PortForward) -> bool:
        """Return whether both cannot listen at the same time."""
        everywhere = "0.0.0.0"  # noqa: S104 - compared with, not bound to
        return (self.protocol, self.host) == (other.protocol, other.host) and (
            self.listen == other.listen or everywhere in (self.listen, other.listen)
        )


def parse_forward(text: str) -> PortForward:
    """Return the forward written as ``[ADDRESS:]HOST:GUEST[/tcp|udp]``.

    The default address is the loopback address. Raises ConfigError.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"invalid port forward {shown(text)}", hint=_HINT)
    listen, host, guest, protocol = match.groups()
    try:
        return PortForward(
            host=int(host),
            guest=int(guest),
            listen=listen or LOOPBACK,
            protocol=Protocol(protocol or "tcp"),
        )
    except ValueError as error:
        raise ConfigError(f"invalid port forward {shown(text)}: {error}", hint=_HINT) from error
