"""The user's own network configuration, version 2, which replaces armvm's as a whole.

It is not merged with armvm's: two documents may describe the same card under different names, and
netplan would then apply one of them, or none.

Source: cloud-init's documentation, "Networking config version 2", and netplan-yaml(5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from armvm.base.errors import ConfigError
from armvm.guest.cloudinit.yaml_text import load
from armvm.settings.names import shown

OPTION = "--network-config"
#: The largest file, in bytes: real ones have a hundredth of it.
MAX_BYTES = 64 << 10
#: The tables of interfaces, those with addresses of their own first.
_TABLES = (
    "ethernets", "bonds", "bridges", "vlans", "wifis", "tunnels", "vrfs", "modems",
    "dummy-devices",
)  # fmt: skip
_KEYS = ("version", "renderer", *_TABLES)
_RENDERERS = ("networkd", "NetworkManager")
_EXAMPLE = "for example: {version: 2, ethernets: {lan: {match: {name: 'e*'}, dhcp4: true}}}"


def read_network_config(text: str) -> dict[str, Any]:
    """Return a network configuration, without the key ``network`` that may surround it.

    Raises ConfigError for a document that cloud-init or netplan would refuse, as far as armvm
    knows their rules.
    """
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(f"{OPTION} is larger than {MAX_BYTES >> 10} KiB")
    text = text.removeprefix("\ufeff")
    document = _mapping(load(text, OPTION, aliases=False), "the document")
    if set(document) == {"network"}:
        document = _mapping(document["network"], "network")
    version = document.get("version")
    if version != 2 or isinstance(version, bool):
        raise ConfigError(
            f"{OPTION}: expected version: 2"
            + ("" if version is None else f", not {str(version)[:20]!a}"),
            hint=_EXAMPLE,
        )
    for key in document:
        if key not in _KEYS:
            raise ConfigError(
                f"{OPTION}: unknown key {shown(str(key))}", hint="known: " + ", ".join(_KEYS)
            )
    if document.get("renderer", "networkd") not in _RENDERERS:
        raise ConfigError(f"{OPTION}: renderer: expected {' or '.join(_RENDERERS)}")
    interfaces = list(_interfaces(document))
    if not interfaces:
        raise ConfigError(f"{OPTION}: it has no interface", hint=_EXAMPLE)
    for place, interface in interfaces:
        _check(place, interface)
    return document


def static_address(document: Mapping[str, Any]) -> str | None:
    """Return the first static IPv4 address, as ADDRESS/PREFIX; None if a card asks for a lease."""
    interfaces = [interface for _, interface in _interfaces(document)]
    if any(interface.get("dhcp4") for interface in interfaces):
        return None
    for interface in interfaces:
        for entry in _addresses(interface):
            if isinstance(found := ipaddress.ip_interface(entry), ipaddress.IPv4Interface):
                return str(found)
    return None


def _interfaces(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each interface with its place in the document."""
    for table in _TABLES:
        for name, interface in _mapping(document.get(table) or {}, table).items():
            place = f"{table}.{name}"
            yield place, _mapping({} if interface is None else interface, place)


def _check(place: str, interface: Mapping[str, Any]) -> None:
    for key in ("dhcp4", "dhcp6", "optional"):
        if key in interface and not isinstance(interface[key], bool):
            raise ConfigError(f"{OPTION}: {place}.{key}: expected true or false")
    if not isinstance(interface.get("addresses") or [], list):
        raise ConfigError(
            f"{OPTION}: {place}.addresses: expected a list",
            hint="for example: addresses: [192.168.128.50/24]",
        )
    for entry in _addresses(interface):
        try:
            if "/" not in entry:
                raise ValueError
            ipaddress.ip_interface(entry)
        except ValueError as error:
            raise ConfigError(
                f"{OPTION}: {place}.addresses: invalid address {shown(entry)}",
                hint="use ADDRESS/PREFIX: 192.168.128.50/24",
            ) from error


def _addresses(interface: Mapping[str, Any]) -> Iterator[str]:
    """Yield an interface's static addresses; netplan allows options, as ``- ADDRESS: {…}``."""
    for entry in interface.get("addresses") or []:
        yield str(next(iter(entry), "")) if isinstance(entry, dict) else str(entry)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value
    raise ConfigError(f"{OPTION}: {shown(what)}: expected a mapping", hint=_EXAMPLE)
