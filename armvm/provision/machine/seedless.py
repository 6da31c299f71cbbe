"""Machines without a cloud-init seed: installers, images set up by Ignition, and others."""

from __future__ import annotations

from pathlib import Path

from armvm.base.errors import ArmvmError, ConfigError, ImageError, NotFound, PermissionDenied
from armvm.base.progress import Progress
from armvm.guest import ignition
from armvm.images.cache.store import Cache
from armvm.images.check.iso import check_boot_medium
from armvm.images.local_file import digest_of
from armvm.images.model import FromMedium, Image
from armvm.images.reference import has_control
from armvm.settings.names import shown
from armvm.settings.user_path import absolute

#: Prefix of the image reference of a machine that an installer sets up.
_MEDIUM = "cdrom:"


def medium(path: Path) -> FromMedium:
    """Return an installer's ISO as a source.

    Raises NotFound, PermissionDenied, ConfigError for an invalid path, and ImageError if ARM64
    machines cannot boot it.
    """
    whole = absolute(path)
    try:
        if not whole.is_file():
            raise _unusable(path, "cdrom")
        if has_control(str(whole)):
            raise ConfigError(
                f"{shown(str(whole))} cannot be used: its path has unprintable characters",
                hint="rename it",
            )
        check_boot_medium(whole)
        size = whole.stat().st_size
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {path}") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {shown(str(path))}: {error}") from error
    return FromMedium(reference=_MEDIUM + str(whole), size=size, path=whole)


def empty_disk(source: FromMedium, progress: Progress) -> Image:
    """Return the placeholder for the image of a machine with an empty disk."""
    digest = digest_of(source.path, None, cache=Cache.default(), progress=progress)
    return Image(
        source=source, path=source.path, digest=digest, size=source.size or 0, virtual_size=0
    )


def read_ignition(path: Path) -> bytes:
    """Return a checked Ignition configuration. Raises NotFound, PermissionDenied, ConfigError."""
    try:
        if not path.is_file():
            raise _unusable(path, "ignition")
        with path.open("rb") as file:
            data = file.read(ignition.MAX_BYTES + 1)
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {path}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {shown(str(path))}: {error}") from error
    return ignition.check(data, shown(str(path)))


def _unusable(path: Path, option: str) -> ArmvmError:
    if path.exists():
        return ConfigError(f"{shown(str(path))} is not a file", hint=f"use --{option} FILE")
    return NotFound(f"file {shown(str(path))} not found for --{option}")
