"""Push images to OCI registries and pull them: one layer, the qcow2 file as it is in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from armvm.base.errors import HostileImage, NotFound, NotVerified
from armvm.base.progress import Progress
from armvm.base.result import Digest, Doc, Size
from armvm.images.cache import importing
from armvm.images.cache.entry import matches
from armvm.images.cache.named import check_free
from armvm.images.cache.store import Cache
from armvm.images.model import Image, Verified
from armvm.images.obtain import LOCAL
from armvm.images.oci import blobs
from armvm.images.oci.document import (
    EMPTY,
    EMPTY_DATA,
    MANIFEST,
    Descriptor,
    Manifest,
    describe,
    dump_manifest,
    load_manifest,
)
from armvm.images.oci.reference import PREFIX, parse, parse_target
from armvm.images.oci.registry import Registry
from armvm.images.trust.provenance import satisfies
from armvm.provision.image.find import locate, obtain
from armvm.provision.image.local import own_name
from armvm.settings.names import shown
from armvm.settings.verify import Verify

ARTIFACT = "application/vnd.armvm.image.v1"
DISK = "application/vnd.armvm.disk.qcow2"
_TITLE = "disk.qcow2"


@dataclass(frozen=True, kw_only=True)
class PushedImage:
    """An image that was pushed."""

    reference: Annotated[str, Doc("The image's reference.")]
    place: Annotated[str, Doc("Its place in the registry.")]
    digest: Annotated[Digest, Doc("Digest of the manifest.")]
    content: Annotated[Digest, Doc("Digest of the image's file.")]
    size: Size
    sent: Annotated[bool, Doc("false: the registry had the file already.")]


def in_registry(reference: str) -> bool:
    """Return whether a reference is a place in a registry."""
    return reference.startswith(PREFIX)


def push(reference: str, place: str, progress: Progress) -> PushedImage:
    """Push a cached image to a registry; if several match *reference*, the newest.

    Raises UsageError for an invalid place, NotFound, FetchFailed, Unreachable.
    """
    where = parse_target(place)
    cache = Cache.default()
    found = [one for one in cache.entries() if matches(one, reference) and not one.problem]
    entry = cache.sound(found[0]) if found else None
    if entry is None:
        raise NotFound(
            f"image {shown(reference)} not found, or its file cannot be used",
            hint="download it: armvm image pull; list the images: armvm image list",
        )
    registry = Registry(where)
    layer = Descriptor(media_type=DISK, digest=entry.content, size=entry.size, title=_TITLE)
    empty = describe(EMPTY_DATA, EMPTY)
    manifest = dump_manifest(Manifest(artifact_type=ARTIFACT, config=empty, layers=(layer,)))
    sent = not registry.has(layer)
    if sent:
        with progress.task(f"sending {entry.reference}", total=layer.size) as task:
            registry.put_blob(layer, entry.path, task.update)
    if not registry.has(empty):
        registry.put_blob(empty, EMPTY_DATA, lambda _done: None)
    registry.put_manifest(manifest, where.tag)
    return PushedImage(
        reference=entry.reference,
        place=str(where),
        digest=describe(manifest, MANIFEST).digest,
        content=entry.content,
        size=entry.size,
        sent=sent,
    )


def pull(
    place: str, name: str | None, *, force: bool, policy: Verify | None, progress: Progress
) -> Image:
    """Pull an image from a registry into the cache as ``local:NAME``, and return it.

    *name* is by default the last part of the place. The image is treated as hostile, as an imported
    file is. It counts as verified only if *place* has the manifest's digest. Raises UsageError,
    NotVerified if *policy* requires more, Conflict if another image has the name and *force* is
    false, FetchFailed, Unreachable, HostileImage and the other errors of `import_file`.
    """
    where = parse(place)
    # The digest that the user gave covers the image's.
    verified = Verified.NOTHING if where.digest is None else Verified.GIVEN
    if policy is not None and not satisfies(verified, policy):
        raise NotVerified(
            f"{where} has no digest, but verify = {policy.value} is required",
            hint=f"give its digest: {PREFIX}{where.host}/{where.name}@sha256:HEX, or require less "
            "with --verify",
        )
    name = own_name(name or where.name.rpartition("/")[2])
    registry = Registry(where)
    layer = _layer(registry)
    cache = Cache.default()
    known = [one for one in cache.entries() if one.name == name and one.digest == layer.digest]
    entry = cache.sound(known[0]) if known else None
    if entry is None:
        if not force and not known:
            check_free(cache, name)
        source = blobs.Blobs(registry, progress)
        importing.import_file(
            source.path(layer),
            name,
            cache=cache,
            progress=progress,
            digest=None if where.digest is None else layer.digest,
            replace=force or bool(known),
        )
        source.forget(layer)
    elif entry.verified is Verified.NOTHING and verified is Verified.GIVEN:
        cache.record(entry, verified)
    blobs.prune()
    return obtain(locate(f"{LOCAL}{name}", progress), progress)


def _layer(registry: Registry) -> Descriptor:
    found, data = registry.manifest()
    manifest = load_manifest(data, registry.name)
    layers = manifest.layers
    if (
        found.media_type != MANIFEST
        or manifest.artifact_type != ARTIFACT
        or len(layers) != 1
        or layers[0].media_type != DISK
    ):
        raise HostileImage(
            f"{registry.name} cannot be used: it is not an image of armvm",
            hint="goldens are pulled with armvm golden pull",
        )
    return layers[0]
