"""A golden's description in its file: everything that another host needs to define it.

The file has no XML and no paths. It records settings, and the importing host builds the definition
from its own template with them (see import_.py). ``hardware`` lists the devices that the saved
state belongs to, so that both definitions can be compared.

The description is untrusted: `load` checks the type and range of each value that armvm uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from armvm.base.errors import ConfigError, HostileImage
from armvm.images.digest import is_digest
from armvm.images.fetch.decompress import RATIO, SPARED
from armvm.images.oci import document
from armvm.images.oci.document import Descriptor
from armvm.settings.names import check_new_name
from armvm.settings.size import MAX_DISK
from armvm.settings.system import OperatingSystem
from armvm.settings.table import SETTINGS

ARTIFACT = "application/vnd.armvm.golden.v1"
CONFIG = "application/vnd.armvm.golden.config.v1+json"
FORMAT = 1
#: The parts of a golden, in the order in which they are written.
BASE, OVERLAY, SEED, STATE, MEMORY = "base", "overlay", "seed", "state", "memory"
PARTS = (BASE, OVERLAY, SEED, STATE, MEMORY)
#: Maximum sizes of parts in bytes; a memory's is a save image's overhead beyond the guest's memory.
_MOST = {BASE: MAX_DISK, OVERLAY: MAX_DISK, SEED: 64 << 20, STATE: 128 << 20}
_OVERHEAD = 1 << 30

_MAC = re.compile(r"52:54:00(?::[0-9a-f]{2}){3}")
_FROM_MACHINE = re.compile(r"machine:[0-9a-f-]{36} [0-9TZ:-]{20}")
_IMAGE_KEYS = frozenset({"reference", "serial", "system", "size", "packages"})


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part's size in bytes, and of it the bytes that are not holes.

    ``content`` is the sha256 of an unpacked base.
    """

    size: int
    allocated: int
    content: str | None = None


@dataclass(frozen=True, kw_only=True)
class Portable:
    """A golden without what belongs to its host. ``network`` is ``user`` or ``libvirt``."""

    name: str
    created: str
    route: str
    state_digest: str
    user: str
    mac: str
    network: str
    firmware: str  #: the file name, without its directory
    host_key: str
    instance_id: str
    image: dict[str, str]
    settings: dict[str, Any]
    shape: dict[str, Any]
    ground: dict[str, str]
    hardware: list[str]
    parts: dict[str, Part]

    @property
    def digest(self) -> str:
        """The image's digest, or the machine whose disk was copied."""
        return str(self.shape["image"])

    @property
    def system(self) -> OperatingSystem | None:
        """The guest's distribution, if it is known."""
        distro, _, version = self.image.get("system", "").partition(" ")
        return OperatingSystem(distro=distro, version=version) if distro else None


def media_type(part: str) -> str:
    """Return the media type of a packed part."""
    return f"application/vnd.armvm.golden.{part}.v1+zstd"


def dump(portable: Portable) -> bytes:
    """Return the description's bytes."""
    found: dict[str, Any] = {one.name: getattr(portable, one.name) for one in fields(portable)}
    parts = {
        name: {"size": part.size, "allocated": part.allocated}
        | ({} if part.content is None else {"content": part.content})
        for name, part in portable.parts.items()
    }
    return document.dump({**found, "format": FORMAT, "parts": parts})


def load(data: bytes, name: str) -> Portable:
    """Return a description. Raises HostileImage; *name* is for messages."""
    read = _Reader(document.load(data, name), name)
    if read.values.get("format") != FORMAT:
        raise read.refuse("it was written by a newer armvm: update armvm")
    shape = _shape(read)
    digest = shape.get("image")
    if not isinstance(digest, str) or not (is_digest(digest) or _FROM_MACHINE.fullmatch(digest)):
        raise read.refuse("its image's digest is invalid")
    memory = shape.get("memory_mib")
    if type(memory) is not int or not 0 < memory < 1 << 30:
        raise read.refuse("its amount of memory is invalid")
    most = {**_MOST, MEMORY: (memory << 20) + _OVERHEAD}
    hardware = read.values.get("hardware")
    if not isinstance(hardware, list) or not all(
        isinstance(one, str) and one.isprintable() for one in hardware
    ):
        raise read.refuse("its list of devices is invalid")
    parts = {part: read.part(part, most[part]) for part in PARTS if part in read.table("parts")}
    if not {OVERLAY, SEED, MEMORY} <= parts.keys():
        raise read.refuse("a part is missing")
    return Portable(
        name=read.text("name"),
        created=read.text("created", r"[0-9TZ:-]{20}"),
        route=read.text("route", r"cow|save-image"),
        state_digest=read.text("state_digest", r"sha256:[0-9a-f]{64}"),
        user=read.text("user"),
        mac=read.text("mac", _MAC.pattern),
        network=read.text("network", r"user|libvirt"),
        firmware=read.text("firmware", r"[A-Za-z0-9._-]{0,100}"),
        host_key=read.text("host_key"),
        instance_id=read.text("instance_id", r"iid-[0-9a-f-]{36}"),
        image={key: one for key, one in read.texts("image").items() if key in _IMAGE_KEYS},
        settings=_settings(read),
        shape=shape,
        ground=read.texts("ground"),
        hardware=hardware,
        parts=parts,
    )


