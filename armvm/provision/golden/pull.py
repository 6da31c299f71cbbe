"""Pull a golden from an OCI registry. What was downloaded before is not downloaded again."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from armvm.base.errors import DigestMismatch, HostileImage, NotFound
from armvm.base.progress import Progress
from armvm.host.domain.golden_domain import Golden, goldens
from armvm.images.cache.files import held
from armvm.images.digest import is_digest
from armvm.images.oci import blobs
from armvm.images.oci.document import MANIFEST, Descriptor, load_manifest
from armvm.images.oci.reference import parse
from armvm.images.oci.registry import Refused, Registry
from armvm.provision.golden import portable, signature
from armvm.provision.golden.choose import settings_for
from armvm.provision.golden.import_ import DoesNotFit, Layers, import_golden
from armvm.provision.machine.create import Where
from armvm.settings.networks import USER_NETWORK

#: The name prefix of goldens that `armvm run --from oci://…` pulls.
_OURS = "oci-"


def pull(
    where: Where,
    text: str,
    *,
    name: str | None,
    trusted: Path | None,
    progress: Progress,
) -> Golden:
    """Pull the golden at the reference *text*; *name* and *trusted* as in `import_archive`.

    Raises UsageError, FetchFailed, Unreachable, and the errors of importing.
    """
    registry = Registry(parse(text))
    found, data = registry.manifest()
    return _pull(where, registry, found, data, name, trusted, progress)


def ensure(where: Where, text: str, progress: Progress, *, fetch: bool = True) -> Golden:
    """Return the golden at a reference (``oci://…``); pull it unless this host has it.

    A tag is looked up each time; a reference with a digest needs no registry if the golden exists.
    Raises NotFound instead of pulling if *fetch* is false.
    """
    reference = parse(text)
    if reference.digest is not None and (here := _pulled(where, reference.digest)):
        return here
    registry = Registry(reference)
    found, data = registry.manifest()
    if here := _pulled(where, found.digest):
        return here
    if not fetch:
        raise NotFound(
            f"the golden at {reference} is not on this host",
            hint=f"pull it first: armvm golden pull {reference}",
        )
    name = _OURS + found.digest.removeprefix("sha256:")[:12]
    wait = f"waiting for another armvm process that is pulling {reference}"
    with held(blobs.directory() / f".{name}.lock", lambda: progress.say(wait)):
        if here := _pulled(where, found.digest):
            return here
        return _pull(where, registry, found, data, name, None, progress)


def settings_instead(error: DoesNotFit) -> dict[str, Any]:
    """Return the settings for a machine that boots, because its golden does not fit this host.

    Raises *error* if no image can be booted instead.
    """
    wanted = error.wanted
    if not is_digest(wanted.digest):  # made from a machine
        raise error
    return settings_for(
        wanted.shape,
        wanted.settings,
        image=wanted.image.get("reference"),
        network=USER_NETWORK if wanted.network == USER_NETWORK else None,
    )


def _pulled(where: Where, digest: str) -> Golden | None:
    for golden in goldens(where.connection):
        if golden.mark.imported == digest:
            return golden
    return None


def _pull(
    where: Where,
    registry: Registry,
    found: Descriptor,
    data: bytes,
    name: str | None,
    trusted: Path | None,
    progress: Progress,
) -> Golden:
    manifest = load_manifest(data, registry.name)
    if found.media_type != MANIFEST or manifest.artifact_type != portable.ARTIFACT:
        raise HostileImage(f"{registry.name} cannot be used: it is not a golden of armvm")
    source = blobs.Blobs(registry, progress)
    signer = None
    if trusted is not None:
        signer = signature.verify(
            found.digest, _signatures(registry, source, found.digest), trusted
        )
    golden = import_golden(
        where, source, data, digest=found.digest, name=name, signer=signer, progress=progress
    )
    blobs.prune()
    return golden


def _signatures(registry: Registry, source: Layers, digest: str) -> list[bytes]:
    """Return the signatures of a manifest. Anybody may have added some that cannot be read."""
    found = []
    for one in registry.referrers(digest, signature.ARTIFACT):
        with contextlib.suppress(HostileImage, DigestMismatch, Refused):
            manifest = load_manifest(registry.manifest(one.digest)[1], registry.name)
            if manifest.artifact_type != signature.ARTIFACT or len(manifest.layers) != 1:
                continue
            if manifest.layers[0].size <= signature.MAX_SIGNATURE:
                found.append(source.document(manifest.layers[0]))
    return found
