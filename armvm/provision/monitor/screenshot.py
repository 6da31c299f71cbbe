"""Save a picture of a machine's screen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.errors import NotFound, PermissionDenied
from armvm.base.result import Doc
from armvm.host.connection import Connection, Domain
from armvm.host.domain.screenshot import size_of, take


@dataclass(frozen=True, kw_only=True)
class Screenshot:
    """A picture of a machine's screen."""

    machine: Annotated[str, Doc("The machine.")]
    file: Annotated[Path, Doc("Path of the PNG file, as given.")]
    screen: Annotated[int, Doc("Number of the screen.", minimum=0)]
    width: Annotated[int, Doc("Width in pixels.", minimum=1)]
    height: Annotated[int, Doc("Height in pixels.", minimum=1)]


def screenshot(connection: Connection, domain: Domain, path: Path, *, screen: int) -> Screenshot:
    """Write a machine's screen to *path* as PNG, and return its description.

    Raises NotFound if the directory does not exist, PermissionDenied, and the errors of `take`.
    """
    if not path.parent.is_dir():
        raise NotFound(f"directory {path.parent} not found")
    picture = take(connection, domain, screen=screen)
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise PermissionDenied(f"cannot write {path}", detail=str(error)) from error
    width, height = size_of(picture)
    return Screenshot(machine=domain.name(), file=path, screen=screen, width=width, height=height)
