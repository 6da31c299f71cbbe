"""armvm's record of a machine, kept in the domain's own ``<metadata>``.

It is armvm's only state: armvm keeps no database. Other tools preserve the element when they
change a domain.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from lxml import etree

from armvm.base.errors import ConfigError
from armvm.base.result import Doc
from armvm.settings.names import check_snapshot_name
from armvm.settings.ports import PortForward, Protocol

NAMESPACE = "urn:armvm:machine:1"
PREFIX = "armvm"
_ELEMENT = f"{{{NAMESPACE}}}machine"
#: The element that marks a domain as a golden (armvm.host.domain.golden_domain), not a machine.
GOLDEN = "{urn:armvm:golden:1}golden"


#: An image, or the machine that a golden was copied from and when.
_SOURCE_DIGEST = r"^(sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})|machine:[0-9a-f-]{36} [0-9TZ:-]{20})$"
SourceDigest = Annotated[
    str,
    Doc(
        "The image's digest; of a golden made from a machine: that machine's UUID and the time.",
        pattern=_SOURCE_DIGEST,
    ),
]

_Known = TypedDict(
    "_Known",
    {
        "digest": SourceDigest,
        "serial": Annotated[str, Doc("The catalog's version of the image.")],
        "system": Annotated[str, Doc("The distribution and its version.")],
        "verified": Annotated[
            str,
            Doc(
                "How the image was verified: a pinned key's signature, a digest in the catalog, a "
                "digest that the user gave, a build on this host, or not at all.",
                enum=["signature", "catalog-digest", "given-digest", "built-here", "none"],
            ),
        ],
        "signer": Annotated[str, Doc("Fingerprint of the key that signed it.")],
        "size": Annotated[str, Doc("Size of the file in bytes.", pattern="^[0-9]+$")],
        "tuned-from": Annotated[
            str, Doc("For a tuned image: the digest of the image that it was made from.")
        ],
        "packages": Annotated[
            str, Doc("Packages that `golden create --install` added, separated by spaces.")
        ],
    },
    total=False,
)


class ImageRecord(_Known):
    """The image as it was when the machine was made."""

    reference: Annotated[str, Doc("The requested reference.")]


@dataclass(frozen=True, kw_only=True)
class Creator:
    """The process that is creating a machine, recorded so that its death can be detected."""

    host: str
    pid: int
    started: int  #: the process's start, in clock ticks since boot: proc(5), stat field 22


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A copy of a machine's disk. ``state`` is the machine's state while it was copied."""

    name: str
    created: str
    state: str


