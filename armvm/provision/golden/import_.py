"""Import a golden from an archive: a stranger's file becomes volumes and a definition.

Nothing in the file is used before its digest was verified, and nothing is defined as it stands:

- The definition is built from this armvm's template with the recorded settings, as for a new
  machine. Paths, UUID and firmware are this host's. So a golden only has devices that armvm
  itself would write.
- The saved state fits these devices, because libvirt's result is compared with the recorded list
  of devices, and QEMU's version and machine type with the recorded ones. QEMU refuses a state of
  other devices; then the clone boots from its image, as for any golden that cannot be loaded.
- The disk is checked as any image is, and must not name a backing file. armvm puts in its own.
- The image below the disk is this host's, if it has it. One from the file is named by the digest
  of its contents, so that no machine mistakes it for a published image.

What a guest does after it resumes is beyond such checks: see docs/howto/goldens.md, "Whom to
trust".
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    Conflict,
    HostileImage,
    MissingCapability,
    NotFound,
    PermissionDenied,
    StorageError,
)
from armvm.base.progress import Progress, size_text
from armvm.base.signals import shielded
from armvm.host import confinement
from armvm.host.connection import Pool, Volume, errors
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.firmware import Firmware, firmwares
from armvm.host.domain.golden_domain import (
    Golden,
    Mark,
    definition,
    find_golden,
    set_firmware,
    set_mark,
    without_record,
)
from armvm.host.domain.hardware import first_difference, hardware
from armvm.host.domain.metadata import from_element, to_element
from armvm.host.memory import route as memory
from armvm.host.storage import pools, sparse, volumes
from armvm.host.storage.base_image import base_name, ensure_base, remove_aborted, users_of
from armvm.host.xml import to_text
from armvm.images.cache.files import cache_directory, storage_errors
from armvm.images.cache.store import RESERVE, Cache
from armvm.images.check import qcow2_tables
from armvm.images.check.backing import cluster_size, set_backing
from armvm.images.digest import hash_file, is_digest
from armvm.images.model import ImageSource
from armvm.images.oci import archive, document
from armvm.images.oci.archive import Archive
from armvm.images.oci.document import Descriptor, Manifest
from armvm.images.oci.packed import unpack
from armvm.provision.golden import host_files, portable, signature
from armvm.provision.golden.bake import freeze
from armvm.provision.golden.fit import changes, differences, ground_of, shape_of
from armvm.provision.golden.portable import BASE, MEMORY, OVERLAY, SEED, STATE, Part, Portable
from armvm.provision.golden.source import packages_in
from armvm.provision.machine.create import Where, check_name, make_plan, remove_leftovers
from armvm.provision.machine.own_disk import clear_volumes, delete_machine_volumes
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.undo import Undo
from armvm.provision.machine.unfinished import myself
from armvm.settings.machine import Machine
from armvm.settings.networks import USER_NETWORK

#: Bytes to copy at once.
_COPY = 1 << 20
#: How much larger than its disk an overlay can be: its tables, and clusters of earlier contents.
_OVERLAY_FACTOR = 2
#: How much more data than it declares a part can have, in bytes: file systems differ in the
#: blocks that they allocate.
_SLACK = 16 << 20


class DoesNotFit(Conflict):
    """This host cannot use a golden. ``wanted`` is its description."""

    def __init__(
        self, message: str, wanted: Portable, *, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.wanted = wanted


class Layers(Protocol):
    """Where the blobs of an artifact come from: an archive or a registry."""

    @property
    def name(self) -> str:
        """The source's name, for messages."""

    def document(self, blob: Descriptor) -> bytes:
        """Return a small blob, verified."""

    def open(self, blob: Descriptor) -> BinaryIO:
        """Return a blob's bytes, unverified."""


@contextmanager
def opened(source: Path | BinaryIO, name: str) -> Iterator[Archive]:
    """Open an archive; one on standard input is first copied to a temporary file.

    Raises NotFound, PermissionDenied, HostileImage, StorageError.
    """
    if isinstance(source, Path):
        try:
            if source.exists() and not source.is_file():  # opening a pipe would wait
                raise NotFound(f"{name} is not a file")
            file = source.open("rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{name} not found") from error
        except PermissionError as error:
            raise PermissionDenied(f"permission denied: cannot read {name}") from error
        except OSError as error:
            raise StorageError(f"cannot read {name}: {error.strerror or error}") from error
        with file:
            yield archive.scan(file, name)
        return
    with _copied(source, name) as copy:
        yield archive.scan(copy, name)


