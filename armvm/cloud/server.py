"""armvm's servers in a cloud: read from Nova's answers, whose values are untrusted."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from armvm.base.errors import ConfigError, Conflict, DomainError, NotFound, UsageError
from armvm.cloud.connection import Connection, answers, ask, said
from armvm.guest.cloudinit.credentials import is_public_key
from armvm.settings.names import check_machine_name, check_user_name, shown

#: The keys of the metadata that armvm gives its servers. MARK, with armvm's version, makes a server
#: one of armvm's. Nova limits each value to 255 characters.
MARK = "armvm"
ID, USER, HOST_KEY, LOGIN_KEY, IMAGE, DIGEST = (
    "armvm-id",
    "armvm-user",
    "armvm-host-key",
    "armvm-login-key",
    "armvm-image",
    "armvm-digest",
)
#: Longest value of metadata.
LONGEST = 255

#: Nova's states of a server (ACTIVE, SHUTOFF, …), as `armvm list` calls the usual ones.
STATES: Mapping[str, str] = {
    "ACTIVE": "running",
    "SHUTOFF": "shut off",
    "BUILD": "building",
    "ERROR": "error",
}
#: The states of a server that starts or runs.
STARTING = frozenset({"ACTIVE", "BUILD", "REBOOT", "HARD_REBOOT", "REBUILD", "PASSWORD"})
_GLOB = re.compile(r"[*?\[]")
_STATUS = re.compile(r"[A-Z_]{1,40}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address of a server; ``floating`` is one that Neutron translates."""

    address: str
    version: int
    network: str
    mac: str | None
    floating: bool


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that armvm made. All texts are printable; ``id`` is a UUID.

    ``host_key`` and ``login_key`` (armvm's own key, if it may log in) are OpenSSH public keys;
    None if the metadata has no valid one.
    """

    id: str
    name: str
    status: str
    flavor: str
    cpus: int | None
    memory_mib: int | None
    addresses: tuple[Address, ...]
    armvm_id: str
    user: str | None
    host_key: str | None
    login_key: str | None
    image: str
    digest: str | None
    version: str
    created: str
    fault: str | None

    @property
    def state(self) -> str:
        """The server's state in armvm's words; Nova's own word in lower case for unusual ones."""
        return STATES.get(self.status, self.status.lower().replace("_", " "))

    @property
    def running(self) -> bool:
        """Whether the guest runs."""
        return self.status == "ACTIVE"

    @property
    def address(self) -> str | None:
        """The address for ssh: a floating one if there is one, IPv4 before IPv6."""
        order = sorted(self.addresses, key=lambda one: (not one.floating, one.version))
        return order[0].address if order else None


def servers(connection: Connection) -> list[Server]:
    """Return armvm's servers in the project, by name."""
    compute = connection.api.compute
    found = ask(
        connection.cloud,
        "listing the servers",
        lambda: [read(one) for one in compute.servers(details=True)],
    )
    return sorted((one for one in found if one is not None), key=lambda one: (one.name, one.id))


def names_taken(connection: Connection) -> set[str]:
    """Return the names of all servers in the project, armvm's or not."""
    with answers(connection.cloud, "listing the servers"):
        return {str(one.name) for one in connection.api.compute.servers(details=False)}


def again(connection: Connection, server: Server) -> Server:
    """Return a server as it is now. Raises NotFound if it was deleted."""
    found = told(connection, server.id, server.name)
    if found is None or found.id != server.id:
        raise NotFound(f"{server.name} is not a server of armvm any more")
    return found


def told(connection: Connection, number: str, name: str) -> Server | None:
    """Return the server with the ID *number*, called *name*; None if it is not armvm's."""
    compute = connection.api.compute
    doing = f"reading server {name}"
    return ask(connection.cloud, doing, lambda: read(compute.get_server(number)))


def pick(connection: Connection, name: str | None) -> Server:
    """Return the server called *name*, or the only one if *name* is None.

    Raises NotFound, Conflict if several servers have the name, and ConfigError if a name is
    required.
    """
    there = servers(connection)
    if name is not None:
        return _named(connection, there, check_machine_name(name))
    if not there:
        raise NotFound(
            f"no machines found on {connection.cloud.name}",
            hint=f"create one: armvm create --on {connection.cloud.name}",
        )
    if len(there) > 1:
        raise ConfigError(
            "NAME is required: there are several machines",
            hint="choose one of " + ", ".join(one.name for one in there),
        )
    return there[0]


def pick_many(
    connection: Connection,
    names: Sequence[str],
    *,
    every: bool,
    keep: Callable[[Server], bool] = lambda _one: True,
) -> list[Server]:
    """Return the servers that *names* and patterns mean, each once; all with *every*.

    Of those that were not named individually, only the ones that *keep* accepts. Raises UsageError
    for names together with *every*, NotFound for a pattern without a match, and as `pick`.
    """
    if every and names:
        raise UsageError("names and --all cannot be used together")
    if not names and not every:
        return [pick(connection, None)]
    there = servers(connection)
    found: dict[str, Server] = {}
    for pattern in ["*"] if every else names:
        if _GLOB.search(pattern) is None:
            one = _named(connection, there, check_machine_name(pattern))
            found[one.id] = one
            continue
        fitting = [one for one in there if fnmatchcase(one.name, pattern)]
        if not fitting and not every:
            raise NotFound(
                f"no machine on {connection.cloud.name} matches {shown(pattern)}",
                hint=f"list the machines: armvm list --on {connection.cloud.name}",
            )
        found |= {one.id: one for one in fitting if keep(one)}
    return list(found.values())


def require_running(server: Server, cloud: str) -> None:
    """Raise DomainError unless the guest runs."""
    if not server.running:
        raise DomainError(
            f"{server.name} is not running: {server.state}",
            detail=server.fault,
            hint=f"start it: armvm start {server.name} --on {cloud}",
        )


def _named(connection: Connection, there: Sequence[Server], name: str) -> Server:
    found = [one for one in there if one.name == name]
    if not found:
        raise NotFound(
            f"machine {shown(name)} not found on {connection.cloud.name}",
            hint=f"list the machines: armvm list --on {connection.cloud.name}",
        )
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} servers are called {name}: " + ", ".join(one.id for one in found),
            hint="delete or rename the others by their ID: openstack server delete ID",
        )
    return found[0]