@dataclass(frozen=True, kw_only=True)
class FleetMark:
    """The fleet file that a machine was made for.

    ``machine`` is its name there: a renamed machine or a copy is the fleet's no longer. ``source``
    is what it was made from, as the file said it; empty: the default image.
    """

    name: str
    machine: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class PoolMember:
    """A clone that was made for its golden's pool.

    ``state`` is the digest of the golden's saved state. ``waiting``: it is suspended, and nobody
    has taken it. ``taken``: a process uses or removes it. Else it is being made.
    """

    state: str
    waiting: bool = False
    taken: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """armvm's data about a machine. ``forward`` is the loopback port that leads to ssh.

    ``own_key`` means that armvm's own key may log in, ``key`` which key that is: another user of
    the same libvirt has another. Machines of older versions lack ``key``.
    ``ports`` are the other forwards of a machine with user networking.
    ``golden`` is the golden that a clone was made from. ``fast`` holds a fast machine's trade-offs:
    its disk's ``cache`` mode, the file name of the ``kernel`` that is loaded from outside, and what
    the kernel's command line changes (``units``, ``kpti``, ``network``).
    ``fleet`` is the fleet file that `armvm apply` made it for. ``member`` marks a machine of a
    golden's pool, until ``create`` has taken it.
    """

    version: str
    created: str
    user: str
    host_key: str
    instance_id: str
    pool: str
    image: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    own_key: bool = False
    key: str = ""
    forward: int | None = None
    ports: tuple[PortForward, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    golden: str | None = None
    fast: dict[str, str] = field(default_factory=dict)
    fleet: FleetMark | None = None
    member: PoolMember | None = None
    creator: Creator | None = None


def to_element(record: Record) -> etree._Element:
    """Return the record as the XML element for ``<metadata>``."""
    root = etree.Element(_ELEMENT, nsmap={PREFIX: NAMESPACE})
    root.set("version", record.version)
    root.set("created", record.created)
    user = _child(root, "user", name=record.user, own_key="yes" if record.own_key else "no")
    if record.key:
        user.set("key", record.key)
    _child(root, "image", **record.image)
    _child(root, "instance-id").text = record.instance_id
    _child(root, "host-key").text = record.host_key
    _child(root, "storage", pool=record.pool)
    _child(root, "settings").text = json.dumps(record.settings, sort_keys=True)
    if record.forward is not None:
        _child(root, "forward", host_port=str(record.forward), guest_port="22")
    for one in record.ports:
        _child(
            root,
            "port",
            protocol=one.protocol.value,
            listen=one.listen,
            host_port=str(one.host),
            guest_port=str(one.guest),
        )
    for taken in record.snapshots:
        _child(root, "snapshot", name=taken.name, created=taken.created, state=taken.state)
    if record.golden is not None:
        _child(root, "golden", name=record.golden)
    if record.fast:
        _child(root, "fast", **record.fast)
    if record.fleet is not None:
        fleet = record.fleet
        _child(root, "fleet", name=fleet.name, machine=fleet.machine, source=fleet.source)
    if record.member is not None:
        waiting = "yes" if record.member.waiting else "no"
        member = _child(root, "pool-member", state=record.member.state, waiting=waiting)
        if record.member.taken:
            member.set("taken", "yes")
    if record.creator is not None:
        creator = record.creator
        _child(
            root, "creating", host=creator.host, pid=str(creator.pid), started=str(creator.started)
        )
    return root


def to_bare_text(record: Record) -> str:
    """Return the element without its namespace, which virDomainSetMetadata adds."""
    root = to_element(record)
    for element in root.iter():
        element.tag = etree.QName(element).localname
    etree.cleanup_namespaces(root)
    return etree.tostring(root, encoding="unicode")


def from_domain(document: etree._Element) -> Record | None:
    """Return the record in a domain's XML; None if there is none, or it cannot be read.

    Users may edit metadata: a domain with an invalid record does not count as armvm's.
    """
    root = document.find(f"metadata/{_ELEMENT}")
    return None if root is None else from_element(root)


def from_element(root: etree._Element) -> Record | None:
    """Return the record in armvm's element itself; None if it cannot be read."""
    try:
        return _read(root)
    except (ValueError, AttributeError, TypeError, RecursionError, ConfigError):
        return None


def _read(root: etree._Element) -> Record:
    user, forward, golden, fleet, member, creating = (
        _find(root, name)
        for name in ("user", "forward", "golden", "fleet", "pool-member", "creating")
    )
    settings = json.loads(_text(root, "settings") or "{}")
    if user is None or not isinstance(settings, dict):
        raise ValueError("not an armvm record")
    storage, image, fast = (_find(root, name) for name in ("storage", "image", "fast"))
    return Record(
        version=root.get("version", ""),
        created=root.get("created", ""),
        user=user.get("name", ""),
        own_key=user.get("own-key") == "yes",
        key=user.get("key", ""),
        host_key=_host_key(_text(root, "host-key")),
        instance_id=_text(root, "instance-id"),
        pool="" if storage is None else storage.get("pool", ""),
        image={} if image is None else {str(key): str(value) for key, value in image.items()},
        settings=settings,
        forward=None if forward is None else _port(forward.get("host-port", "")),
        ports=tuple(
            PortForward(
                host=int(one.get("host-port", "")),
                guest=int(one.get("guest-port", "")),
                listen=one.get("listen", ""),
                protocol=Protocol(one.get("protocol", "")),
            )
            for one in root.findall(f"{{{NAMESPACE}}}port")
        ),
        snapshots=tuple(
            Snapshot(
                name=check_snapshot_name(one.get("name", "")),
                created=one.get("created", ""),
                state=one.get("state", ""),
            )
            for one in root.findall(f"{{{NAMESPACE}}}snapshot")
        ),
        golden=None if golden is None else golden.get("name", ""),
        fast={} if fast is None else {str(key): str(value) for key, value in fast.items()},
        fleet=None
        if fleet is None
        else FleetMark(
            name=fleet.get("name", ""),
            machine=fleet.get("machine", ""),
            source=fleet.get("source", ""),
        ),
        member=None
        if member is None
        else PoolMember(
            state=member.get("state", ""),
            waiting=member.get("waiting") == "yes",
            taken=member.get("taken") == "yes",
        ),
        creator=None
        if creating is None
        else Creator(
            host=creating.get("host", ""),
            pid=int(creating.get("pid", "0")),
            started=int(creating.get("started", "0")),
        ),
    )


def _port(text: str) -> int:
    if not 1 <= int(text) <= 65535:
        raise ValueError("not a port")
    return int(text)


def _host_key(text: str) -> str:
    kind, _, blob = text.partition(" ")
    if text and not (kind.isprintable() and base64.b64decode(blob, validate=True)):
        raise ValueError("not a host key")
    return text


def _child(root: etree._Element, tag: str, /, **attributes: str) -> etree._Element:
    element = etree.SubElement(root, f"{{{NAMESPACE}}}{tag}")
    for key, value in attributes.items():
        element.set(key.replace("_", "-"), value)
    return element


def _find(root: etree._Element, name: str) -> etree._Element | None:
    return root.find(f"{{{NAMESPACE}}}{name}")


def _text(root: etree._Element, name: str) -> str:
    element = _find(root, name)
    return "" if element is None else (element.text or "").strip()
