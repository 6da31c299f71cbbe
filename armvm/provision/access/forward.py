"""Addresses of machines, and ports of the host that are forwarded to them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from armvm.base.errors import ConfigError, Conflict, DomainError, NotFound, NotReady
from armvm.base.result import Doc, FirstNetwork, MachineName, Networks, Port
from armvm.base.signals import shielded
from armvm.host.connection import Connection, uri_of
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, instances, observe, set_record
from armvm.host.network import forwards
from armvm.host.network.addresses import all_addresses
from armvm.provision.access.jump import Jump, host_of, jump_of
from armvm.provision.access.ssh import first_address, restore_forward, static_address
from armvm.provision.machine.network import reserved
from armvm.settings.ports import LOOPBACK, PortForward, Protocol, parse_forward


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A port of the host that is forwarded to a machine."""

    forward: Annotated[str, Doc("The forward as written: [ADDRESS:]HOST:GUEST[/udp].")]
    protocol: Annotated[Protocol, Doc("The protocol of the port.")]
    listen: Annotated[str, Doc("The IPv4 address at which the host listens.", format="ipv4")]
    host_port: Annotated[Port, Doc("The host's port.")]
    guest_port: Annotated[Port, Doc("The guest's port.")]
    ssh: Annotated[bool, Doc("Whether armvm uses it to reach the guest's ssh.")]
    active: Annotated[bool, Doc("Whether the host listens on it now.")]


@dataclass(frozen=True, kw_only=True)
class _OfMachine:
    machine: Annotated[MachineName, Doc("The machine.")]


@dataclass(frozen=True, kw_only=True)
class MachineForward(Forward, _OfMachine):
    """A port of the host that is forwarded to the machine."""


