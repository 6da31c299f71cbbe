"""Export a golden as one file: an OCI image layout in a tar archive, with packed layers.

The parts are packed into temporary files, because the documents, which come first, contain their
digests. All of a golden's parts are read-only, so its clones may run meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

from armvm.base.errors import Conflict, NotFound, PermissionDenied, StorageError
from armvm.base.progress import Progress, size_text
from armvm.base.result import Digest, Doc, MachineName, Size
from armvm.host.connection import Connection, Pool, Volume
from armvm.host.domain.golden_domain import Golden, find_golden
from armvm.host.domain.hardware import hardware
from armvm.host.memory import route as memory
from armvm.host.storage import pools, sparse, volumes
from armvm.host.storage.base_image import backing_path
from armvm.images.cache.files import cache_directory, storage_errors
from armvm.images.check.backing import cluster_size, set_backing
from armvm.images.oci import archive
from armvm.images.oci.document import (
    EMPTY,
    EMPTY_DATA,
    MANIFEST,
    Descriptor,
    Manifest,
    describe,
    dump_index,
    dump_manifest,
)
from armvm.images.oci.packed import Packer
from armvm.provision.golden import portable, signature
from armvm.provision.golden.fit import ground_in, is_comparable, loader_in
from armvm.provision.golden.portable import BASE, MEMORY, OVERLAY, SEED, STATE, Part, Portable
from armvm.provision.machine.create import Where
from armvm.settings.networks import USER_NETWORK

#: Bytes of a disk's start that contain its header: the largest cluster.
_HEADER = 2 << 20


@dataclass(frozen=True, kw_only=True)
class PackedPart:
    """A part of an exported golden."""

    size: Annotated[Size, Doc("Its size in bytes, with holes.")]
    allocated: Annotated[Size, Doc("Its bytes without holes.")]
    packed: Annotated[Size, Doc("Its size in the file, in bytes.")]
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A golden that was exported."""

    name: Annotated[MachineName, Doc("The golden's name.")]
    file: Annotated[Path | None, Doc("The file; null: standard output.")]
    size: Annotated[Size, Doc("Size of the file in bytes.")]
    digest: Annotated[Digest, Doc("Digest of the manifest, which identifies the golden.")]
    signed: Annotated[bool, Doc("Whether it is signed.")]
    parts: Annotated[dict[str, PackedPart], Doc("The parts: base, overlay, seed, state, memory.")]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A golden's layers as temporary files, and its documents."""

    manifest: bytes
    blobs: list[tuple[Descriptor, bytes | Path]]  #: in the order in which they are written
    layers: dict[str, Descriptor]
    portable: Portable

    @property
    def descriptor(self) -> Descriptor:
        """The manifest's descriptor."""
        return describe(self.manifest, MANIFEST, portable.ARTIFACT)


def export(
    where: Where,
    name: str,
    target: Path | BinaryIO,
    *,
    base: bool,
    key: Path | None,
    force: bool,
    progress: Progress,
) -> Exported:
    """Write the golden *name* to a file or a stream.

    Without *base*, the importing host needs the image that the golden was made from. *key* is the
    ssh key that signs it. Raises NotFound, Conflict if the file exists and *force* is false,
    StorageError, PermissionDenied, CommandFailed if it cannot be signed.
    """
    golden = find_golden(where.connection, name)
    if isinstance(target, Path):
        _check_target(target, force)
    if key is not None:
        signature.check_key(key)
    with packed(where, golden, base=base, progress=progress) as whole:
        manifests, blobs = [whole.descriptor], [(whole.descriptor, whole.manifest), *whole.blobs]
        if key is not None:
            signed = signature_blobs(whole.descriptor, key)
            manifests.append(signed[0][0])
            blobs[1:1] = signed
        index = dump_index(manifests)
        total = sum(blob.size for blob, _ in blobs)
        with progress.task(f"writing {name}", total=total) as task:
            if isinstance(target, Path):
                with _written(target, force) as (file, partial):
                    archive.write(file, index, blobs, task.update)
                    size = partial.stat().st_size
            else:
                counted = _Counted(target)
                archive.write(counted, index, blobs, task.update)
                size = counted.size
    return Exported(
        name=name,
        file=target if isinstance(target, Path) else None,
        size=size,
        digest=whole.descriptor.digest,
        signed=key is not None,
        parts={
            part: PackedPart(
                size=whole.portable.parts[part].size,
                allocated=whole.portable.parts[part].allocated,
                packed=layer.size,
                digest=layer.digest,
            )
            for part, layer in whole.layers.items()
        },
    )


