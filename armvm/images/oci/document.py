"""The JSON documents of an OCI artifact: descriptors, manifests, the index of a layout.

Source: the OCI image specification 1.1, descriptor.md, manifest.md and image-layout.md. Documents
come from a file or a registry, so every field that armvm uses is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from armvm.base.errors import DigestMismatch, HostileImage
from armvm.images.fetch import json_document

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
#: The media type of a configuration that has no content, and its content.
EMPTY, EMPTY_DATA = "application/vnd.oci.empty.v1+json", b"{}"
TITLE = "org.opencontainers.image.title"

#: Maximum size of a document in bytes (registries limit a manifest to 4 MiB).
MAX_DOCUMENT = 4 << 20
#: Maximum number of layers, and of manifests in an index.
MAX_ENTRIES = 32
#: Maximum number of referrers of a type to read.
MAX_REFERRERS = 256
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9!#$&^_.+-]{1,127}")


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A blob's type, digest (``sha256:HEX``) and size in bytes."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    title: str | None = None

    @property
    def path(self) -> str:
        """The blob's path in a layout."""
        return f"blobs/sha256/{self.digest.removeprefix('sha256:')}"

    def document(self) -> dict[str, Any]:
        """Return the descriptor as JSON."""
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.artifact_type is not None:
            found["artifactType"] = self.artifact_type
        if self.title is not None:
            found["annotations"] = {TITLE: self.title}
        return found


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An artifact: its type, its configuration and its layers; *subject* is what it is about."""

    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


def describe(data: bytes, media_type: str, artifact_type: str | None = None) -> Descriptor:
    """Return the descriptor of a blob."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(
        media_type=media_type, digest=digest, size=len(data), artifact_type=artifact_type
    )


def dump(document: object) -> bytes:
    """Return a document's bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def dump_manifest(manifest: Manifest) -> bytes:
    """Return a manifest's bytes."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": manifest.artifact_type,
        "config": manifest.config.document(),
        "layers": [layer.document() for layer in manifest.layers],
    }
    if manifest.subject is not None:
        document["subject"] = manifest.subject.document()
    if manifest.annotations:
        document["annotations"] = dict(manifest.annotations)
    return dump(document)


def dump_index(manifests: Sequence[Descriptor]) -> bytes:
    """Return the bytes of a layout's index."""
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [one.document() for one in manifests],
        }
    )


def load(data: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object. Raises HostileImage; *name* is for messages."""
    if len(data) > MAX_DOCUMENT:
        raise _broken(name, "it is too large")
    try:
        document = json_document.load(data)
    except ValueError as error:
        raise _broken(name, "it is not JSON") from error
    if not isinstance(document, dict):
        raise _broken(name, "it is not a JSON object")
    return document


def load_manifest(data: bytes, name: str) -> Manifest:
    """Return a manifest. Raises HostileImage."""
    document = load(data, name)
    if document.get("schemaVersion") != 2 or document.get("mediaType", MANIFEST) != MANIFEST:
        raise _broken(name, "it is not an OCI image manifest")
    artifact = document.get("artifactType", "")
    subject = document.get("subject")
    return Manifest(
        artifact_type=artifact if isinstance(artifact, str) else "",
        config=_descriptor(document.get("config"), name),
        layers=_descriptors(document.get("layers"), name),
        subject=None if subject is None else _descriptor(subject, name),
    )


def load_index(data: bytes, name: str) -> tuple[Descriptor, ...]:
    """Return the manifests in an index. Raises HostileImage."""
    document = load(data, name)
    if document.get("schemaVersion") != 2:
        raise _broken(name, "it is not an OCI index")
    return _descriptors(document.get("manifests"), name)


def load_entries(data: bytes, name: str) -> list[dict[str, Any]]:
    """Return the unchecked entries of an index of referrers, which anybody may have added.

    Raises HostileImage.
    """
    found = load(data, name).get("manifests")
    if not isinstance(found, list):
        raise _broken(name, "its list of parts is invalid")
    return [one for one in found if isinstance(one, dict)]


def load_referrers(data: bytes, artifact_type: str, name: str) -> tuple[Descriptor, ...]:
    """Return the referrers of a type in an index, without those that are invalid or too many.

    Raises HostileImage.
    """
    found = []
    for one in load_entries(data, name):
        if one.get("artifactType") == artifact_type:
            with contextlib.suppress(HostileImage):
                found.append(_descriptor(one, name))
    return tuple(found[:MAX_REFERRERS])


def check_blob(data: bytes, blob: Descriptor, name: str) -> bytes:
    """Return *data* if it is the blob. Raises DigestMismatch."""
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if len(data) != blob.size or found != blob.digest:
        raise mismatch(blob, found, name)
    return data


def mismatch(blob: Descriptor, found: str, name: str) -> DigestMismatch:
    """Return the error for a blob whose bytes do not match its digest."""
    return DigestMismatch(
        f"{name} is damaged: {blob.title or 'a part'} does not match its digest",
        detail=f"expected {blob.digest}\nfound    {found}",
        hint="nothing was kept; copy or download it again",
    )


def _descriptors(value: object, name: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise _broken(name, "its list of parts is invalid")
    return tuple(_descriptor(one, name) for one in value)


def _descriptor(value: object, name: str) -> Descriptor:
    if not isinstance(value, dict):
        raise _broken(name, "a descriptor is invalid")
    kind, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    artifact, notes = value.get("artifactType"), value.get("annotations")
    title = notes.get(TITLE) if isinstance(notes, dict) else None
    if (
        not isinstance(kind, str)
        or not _MEDIA_TYPE.fullmatch(kind)
        or not isinstance(digest, str)
        or not _DIGEST.fullmatch(digest)
        or type(size) is not int
        or not 0 <= size < 1 << 62
    ):
        raise _broken(name, "a descriptor is invalid")
    printable = isinstance(title, str) and title.isprintable() and len(title) < 100
    return Descriptor(
        media_type=kind,
        digest=digest,
        size=size,
        artifact_type=artifact if isinstance(artifact, str) else None,
        title=title if printable else None,
    )


def _broken(name: str, why: str) -> HostileImage:
    return HostileImage(f"{name} cannot be used: {why}", hint="export or download it again")
