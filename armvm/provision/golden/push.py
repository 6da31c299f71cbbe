"""Push a golden to an OCI registry. Layers that the registry has are not sent again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.progress import Progress
from armvm.base.result import Digest, Doc, MachineName, Size
from armvm.host.domain.golden_domain import find_golden
from armvm.images.oci.reference import parse_target
from armvm.images.oci.registry import Registry
from armvm.provision.golden import signature
from armvm.provision.golden.export import packed, signature_blobs
from armvm.provision.machine.create import Where


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A golden that was pushed."""

    name: Annotated[MachineName, Doc("The golden's name.")]
    reference: Annotated[str, Doc("Its place in the registry.")]
    digest: Annotated[Digest, Doc("Digest of the manifest, which identifies the golden.")]
    signed: Annotated[bool, Doc("Whether it is signed.")]
    sent: Annotated[Size, Doc("Bytes of the blobs that were sent.")]
    present: Annotated[Size, Doc("Bytes of the blobs that the registry had already.")]


def push(
    where: Where,
    name: str,
    text: str,
    *,
    base: bool,
    key: Path | None,
    progress: Progress,
) -> Pushed:
    """Push the golden *name* to the reference *text*; *base* and *key* as in `export`.

    Raises UsageError, NotFound, FetchFailed, Unreachable.
    """
    reference = parse_target(text)
    golden = find_golden(where.connection, name)
    if key is not None:
        signature.check_key(key)
    registry = Registry(reference)
    sent = present = 0
    with packed(where, golden, base=base, progress=progress) as whole:
        signed = [] if key is None else signature_blobs(whole.descriptor, key)
        for blob, source in [*whole.blobs, *signed[1:]]:
            if registry.has(blob):
                present += blob.size
                continue
            label = f"sending {(blob.title or 'the description').removesuffix('.zst')}"
            with progress.task(label, total=blob.size) as task:
                registry.put_blob(blob, source, task.update)
            sent += blob.size
        # The manifest last: whoever sees it can get its blobs.
        registry.put_manifest(whole.manifest, reference.tag)
        if signed:
            own, data = signed[0]
            if isinstance(data, bytes) and not registry.put_manifest(data, own.digest):
                registry.add_referrer(whole.descriptor.digest, own)
        return Pushed(
            name=name,
            reference=str(reference),
            digest=whole.descriptor.digest,
            signed=key is not None,
            sent=sent,
            present=present,
        )