@contextmanager
def packed(where: Where, golden: Golden, *, base: bool, progress: Progress) -> Iterator[Packed]:
    """Pack a golden into temporary files, which exist during the block."""
    pool = pools.need_pool(where.connection, golden.mark.record.pool, golden.name)
    if not is_comparable(golden):
        raise Conflict(
            f"golden {golden.name} cannot be exported: it was made by an older armvm, and its "
            "firmware changed since",
            hint=f"delete it and create it again: armvm golden delete {golden.name}",
        )
    if len(golden.cards) > 1:
        raise Conflict(
            f"golden {golden.name} cannot be exported: it has {len(golden.cards)} networks",
            hint="create a golden with one network for other hosts",
        )
    sources = _sources(pool, golden)
    needed = sum(volumes.allocation(one) for one in sources.values())
    with _directory(needed) as directory:
        layers: dict[str, Descriptor] = {}
        parts: dict[str, Part] = {}
        for part, volume in sources.items():
            if part == BASE and not base:
                size = volumes.physical_size(volume)
                parts[part] = Part(size=size, allocated=min(size, volumes.allocation(volume)))
                continue
            layers[part], parts[part] = _pack(
                where.connection, golden, part, volume, directory, progress
            )
        described = _portable(golden, parts)
        config = portable.dump(described)
        descriptor = describe(config, portable.CONFIG)
        manifest = dump_manifest(
            Manifest(
                artifact_type=portable.ARTIFACT, config=descriptor, layers=tuple(layers.values())
            )
        )
        files = [(layer, directory / part) for part, layer in layers.items()]
        yield Packed(
            manifest=manifest,
            blobs=[(descriptor, config), *files],
            layers=layers,
            portable=described,
        )


def signature_blobs(signed: Descriptor, key: Path) -> list[tuple[Descriptor, bytes | Path]]:
    """Return the manifest and blobs of a signature, which refers to what it signs.

    Registries list it as a referrer (OCI distribution specification 1.1).
    """
    text = signature.sign(signed.digest, key)
    layer = describe(text, signature.MEDIA_TYPE)
    empty = describe(EMPTY_DATA, EMPTY)
    manifest = dump_manifest(
        Manifest(artifact_type=signature.ARTIFACT, config=empty, layers=(layer,), subject=signed)
    )
    own = describe(manifest, MANIFEST, signature.ARTIFACT)
    return [(own, manifest), (empty, EMPTY_DATA), (layer, text)]


def _sources(pool: Pool, golden: Golden) -> dict[str, Volume]:
    names = volumes.volume_names(golden.name)
    overlay = volumes.need_volume(pool, names["overlay"])
    below = backing_path(overlay)
    found = {}
    if below is not None:
        found[BASE] = volumes.need_volume(pool, PurePosixPath(below).name)
    found |= {OVERLAY: overlay, SEED: volumes.need_volume(pool, names["seed"])}
    for part in (STATE, MEMORY):
        if part in memory.route(golden.mark.route).VOLUMES:
            found[part] = volumes.need_volume(pool, names[part])
    return found