def read(told: Any) -> Server | None:
    """Return a server of armvm's from Nova's answer; None for another, or without a valid ID."""
    metadata = told.metadata if isinstance(told.metadata, dict) else {}
    number = _uuid(told.id)
    if MARK not in metadata or number is None:
        return None
    name, status = str(told.name), str(told.status)
    flavor, fault = told.flavor, told.fault
    return Server(
        id=number,
        name=name if _is_name(name) else shown(said(name)),
        status=status if _STATUS.fullmatch(status) else "UNKNOWN",
        flavor=said(str(getattr(flavor, "original_name", None) or getattr(flavor, "id", "-"))),
        cpus=_count(getattr(flavor, "vcpus", None)),
        memory_mib=_count(getattr(flavor, "ram", None)),
        addresses=_addresses(told.addresses),
        armvm_id=_text(metadata, ID),
        user=_user(_text(metadata, USER)),
        host_key=_key(_text(metadata, HOST_KEY)),
        login_key=_key(_text(metadata, LOGIN_KEY)),
        image=_text(metadata, IMAGE) or "-",
        digest=_digest(_text(metadata, DIGEST)),
        version=_text(metadata, MARK),
        created=said(str(told.created_at or "")),
        fault=said(str(fault.get("message", ""))) or None if isinstance(fault, dict) else None,
    )


def _text(metadata: Mapping[Any, Any], key: str) -> str:
    return said(str(metadata.get(key, "")))


def _uuid(text: Any) -> str | None:
    try:
        return str(uuid.UUID(str(text)))
    except ValueError:
        return None


def _is_name(text: str) -> bool:
    try:
        check_machine_name(text)
    except ConfigError:
        return False
    return True


def _user(text: str) -> str | None:
    try:
        return check_user_name(text)
    except ConfigError:
        return None


def _key(text: str) -> str | None:
    words = text.split()
    return text if is_public_key(text) and len(words) == 2 else None


def _digest(text: str) -> str | None:
    return text if re.fullmatch(r"sha256:[0-9a-f]{64}", text) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 < value < 1 << 40 else None


def _addresses(told: Any) -> tuple[Address, ...]:
    """Return the valid addresses in Nova's answer, IPv4 first, fixed ones before floating ones."""
    found = []
    for network, entries in told.items() if isinstance(told, dict) else ():
        for one in entries if isinstance(entries, list) else ():
            try:
                parsed = ipaddress.ip_address(str(one["addr"]).partition("%")[0])
            except (KeyError, TypeError, ValueError):
                continue
            mac = str(one.get("OS-EXT-IPS-MAC:mac_addr", "")).lower()
            address = Address(
                address=str(parsed),
                version=parsed.version,
                network=said(str(network)),
                mac=mac if _MAC.fullmatch(mac) else None,
                floating=one.get("OS-EXT-IPS:type") == "floating",
            )
            found.append(address)
    return tuple(sorted(found, key=lambda one: (one.version, one.floating)))
