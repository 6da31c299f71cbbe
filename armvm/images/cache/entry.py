"""A cache entry: an image file and the JSON sidecar that describes it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.images.digest import is_digest
from armvm.images.model import Verified
from armvm.images.reference import parse_sha256
from armvm.settings.system import OperatingSystem

#: The sidecar's format; sidecars with another number are not read.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image in the cache.

    ``digest`` is of the published image, ``content`` of the file in the cache (they differ if a
    raw image was converted or a compressed one unpacked), both ``sha256:`` and 64 hex digits.
    ``published`` is the published sha512, if there was one. ``size`` is the file's, in bytes.
    ``verified`` and ``signer`` record the strongest verification of the digest so far. ``stored``
    and ``used`` are in seconds since 1970. ``name`` and ``recipe`` (the recipe's digest, hex)
    belong to images built here; for an imported image, ``recipe`` is its own digest. ``problem``
    says why an entry cannot be used; the other fields are then not set.
    """

    path: Path
    reference: str = ""
    location: str = ""
    digest: str = ""
    content: str = ""
    published: str | None = None
    size: int = 0
    mtime_ns: int = 0
    system: OperatingSystem | None = None
    serial: str | None = None
    verified: Verified = Verified.NOTHING
    signer: str | None = None
    stored: float = 0.0
    used: float = 0.0
    name: str | None = None
    recipe: str | None = None
    problem: str | None = None

    @property
    def sidecar(self) -> Path:
        """The JSON file beside the image."""
        return sidecar_of(self.path)


def matches(entry: Entry, text: str) -> bool:
    """Return whether *text* names an entry: its reference (with or without the serial), file name,
    or the first 8 or more hex digits of its digest.
    """
    names = {entry.reference, entry.path.name, entry.path.stem, str(entry.path), entry.digest}
    names.add(entry.published or entry.digest)
    if entry.serial:
        names.add(f"{entry.reference.partition('/')[0]}/{entry.serial}")
    digits = text.removeprefix("sha256:").lower()
    return bool(text) and (
        text in names
        or (len(digits) >= 8 and entry.digest.removeprefix("sha256:").startswith(digits))
    )


def sidecar_of(image: Path) -> Path:
    """Return the path of the JSON file that describes an image in the cache."""
    return image.with_name(f"{image.name.removesuffix('.qcow2')}.json")


def dump(entry: Entry) -> bytes:
    """Return an entry as the bytes of its sidecar."""
    system = entry.system
    return json.dumps(
        {
            "format": FORMAT,
            "reference": entry.reference,
            "location": entry.location,
            "digest": entry.digest,
            "content": entry.content,
            "published": entry.published,
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "system": system and {"distro": system.distro, "version": system.version},
            "serial": entry.serial,
            "verified": entry.verified.value,
            "signer": entry.signer,
            "stored": entry.stored,
            "name": entry.name,
            "recipe": entry.recipe,
        },
        indent=1,
    ).encode()


def load(image: Path) -> Entry:
    """Read the entry of an image. Any error is returned as its ``problem``."""
    sidecar = sidecar_of(image)
    try:
        used = sidecar.stat().st_mtime
        data = json.loads(sidecar.read_bytes())
        entry = _decode(image, data, used)
        if not image.is_file():
            return Entry(path=image, problem="the image file is missing")
    except FileNotFoundError:
        return Entry(path=image, problem="its .json file is missing")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return Entry(path=image, problem=f"its .json file cannot be used: {error!s:.120}")
    return entry


def _decode(image: Path, data: Any, used: float) -> Entry:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("unsupported format")
    system = data["system"]
    return Entry(
        path=image,
        reference=_text(data["reference"]),
        location=_text(data["location"]),
        digest=_digest(data["digest"]),
        content=_digest(data["content"]),
        published=_published(data.get("published")),
        size=_number(data["size"]),
        mtime_ns=_number(data["mtime_ns"]),
        system=None
        if system is None
        else OperatingSystem(distro=_text(system["distro"]), version=_text(system["version"])),
        serial=_optional(data["serial"]),
        verified=Verified(data["verified"]),
        signer=_optional(data.get("signer")),
        stored=_time(data["stored"]),
        used=used,
        name=_optional(data["name"]),
        recipe=_optional(data["recipe"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a string")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("expected a number")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("expected a time")
    return float(value)


def _published(value: Any) -> str | None:
    # Optional: the sidecars of armvm 0.1 do not have it.
    if value is not None and not is_digest(_text(value)):
        raise ValueError("expected a digest")
    return _optional(value)


def _digest(value: Any) -> str:
    digest = parse_sha256(_text(value).removeprefix("sha256:"))
    if digest is None:
        raise ValueError("expected a sha256 digest")
    return digest
