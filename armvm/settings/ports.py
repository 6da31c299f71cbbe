"""Ports of the host that lead to a guest's, as people write them: ``8080:80``, ``5353:53/udp``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

LOOPBACK = "127.0.0.1"
_FORM = re.compile(r"(?:([0-9.]{7,15}):)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?")
_HINT = "write it like 8080:80, 0.0.0.0:8080:80 or 5353:53/udp: the host's port, then the guest's"


class Protocol(Enum):
    """What a port is of."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, kw_only=True)
class PortForward:
    """A port at which the host listens (at the address ``listen``), and the guest's it leads to.

    Raises ValueError for numbers that are no ports, or an address that is none of IPv4.
    """

    host: int
    guest: int
    listen: str = LOOPBACK
    protocol: Protocol = Protocol.TCP

    def __post_init__(self) -> None:
        for port in (self.host, self.guest):
            if not 1 <= port <= 65535:
                raise ValueError(f"{port} is no port")
        ipaddress.IPv4Address(self.listen)

    def __str__(self) -> str:
        address = "" if self.listen == LOOPBACK else f"{self.listen}:"
        suffix = "" if self.protocol is Protocol.TCP else f"/{self.protocol.value}"
        return f"{address}{self.host}:{self.guest}{suffix}"

    def clashes(self, other: PortForward) -> bool:
        """Tell whether the host cannot listen for both."""
        everywhere = "0.0.0.0"  # noqa: S104 - compared with, not bound to
        return (self.protocol, self.host) == (other.protocol, other.host) and (
            self.listen == other.listen or everywhere in (self.listen, other.listen)
        )


def parse_forward(text: str) -> PortForward:
    """Return the forward that *text* stands for: ``[ADDRESS:]HOST:GUEST[/tcp|udp]``.

    The address is the loopback's if none is given. Raises ConfigError.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{shown(text)} is no forward", hint=_HINT)
    listen, host, guest, protocol = match.groups()
    try:
        return PortForward(
            host=int(host),
            guest=int(guest),
            listen=listen or LOOPBACK,
            protocol=Protocol(protocol or "tcp"),
        )
    except ValueError as error:
        raise ConfigError(f"{shown(text)} is no forward: {error}", hint=_HINT) from error
