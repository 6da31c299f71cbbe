"""A picture of a machine's screen, as a use case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from armvm.base.errors import NotFound, PermissionDenied
from armvm.host.connection import Connection, Domain
from armvm.host.domain.screenshot import size_of, take


def screenshot(
    connection: Connection, domain: Domain, path: Path, *, screen: int
) -> dict[str, Any]:
    """Write what a machine's screen shows to *path* as PNG, and return what was written.

    Raises NotFound for a directory that is not there, PermissionDenied, and what `take` raises.
    """
    if not path.parent.is_dir():
        raise NotFound(f"there is no directory {path.parent}")
    picture = take(connection, domain, screen=screen)
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise PermissionDenied(f"{path} cannot be written", detail=str(error)) from error
    width, height = size_of(picture)
    return {
        "machine": domain.name(),
        "file": str(path),
        "screen": screen,
        "width": width,
        "height": height,
    }