def _copied(source: BinaryIO, name: str) -> BinaryIO:
    """Return a temporary file with a stream's bytes. Raises StorageError."""
    directory = cache_directory("goldens")
    with storage_errors(directory):
        copy: Any = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - the caller closes it
        try:
            while chunk := source.read(_COPY):
                if shutil.disk_usage(directory).free < RESERVE:
                    raise StorageError(
                        f"{name} does not fit into {directory}",
                        hint="free space there; XDG_CACHE_HOME sets another directory",
                    )
                copy.write(chunk)
            copy.flush()
        except BaseException:
            with suppress(OSError):  # it writes what is left in the buffer, and fails again
                copy.close()
            raise
    return cast("BinaryIO", copy)


def import_archive(
    where: Where,
    source: Archive,
    *,
    name: str | None,
    trusted: Path | None,
    progress: Progress,
) -> Golden:
    """Import the golden in an archive. *trusted* are the keys of which one must have signed it."""
    listed = document.load_index(source.index(), source.name)
    found = [one for one in listed if one.artifact_type in (portable.ARTIFACT, None)]
    if len(found) != 1:
        raise HostileImage(f"{source.name} cannot be used: it contains no golden, or several")
    data = source.document(found[0])
    signatures = [
        _signature(source, document.load_manifest(source.document(one), source.name))
        for one in listed
        if one.artifact_type == signature.ARTIFACT
    ]
    signer = None
    if trusted is not None:
        signer = signature.verify(found[0].digest, signatures, trusted)
    return import_golden(
        where, source, data, digest=found[0].digest, name=name, signer=signer, progress=progress
    )


def import_golden(
    where: Where,
    source: Layers,
    manifest_data: bytes,
    *,
    digest: str,
    name: str | None,
    signer: str | None,
    progress: Progress,
) -> Golden:
    """Import the golden of a verified manifest with this *digest*; return it.

    On failure nothing is left behind, except for a base, which `image prune` removes. Raises
    HostileImage, DigestMismatch, Conflict if the name is taken or the golden does not fit this
    host, StorageError, and the errors of obtaining an image.
    """
    manifest = document.load_manifest(manifest_data, source.name)
    if manifest.artifact_type != portable.ARTIFACT or manifest.config.media_type != portable.CONFIG:
        raise HostileImage(f"{source.name} cannot be used: it is not a golden of armvm")
    wanted = portable.load(source.document(manifest.config), source.name)
    layers = portable.layers_by_part(manifest.layers, wanted, source.name)
    name = name or portable.check_name(wanted, source.name)
    firmware = _firmware(where, wanted, name)
    _check_fit(where, wanted, firmware, name)
    check_name(where.connection, name)
    plan = _plan(where, wanted, name, source.name)
    mark = _mark(plan, wanted, digest, signer, source.name)
    remove_leftovers(where.connection, name, progress)
    pool = pools.ensure_pool(where.connection, where.pool, where.facts)
    pools.check_space(
        pool, sum(one.allocated for part, one in wanted.parts.items() if part != BASE)
    )
    parts = _Parts(where, pool, source, wanted, layers, name, progress)
    with Undo(progress) as undo:
        with shielded():
            begun = replace(plan.record, creator=myself())
            domain = lifecycle.define(where.connection, to_text(build(plan.spec, begun)), name)
            undo.add(lambda: lifecycle.undefine(domain))
        clear_volumes(where.connection, pool, name)
        undo.add(lambda: delete_machine_volumes(pool, name))
        element = definition(domain)
        difference = first_difference(hardware(element), wanted.hardware)
        if difference is not None:
            raise DoesNotFit(
                f"golden {name} cannot be used here: another armvm or libvirt made it, with other "
                "devices than this host's machines have",
                wanted,
                detail=difference,
                hint="use the same version of armvm on both hosts, or create one on this host: "
                "armvm golden create",
            )
        base = _base(parts)
        parts.overlay(plan.machine.disk, base)
        parts.seed_and_memory(plan)
        without_record(element)
        nvram = str(PurePosixPath(plan.spec.overlay).with_name(volumes.volume_names(name)["nvram"]))
        set_firmware(element, firmware, nvram)
        set_mark(element, mark)
        wrong = memory.route(mark.route).check(
            where.connection, pool, name, element, mark.state_digest
        )
        if wrong is not None:
            raise HostileImage(f"{source.name} cannot be used: {wrong}")
        freeze(pool, volumes.volume_names(name)["overlay"])
        with shielded():
            lifecycle.define(where.connection, to_text(element), name)
    return find_golden(where.connection, name)


