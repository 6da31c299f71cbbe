"""Import a file into the cache as ``local:NAME``, and export an image from the cache."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from pathlib import Path

from armvm.base.errors import Conflict, NotFound, PermissionDenied, StorageError
from armvm.base.progress import Progress, size_text
from armvm.images import local_file
from armvm.images.cache.entry import Entry
from armvm.images.cache.files import copy_file, storage_errors
from armvm.images.cache.named import keep_only, reserved
from armvm.images.cache.store import RESERVE, Cache
from armvm.images.check import qcow2_tables
from armvm.images.check.cpu import refuse_foreign_boot
from armvm.images.check.formats import DiskFormat, guess_system, refuse_foreign
from armvm.images.digest import check_digest, hash_file
from armvm.images.model import Verified


def import_file(
    file: Path,
    name: str,
    *,
    cache: Cache,
    progress: Progress,
    digest: str | None = None,
    replace: bool = False,
) -> Entry:
    """Copy *file* into the cache as ``local:NAME``; a raw image is converted.

    The image is treated as hostile. The copy is checked, because the file may change during the
    import. *digest* (``sha256:HEX``) is the expected one. Raises NotFound, HostileImage,
    ImageError (for another CPU), DigestMismatch, Conflict if the name exists and *replace* is
    false, StorageError, PermissionDenied.
    """
    format, size = local_file.look(file)
    refuse_foreign(file.name)
    with reserved(cache, name, replace=replace, progress=progress) as reference:
        with cache.partial(reference) as copy, storage_errors(copy):
            if format is DiskFormat.RAW:
                refuse_foreign_boot(file, format, str(file))
                found = local_file.digest_of(file, digest, cache=cache, progress=progress)
                label = f"converting {file.name} to qcow2"
                local_file.convert_raw(file, copy, label=label, cache=cache, progress=progress)
                content = None
            else:
                cache.check_room(size)
                with progress.task(f"copying {file.name}", total=size):
                    copy_file(file, copy)
                qcow2_tables.check(copy, name=str(file))
                refuse_foreign_boot(copy, format, str(file))
                with progress.task(f"hashing {file.name}", total=size) as task:
                    found = content = hash_file(copy, told=task.update)
                check_digest(found, digest, str(file))
            entry = cache.store_local(
                copy,
                name=name,
                recipe=found.removeprefix("sha256:"),
                system=guess_system(file.name) or guess_system(name),
                verified=Verified.GIVEN if digest else Verified.NOTHING,
                digest=found,
                content=content,
            )
        keep_only(cache, entry)
    return entry


def export_file(entry: Entry, target: Path, *, replace: bool = False) -> bool:
    """Copy an image from the cache to *target*. On failure, *target* is not changed.

    Returns whether the copy shares its blocks with the cache (a reflink). Raises Conflict if the
    target exists and *replace* is false, NotFound, StorageError, PermissionDenied.
    """
    taken = Conflict(f"{target} already exists", hint="overwrite it with --force")
    if target.is_dir():
        raise Conflict(f"{target} is a directory", hint="give the path of a file")
    if os.path.lexists(target) and not replace:
        raise taken
    partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.partial")
    try:
        free = shutil.disk_usage(target.parent).free
        if entry.size + RESERVE > free:
            raise StorageError(
                f"the image needs {size_text(entry.size)}, "
                f"but {target.parent} has {size_text(free)} free",
                hint="write to another disk",
            )
        shared = copy_file(entry.path, partial)
        partial.chmod(0o666 & ~_umask())
        if replace:
            partial.replace(target)
        else:
            os.link(partial, target)  # unlike rename, fails if the target exists
        return shared
    except FileExistsError:
        raise taken from None
    except FileNotFoundError as error:
        raise NotFound(
            f"directory {target.parent} not found",
            hint=f"create it first: mkdir -p {shlex.quote(str(target.parent))}",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"permission denied: cannot write {target}",
            hint="choose a directory that you can write to",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