@dataclass(frozen=True, kw_only=True)
class AddressDetails:
    """An address of a machine."""

    version: Annotated[int, Doc("4 or 6.", enum=[4, 6])]
    address: Annotated[str, Doc("The address.")]
    prefix: Annotated[int, Doc("Length of the network prefix.", minimum=0, maximum=128)]
    interface: Annotated[
        str, Doc("The network card: libvirt's name (lease) or the guest's (agent).")
    ]
    mac: Annotated[str | None, Doc("MAC address of the card.")]
    source: Annotated[
        str,
        Doc(
            "lease: libvirt's DHCP server; agent: the guest agent; arp: the host's ARP table; "
            "config: its --network-config.",
            enum=["lease", "agent", "arp", "config"],
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """The addresses and forwards of a machine."""

    name: Annotated[MachineName, Doc("The machine.")]
    state: Annotated[str, Doc("The domain's state.")]
    network: FirstNetwork
    networks: Networks
    mac: Annotated[str | None, Doc("MAC address of its first network card, as defined.")]
    reachable: Annotated[
        bool, Doc("Whether the host reaches the addresses; false with user networking.")
    ]
    via: Annotated[
        str | None,
        Doc("The libvirt host if it is remote: addresses and forwards are valid there."),
    ]
    addresses: Annotated[
        list[AddressDetails], Doc("Its addresses, IPv4 first; none while it is off.")
    ]
    reserved: Annotated[
        str | None,
        Doc("The address reserved on the first network: on the network armvm, or with --ip."),
    ]
    forwards: Annotated[
        list[Forward], Doc("With user networking: ports of the host that are forwarded to it.")
    ]


def addresses(machine: Handle) -> Addresses:
    """Return a machine's addresses and forwards.

    ``reachable`` says whether the host reaches the addresses; it is false with user networking.
    ``via`` names a remote libvirt host; the addresses may be reachable only from there.
    """
    macs = [card.mac for card in machine.instance.cards]
    found = [
        AddressDetails(version=one.version, **vars(one))
        for one in (all_addresses(machine.domain, macs) if machine.running else [])
    ]
    static = static_address(machine.instance)
    if machine.running and not found and static is not None:
        found.append(
            AddressDetails(
                version=static.version,
                address=str(static.ip),
                prefix=static.network.prefixlen,
                interface="",
                mac=None,
                source="config",
            )
        )
    return Addresses(
        name=machine.name,
        state=machine.instance.state,
        network=machine.instance.network or "user",
        networks=machine.instance.networks,
        mac=machine.instance.mac,
        reachable=machine.instance.network is not None,
        via=host_of(machine.uri),
        addresses=found,
        reserved=reserved(machine.connection, machine.instance),
        forwards=describe(machine),
    )


def reachable(facts: Addresses) -> list[str]:
    """Return the reachable addresses or forwards in the result of `addresses`, a line each.

    Raises DomainError for a machine that is off, NotReady for a machine without an address.
    """
    name = facts.name
    if facts.state in ("shut off", "crashed"):
        kept = f" (its reserved address: {facts.reserved})" if facts.reserved else ""
        raise DomainError(
            f"{name} is not running{kept}",
            hint=f"start it first: armvm start {name}",
        )
    if not facts.reachable:
        return [f"{one.listen}:{one.host_port}" for one in facts.forwards if one.active]
    if not facts.addresses:
        raise NotReady(
            f"{name} has no address yet",
            hint=f"wait until it is ready: armvm wait {name}",
        )
    return [one.address for one in facts.addresses]


def describe(machine: Handle) -> list[Forward]:
    """Return a machine's forwards, that for ssh first; restore lost ones.

    ``active`` says whether the host listens on the port now.
    """
    if machine.instance.network is not None:
        return []
    if machine.running:
        machine = restore_forward(machine)
    there = forwards.rules(machine.domain) if machine.running else set()
    return [
        Forward(
            forward=str(rule),
            protocol=rule.protocol,
            listen=rule.listen,
            host_port=rule.host,
            guest_port=rule.guest,
            ssh=own,
            active=rule in there,
        )
        for own, rule in _all(machine.instance)
    ]


def describe_all(machines: Iterable[Handle]) -> list[MachineForward]:
    """Return the forwards of several machines, each with its machine's name."""
    return [
        MachineForward(machine=machine.name, **vars(one))
        for machine in machines
        for one in describe(machine)
    ]


def add(machine: Handle, text: str) -> PortForward:
    """Add a forward, active now if the machine runs and after every start; return it.

    Raises ConfigError for a machine on a libvirt network, Conflict for a port that is in use.
    """
    rule = parse_forward(text)
    _assert_user_networking(machine, rule)
    for other in instances(machine.connection):
        for _, theirs in _all(other):
            if rule.clashes(theirs):
                raise Conflict(
                    f"port {rule.host} of the host is already forwarded to {other.name}: {theirs}",
                    hint="choose another port, or remove the forward: armvm forward remove "
                    f"{other.name} {theirs}",
                )
    with shielded():
        if machine.running:
            forwards.add(machine.domain, rule)
        try:
            record = observe(machine.domain).record
            set_record(machine.domain, replace(record, ports=(*record.ports, rule)))
        except BaseException:
            if machine.running:
                forwards.remove(machine.domain, rule)
            raise
    return rule


def told(connection: Connection, instance: Instance, rule: PortForward) -> list[str]:
    """Return a description of a forward, and how to reach it from here if the host is remote."""
    uri = uri_of(connection)
    host, jump = host_of(uri), jump_of(uri)
    of = f" of {host}" if host else ""
    lines = [f"{rule.listen}:{rule.host}{of} forwards to port {rule.guest} of {instance.name}"]
    # Other listen addresses can be reached directly, and ssh cannot forward UDP.
    if jump is not None and rule.listen == LOOPBACK and rule.protocol is Protocol.TCP:
        lines.append(f"  from here: {_ssh_forward(jump, rule, f'{LOOPBACK}:{rule.host}')}")
    return lines


def _ssh_forward(jump: Jump, rule: PortForward, target: str) -> str:
    """Return the ssh command that forwards a port of this host to *target*, through *jump*."""
    listen = "" if rule.listen == LOOPBACK else f"{rule.listen}:"
    return shlex.join(jump.command("-N", "-L", f"{listen}{rule.host}:{target}"))


def remove(machine: Handle, text: str) -> PortForward:
    """Remove a forward, given in full or by the host's port; return it.

    Raises NotFound if it does not exist, Conflict if it is the forward for ssh.
    """
    found = None
    for own, rule in _all(machine.instance):
        if text in (str(rule), str(rule.host), f"{rule.host}:{rule.guest}"):
            if own:
                raise Conflict(
                    f"{rule} cannot be removed: armvm uses it for ssh to {machine.name}",
                    hint=f"list its forwards: armvm forward list {machine.name}",
                )
            found = rule
    if found is None:
        raise NotFound(
            f"forward not found for {machine.name}",
            hint=f"list its forwards: armvm forward list {machine.name}",
        )
    with shielded():
        record = observe(machine.domain).record
        left = tuple(one for one in record.ports if one != found)
        set_record(machine.domain, replace(record, ports=left))
        if machine.running:
            forwards.remove(machine.domain, found)
    return found


def _all(instance: Instance) -> list[tuple[bool, PortForward]]:
    """Return a machine's forwards, each with whether it is for ssh."""
    if instance.network is not None:
        return []
    port = instance.record.forward
    own = [] if port is None else [(True, PortForward(host=port, guest=22))]
    return [*own, *((False, rule) for rule in instance.record.ports)]


def _assert_user_networking(machine: Handle, rule: PortForward) -> None:
    if machine.instance.network is None:
        return
    found = first_address(machine) if machine.running else None
    where, uri = found or "ADDRESS", machine.uri
    host, jump = host_of(uri), jump_of(uri)
    tells = f"show the address: armvm ip {machine.name}; "
    if host is None:
        hint = (
            f"{tells}to reach the port from other hosts: "
            f"ssh -N -L {rule.host}:{where}:{rule.guest} THIS-HOST"
        )
    elif jump is None or rule.protocol is not Protocol.TCP:
        hint = f"{tells}to reach the port from here, add a route to that network"
    else:
        command = _ssh_forward(jump, rule, f"{where}:{rule.guest}")
        hint = f"{'' if found else tells}from here: {command}"
    raise ConfigError(
        f"{machine.name} needs no forward: it has an address on the network "
        f"{machine.instance.network}, and {host or 'this host'} reaches its port {rule.guest} at "
        f"{where}:{rule.guest}",
        hint=hint,
    )