class _Parts:
    """Writes a golden's parts into volumes of *pool*."""

    def __init__(
        self,
        where: Where,
        pool: Pool,
        source: Layers,
        wanted: Portable,
        layers: dict[str, Descriptor],
        name: str,
        progress: Progress,
    ) -> None:
        self.where, self.pool, self.source, self.wanted = where, pool, source, wanted
        self.layers, self.progress = layers, progress
        self._name, self._names = name, volumes.volume_names(name)

    def overlay(self, disk: int, base: Volume | None) -> None:
        """Check the disk, whose size is *disk* bytes, and write it with its backing file."""
        if self.wanted.parts[OVERLAY].size > disk * _OVERLAY_FACTOR + (64 << 20):
            raise HostileImage(f"{self.source.name} cannot be used: its disk is too large")
        with self.staged(OVERLAY) as path:
            shown = f"the disk in {self.source.name}"
            if qcow2_tables.check(path, name=shown).virtual_size != disk:
                raise HostileImage(f"{shown} cannot be used: it has another size than declared")
            size = path.stat().st_size
            with path.open("rb") as file, self._volume(OVERLAY, size) as put:
                head = file.read(2 << 20)
                if base is not None:
                    cluster = cluster_size(head)
                    with errors("reading the storage pool"):
                        below = base.path()
                    head = set_backing(head[:cluster], below) + head[cluster:]
                put(head)
                while chunk := file.read(_COPY):
                    put(chunk)
        with errors("reading the storage pool"):
            pools.refresh(self.pool)  # lets libvirt detect its format and backing file

    def seed_and_memory(self, plan: CreatePlan) -> None:
        """Write the parts that need no staging."""
        expected = (*memory.route(self.wanted.route).VOLUMES, SEED)
        if set(expected) != self.wanted.parts.keys() - {BASE, OVERLAY}:
            raise HostileImage(f"{self.source.name} cannot be used: its parts do not match")
        for part in (SEED, STATE, MEMORY):
            if part not in expected:
                continue
            size = self.wanted.parts[part].size
            shared = part == MEMORY and self.wanted.route == memory.COW
            if shared and size != plan.machine.memory_mib << 20:
                raise HostileImage(f"{self.source.name} cannot be used: its memory's size is wrong")
            with self._volume(part, size, shared=shared) as put:
                for piece in self._unpacked(part):
                    put(piece)

    @contextmanager
    def staged(self, part: str) -> Iterator[Path]:
        """Unpack a part into a temporary file, which exists during the block."""
        directory = cache_directory("goldens")
        found: Part = self.wanted.parts[part]
        if found.allocated + RESERVE > (free := shutil.disk_usage(directory).free):
            raise StorageError(
                f"the {part} needs {size_text(found.allocated)}, but {directory} has "
                f"{size_text(free)} free",
                hint="free space there; XDG_CACHE_HOME sets another directory",
            )
        with tempfile.TemporaryDirectory(prefix="import-", dir=directory) as parent:
            path = Path(parent) / part
            with storage_errors(path), path.open("wb") as file:
                for piece in self._unpacked(part):
                    _write_sparse(file, piece)
                file.truncate(file.tell())
            yield path

    def _unpacked(self, part: str) -> Iterator[bytes]:
        size = self.wanted.parts[part].size
        layer = self.layers[part]
        label = f"unpacking the {part} of {self._name}"
        # Opening downloads it, with a progress of its own.
        with self.source.open(layer) as packed, self.progress.task(label, total=size) as task:
            done = data_size = 0
            for piece in unpack(packed, layer, size, self.source.name):
                done += len(piece)
                data_size += sparse.data_size(piece)
                # The free space was checked for what it declares.
                if data_size > self.wanted.parts[part].allocated + _SLACK:
                    raise HostileImage(
                        f"{self.source.name} cannot be used: its {part} has more data than it "
                        "declares",
                        hint="export or download it again",
                    )
                task.update(done)
                yield piece

    @contextmanager
    def _volume(self, part: str, size: int, *, shared: bool = False) -> Iterator[Any]:
        owner = self.where.facts.qemu_owner if shared else None
        volume = volumes.create_hole(self.pool, self._names[part], size, owner)
        try:
            if shared:
                confinement.label(volume.path(), self.where.facts)
            with sparse.upload(self.where.connection, volume, size) as put:
                yield put
        except BaseException:
            with shielded():
                remove_aborted(volume)
            raise