def check_name(portable: Portable, name: str) -> str:
    """Return the golden's own name. Raises HostileImage if no machine can have it."""
    try:
        return check_new_name(portable.name)
    except ConfigError as error:
        raise HostileImage(f"{name} cannot be used: its name is invalid") from error


def layers_by_part(
    layers: tuple[Descriptor, ...], portable: Portable, name: str
) -> dict[str, Descriptor]:
    """Return the layers of a manifest by part. Raises HostileImage if they are not its parts."""
    known = {media_type(part): part for part in PARTS}
    found: dict[str, Descriptor] = {}
    for layer in layers:
        part = known.get(layer.media_type)
        if part is None or part in found or part not in portable.parts:
            raise HostileImage(f"{name} cannot be used: it has a layer that is not a golden's part")
        found[part] = layer
    missing = portable.parts.keys() - found.keys() - {BASE}
    if missing:
        raise HostileImage(f"{name} cannot be used: a part is missing: {', '.join(missing)}")
    for part in found.keys() & {BASE, OVERLAY}:
        if portable.parts[part].size > max(SPARED, found[part].size * RATIO):
            raise HostileImage(
                f"{name} cannot be used: its {part} unpacks to more than {RATIO} times its size",
                hint="no disk compresses that well; do not trust its source",
            )
    return found


def _shape(read: _Reader) -> dict[str, Any]:
    """Return the shape, with the types of the settings in it checked."""
    values = read.table("shape")
    for one in SETTINGS.values():
        inside = one.shape is not None and one.field in values
        if inside and type(values[one.field]) is not type(one.default):
            raise read.refuse(f"its setting {one.key} is invalid")
    _Reader(values, read.name).text("user")
    return values


def _settings(read: _Reader) -> dict[str, Any]:
    """Return the settings of the machine that became the golden, each of its usual type."""
    values = read.table("settings")
    found: dict[str, Any] = {}
    for one in SETTINGS.values():
        if not one.kept or one.field not in values:
            continue
        value = values[one.field]
        usual = str if one.default is None else type(one.default)
        if value is None and one.default is None:
            continue
        if type(value) is not usual:
            raise read.refuse(f"its setting {one.key} is invalid")
        found[one.field] = value
    preset = values.get("preset", "default")
    if not isinstance(preset, str) or not re.fullmatch(r"[a-z0-9-]{1,40}", preset):
        raise read.refuse("its preset is invalid")
    return {**found, "preset": preset}


class _Reader:
    """Reads the values of a JSON object, with their types checked."""

    def __init__(self, values: dict[str, Any], name: str) -> None:
        self.values, self.name = values, name

    def refuse(self, why: str) -> HostileImage:
        return HostileImage(
            f"{self.name} cannot be used: {why}", hint="export or download it again"
        )

    def text(self, key: str, pattern: str | None = None) -> str:
        value = self.values.get(key)
        if (
            not isinstance(value, str)
            or not value.isprintable()
            or len(value) > 4096
            or (pattern is not None and not re.fullmatch(pattern, value))
        ):
            raise self.refuse(f"its {key} is invalid")
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.refuse(f"its {key} is invalid")
        return value

    def texts(self, key: str) -> dict[str, str]:
        inner = _Reader(self.table(key), self.name)
        return {one: inner.text(one) for one in inner.values if one.isprintable()}

    def part(self, name: str, most: int) -> Part:
        value = self.table("parts")[name]
        if not isinstance(value, Mapping):
            raise self.refuse(f"its {name} is invalid")
        size, allocated, content = (value.get(key) for key in ("size", "allocated", "content"))
        if type(size) is not int or type(allocated) is not int or not 0 < size <= most:
            raise self.refuse(f"the size of its {name} is out of range")
        if not 0 <= allocated <= size + (1 << 20):
            raise self.refuse(f"the size of its {name} is out of range")
        if content is not None and not (isinstance(content, str) and is_digest(content)):
            raise self.refuse(f"the digest of its {name} is invalid")
        return Part(size=size, allocated=allocated, content=content)
