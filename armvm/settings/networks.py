"""The values of ``--network``: what a machine's network cards are connected to.

A list of values is kept as one text, separated by commas: in metadata, variables and files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from armvm.base.errors import ConfigError
from armvm.settings.names import check_object_name, shown

#: The value of ``--network`` for QEMU's user networking, instead of a network's name.
USER_NETWORK = "user"
#: The most network cards of a machine. Each takes a PCIe slot.
MAX_CARDS = 4
#: A network interface of Linux: at most 15 bytes (IFNAMSIZ).
_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,14}")


class Kind(Enum):
    """What a network card is connected to: the word before ``=`` names a device of the host."""

    NETWORK = "network"
    USER = "user"
    BRIDGE = "bridge"
    MACVTAP = "macvtap"
    #: A connection that another tool made: ``source`` is libvirt's type of the interface.
    OTHER = "other"


@dataclass(frozen=True)
class Attachment:
    """The connection of one network card. ``source`` names the network or the host's device."""

    kind: Kind
    source: str = ""

    def __str__(self) -> str:
        if self.kind is Kind.USER:
            return USER_NETWORK
        plain = self.kind in (Kind.NETWORK, Kind.OTHER)
        return self.source if plain else f"{self.kind.value}={self.source}"


def attachment(text: str) -> Attachment:
    """Return one value of ``--network``. Raises ConfigError."""
    word, sign, device = text.partition("=")
    if text == USER_NETWORK:
        return Attachment(Kind.USER)
    if not sign:
        if "," in text:
            raise ConfigError(f"invalid network name {shown(text)}")
        return Attachment(Kind.NETWORK, check_object_name("network", text))
    if word not in (Kind.BRIDGE.value, Kind.MACVTAP.value):
        raise ConfigError(
            f"invalid network {shown(text)}",
            hint="use the name of a libvirt network, user, bridge=br0 or macvtap=eth0",
        )
    if not _DEVICE.fullmatch(device):
        raise ConfigError(
            f"invalid device {shown(device)} in --network {word}=",
            hint=f"use the name of a network interface of the host, for example {word}="
            + ("br0" if word == Kind.BRIDGE.value else "eth0"),
        )
    return Attachment(Kind(word), device)


def attachments(text: str) -> tuple[Attachment, ...]:
    """Return the values in a comma-separated text, that of the first card first.

    Raises ConfigError for an invalid value, for too many, and for two that cannot be together.
    """
    found = tuple(attachment(one.strip()) for one in text.split(","))
    if len(found) > MAX_CARDS:
        raise ConfigError(f"{len(found)} networks is out of range (1 to {MAX_CARDS})")
    for one in found:
        if found.count(one) > 1:
            hint = f"leave out one --network {one}"
            raise ConfigError(f"network {one} is there twice", hint=hint)
    if found[0].kind is Kind.MACVTAP:
        raise ConfigError(
            f"{found[0]} cannot be a machine's first network: armvm logs in through the first, and "
            "the host cannot reach its own macvtap guests",
            hint=f"put another network first: --network armvm --network {found[0]}",
        )
    return found


def read_networks(value: object) -> str:
    """Return the text of one or several values, as `attachments` reads it."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(one, str) for one in values):
        raise ValueError("expected a string")
    return ",".join(str(one) for one in values)