def _base(parts: _Parts) -> Volume | None:
    """Return the base for the golden's disk: this host's, or else the file's or a fetched one.

    None if the golden's disk stands alone, as one that was made from a machine does.
    """
    where, pool, wanted = parts.where, parts.pool, parts.wanted
    if BASE not in wanted.parts:
        return None
    content = wanted.parts[BASE].content
    in_pool = users_of(pool)
    for digest in (wanted.digest, content):
        if digest is None or not is_digest(digest) or base_name(digest) not in in_pool:
            continue
        volume = volumes.need_volume(pool, base_name(digest))
        right = digest == content and volumes.physical_size(volume) == wanted.parts[BASE].size
        # A base that machines use is complete, and so is one of the right size.
        if in_pool[base_name(digest)] or right:
            return volume
    cache = Cache.default()
    entry = cache.find(wanted.digest) if is_digest(wanted.digest) else None
    if entry is not None:
        cache.touch(entry)
        path, digest, lasting = entry.path, wanted.digest, True
        return ensure_base(
            where.connection, pool, digest, path, progress=parts.progress, lasting=lasting
        )
    if BASE not in parts.layers:
        return _fetched_base(parts)
    if content is None:
        raise HostileImage(f"{parts.source.name} cannot be used: its base has no digest")
    with parts.staged(BASE) as path:
        shown = f"the base in {parts.source.name}"
        qcow2_tables.check(path, name=shown)
        with parts.progress.task("hashing the base", total=path.stat().st_size) as task:
            found = hash_file(path, told=task.update)
        if found != content:
            raise HostileImage(f"{shown} cannot be used: its digest differs from the declared one")
        return ensure_base(where.connection, pool, content, path, progress=parts.progress)


def _fetched_base(parts: _Parts) -> Volume:
    """Return the base from the image's own source, verified by the digest in the file."""
    from armvm.provision.image import find

    reference, digest = parts.wanted.image.get("reference", ""), parts.wanted.digest
    hint = "export it with its base, or get the image first: armvm image pull"
    missing = f"the golden has no base, and its image {reference or '?'} is not on this host"
    # Another host's packages are not the same bytes.
    own = reference.startswith(("/", ".", "~")) or bool(packages_in(parts.wanted.image))
    if own or not is_digest(digest):
        raise NotFound(missing, hint=hint)
    try:
        source = find.locate(reference, parts.progress, parts.where.verify)
        if source.location.startswith("/"):
            raise NotFound(missing, hint=hint)
        image = find.obtain(source, parts.progress)
    except ArmvmError as error:
        raise NotFound(missing, detail=error.message, hint=hint) from error
    if image.digest != digest:
        raise NotFound(f"{missing}: {reference} is now another version ({image.digest[:19]})")
    return ensure_base(
        parts.where.connection,
        parts.pool,
        digest,
        image.path,
        progress=parts.progress,
        lasting=Cache.default().holds(image.path),
    )