def _pack(
    connection: Connection,
    golden: Golden,
    part: str,
    volume: Volume,
    directory: Path,
    progress: Progress,
) -> tuple[Descriptor, Part]:
    """Pack a volume into the file *part*."""
    size = volumes.physical_size(volume)
    label = f"packing the {part} of {golden.name}"
    content = hashlib.sha256() if part == BASE else None
    data_size = 0
    path = directory / part
    with progress.task(label, total=size) as task, storage_errors(path), path.open("wb") as file:
        packer = Packer(file)
        head = _Head(packer.feed) if part == OVERLAY else None

        def on_data(data: bytes) -> None:
            nonlocal data_size
            data_size += len(data)
            if content is not None:
                content.update(data)
            (packer.feed if head is None else head.feed)(data)
            task.update(packer.size)

        def on_hole(length: int) -> None:
            if content is not None:
                for start in range(0, length, 1 << 20):
                    content.update(bytes(min(1 << 20, length - start)))
            if head is not None and head.waits:  # a hole in the first cluster
                first = min(length, head.waits)
                head.feed(bytes(first))
                length -= first
            packer.skip(length)
            task.update(packer.size)

        sparse.download(connection, volume, on_data, on_hole)
        if head is not None:
            head.finish()
        layer = packer.finish(portable.media_type(part), f"{part}.zst")
    if packer.size != size:
        raise StorageError(f"the volume {volume.name()} changed while armvm was reading it")
    digest = None if content is None else f"sha256:{content.hexdigest()}"
    return layer, Part(size=size, allocated=min(size, data_size), content=digest)


class _Head:
    """Takes the name of the backing file out of a disk's first cluster."""

    def __init__(self, feed: Callable[[bytes], object]) -> None:
        self._feed, self._held, self._done = feed, b"", False

    @property
    def waits(self) -> int:
        """The bytes that are missing in the first cluster."""
        return 0 if self._done else _HEADER - len(self._held)

    def feed(self, data: bytes) -> None:
        if self._done:
            self._feed(data)
            return
        self._held += data
        if len(self._held) >= _HEADER:
            self.finish()

    def finish(self) -> None:
        if not self._done:
            self._done = True
            size = cluster_size(self._held)
            head = set_backing(self._held[:size], None)
            self._feed(head + self._held[size:])


def _portable(golden: Golden, parts: dict[str, Part]) -> Portable:
    record = golden.mark.record
    return Portable(
        name=golden.name,
        created=golden.mark.created,
        route=golden.mark.route,
        state_digest=golden.mark.state_digest,
        user=record.user,
        mac=golden.cards[0].mac,
        network=USER_NETWORK if golden.network is None else "libvirt",
        firmware=PurePosixPath(loader_in(golden)).name,
        host_key=record.host_key,
        instance_id=record.instance_id,
        image=dict(record.image),
        settings=dict(record.settings),
        shape={key: value for key, value in golden.mark.shape.items() if key != "pool"},
        ground=ground_in(golden),
        hardware=hardware(golden.definition),
        parts=parts,
    )


@contextmanager
def _directory(needed: int) -> Iterator[Path]:
    """Yield a private temporary directory in the cache. Raises StorageError if it is full."""
    parent = cache_directory("goldens")
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise StorageError(
            f"exporting needs up to {size_text(needed)}, but {parent} has {size_text(free)} free",
            hint="free space there; XDG_CACHE_HOME sets another directory",
        )
    with tempfile.TemporaryDirectory(prefix="export-", dir=parent) as path:
        yield Path(path)


def _check_target(target: Path, force: bool) -> None:
    with _write_errors(target):
        if target.is_dir():
            raise Conflict(f"{target} is a directory", hint="give the path of a file")
        if os.path.lexists(target) and not force:
            raise _taken(target)
        if not target.parent.is_dir():
            raise NotFound(f"directory {target.parent} not found", hint="create it first: mkdir -p")


@contextmanager
def _written(target: Path, force: bool) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a file that becomes *target* if the block succeeds, and its path until then."""
    partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.partial")
    try:
        with _write_errors(target):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            # A golden contains its guest's secrets: only the owner may read it.
            with os.fdopen(os.open(partial, flags, 0o600), "wb") as file:
                yield file, partial
                file.flush()
                os.fsync(file.fileno())
            if force:
                partial.replace(target)
            else:
                os.link(partial, target)  # unlike rename, fails if the target exists
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise _taken(target) from None
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot write {target}",
            hint="choose a directory that you can write to",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} already exists", hint="overwrite it with --force")


class _Counted:
    """A stream that counts the bytes written to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.size = stream, 0

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()