def _firmware(where: Where, wanted: Portable, name: str) -> Firmware:
    """Return this host's firmware with the golden's digest; on a remote host, with its file name.

    If there is none, the returned one makes `_check_fit` say what differs.
    """
    found = firmwares(where.connection, where.facts)
    if not found:
        raise MissingCapability(f"golden {name} cannot be used here: UEFI firmware not found")
    named = [one for one in found if PurePosixPath(one.loader).name == wanted.firmware]
    if not where.facts.local:
        if not named:
            raise Conflict(
                f"golden {name} cannot be used here: firmware {wanted.firmware} not found"
            )
        return named[0]
    digest = wanted.ground.get("firmware")
    if digest is None:  # made over a remote connection
        return (named or found)[0]
    alike = [one for one in found if host_files.digest(one.loader) == digest]
    return (alike or named or found)[0]


def _check_fit(where: Where, wanted: Portable, firmware: Firmware, name: str) -> None:
    reason = memory.route(wanted.route).why_not(local=where.facts.local)
    if reason is None:
        changed = changes(ground_of(where.facts, firmware.loader), wanted.ground)
        reason = "; ".join(changed) or None
    if reason is not None:
        raise DoesNotFit(
            f"golden {name} cannot be used here: {reason}",
            wanted,
            hint="create one on this host: armvm golden create",
        )


def _plan(where: Where, wanted: Portable, name: str, shown: str) -> CreatePlan:
    """Return the plan of the machine that becomes the golden, made on this host."""
    network = USER_NETWORK if wanted.network == "user" else None
    settings = {**wanted.settings, "network": network, "ip": None}
    source = ImageSource(
        reference=wanted.image.get("reference", ""),
        digest=wanted.digest,
        system=wanted.system,
        serial=wanted.image.get("serial"),
        packages=packages_in(wanted.image),
    )
    try:
        machine = Machine(name=name, image=source.reference, user=wanted.user, **settings)
        plan = make_plan(where, machine, source)
        shape = shape_of(plan, wanted.digest)
    except (ConfigError, LookupError) as error:
        text = error.message if isinstance(error, ConfigError) else str(error)
        raise HostileImage(f"{shown} cannot be used: {text}") from error
    shape.pop("pool")
    different = differences(shape, wanted.shape) or differences(wanted.shape, shape)
    if different:
        raise DoesNotFit(
            f"golden {name} cannot be used here: it has " + "; ".join(different),
            wanted,
            hint="a golden on a libvirt network needs qemu:///system",
        )
    names = volumes.volume_names(name)
    return replace(
        plan,
        spec=replace(
            plan.spec,
            cards=(replace(plan.spec.cards[0], mac=wanted.mac),),
            memory_file=str(PurePosixPath(plan.spec.overlay).with_name(names["memory"])),
            memory_route=wanted.route,
        ),
        record=replace(
            plan.record,
            host_key=wanted.host_key,
            instance_id=wanted.instance_id,
            forward=None,
        ),
    )


def _mark(plan: CreatePlan, wanted: Portable, digest: str, signer: str | None, shown: str) -> Mark:
    record = replace(
        plan.record,
        image={
            **plan.record.image,
            **{key: wanted.image[key] for key in ("size",) if key in wanted.image},
        },
    )
    try:
        readable = from_element(to_element(record)) == record
    except ValueError:
        readable = False
    if not readable:
        raise HostileImage(f"{shown} cannot be used: its record is invalid")
    return Mark(
        created=wanted.created,
        shape=shape_of(plan, wanted.digest),
        ground=dict(wanted.ground),
        state_digest=wanted.state_digest,
        record=record,
        route=wanted.route,
        imported=digest,
        signer=signer,
    )


def _signature(source: Layers, manifest: Manifest) -> bytes:
    if len(manifest.layers) != 1 or manifest.layers[0].size > signature.MAX_SIGNATURE:
        raise HostileImage(f"{source.name} cannot be used: its signature is invalid")
    return source.document(manifest.layers[0])


def _write_sparse(file: BinaryIO, piece: bytes) -> None:
    for start in range(0, len(piece), sparse.BLOCK):
        block = piece[start : start + sparse.BLOCK]
        if block.count(0) == len(block):
            file.seek(len(block), os.SEEK_CUR)
        else:
            file.write(block)
