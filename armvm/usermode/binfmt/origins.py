"""Guess who registered a handler, from the traces that exist.

The kernel keeps no record. The traces are files with the same rule (binfmt.d(5), binfmt-support's
database) and the habits of images that register from a container: path of the interpreter,
flags, length of the magic. The habits come from reports by users of each:
tonistiigi/binfmt (POCF or OCF, /usr/bin/qemu-ARCH; its issue 246), docker/binfmt before it
(OCF, 19 bytes of magic), multiarch/qemu-user-static (/usr/bin/qemu-ARCH-static, F with ``-p
yes``, OCF with ``--credential yes``), qus (/qus/bin, F; its issue 25).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from armvm.usermode.binfmt import binfmt_d
from armvm.usermode.binfmt.binfmt_d import Declared
from armvm.usermode.binfmt.handlers import Handler

#: The database of binfmt-support: one file per handler.
DATABASE = Path("/var/lib/binfmts")
#: The interpreter that it registers if a handler has a detector.
DETECTORS = "/usr/lib/binfmt-support/run-detectors"


class Kind(str, Enum):
    """The program that registered a handler."""

    BINFMT_D = "binfmt.d"
    BINFMT_SUPPORT = "binfmt-support"
    TONISTIIGI = "tonistiigi/binfmt"
    MULTIARCH = "multiarch/qemu-user-static"
    QUS = "qus"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who registered a handler: *path* is the file with its rule, *why* the evidence."""

    kind: Kind
    path: str | None
    why: str


def origin(
    handler: Handler,
    declared: Sequence[Declared],
    *,
    database: Path = DATABASE,
    present: bool | None = None,
) -> Origin:
    """Return who registered *handler*. *declared* are the rules of binfmt.d, in order.

    *present* says whether its interpreter is on this host (None: look it up).
    """
    same = [one for one in declared if one.rule.is_handler(handler)]
    if same:
        return Origin(kind=Kind.BINFMT_D, path=str(same[-1].path), why="the file has the same rule")
    support = _support(handler, database)
    if support is not None:
        return support
    container = _container(handler, present=present)
    if container is not None:
        return container
    named = [one for one in declared if one.rule.name == handler.name]
    if named:
        why = f"{named[-1].path} has this name, but another interpreter, flags or magic"
        return Origin(kind=Kind.UNKNOWN, path=None, why=why)
    return Origin(
        kind=Kind.UNKNOWN, path=None, why="no file has this rule, and it matches no known tool"
    )


def _support(handler: Handler, database: Path) -> Origin | None:
    """Return update-binfmts(8) as the origin if it registered the handler, else None.

    Its file has one line each for package, type, offset, magic or extension, mask, interpreter,
    detector, and the three flags (as of binfmt-support 2.2.2).
    """
    path = database / handler.name
    lines = binfmt_d.lines_of(path)
    if handler.interpreter == DETECTORS:
        why = "the interpreter is its detector program"
        return Origin(kind=Kind.BINFMT_SUPPORT, path=str(path) if lines else None, why=why)
    if handler.interpreter in lines[:8]:
        return Origin(kind=Kind.BINFMT_SUPPORT, path=str(path), why="its database contains it")
    return None


def _container(handler: Handler, *, present: bool | None) -> Origin | None:
    interpreter, flags = handler.interpreter, handler.flags
    if interpreter.startswith("/qus/"):
        return Origin(kind=Kind.QUS, path=None, why="its interpreters are in /qus")
    if present is None:
        present = Path(interpreter).exists()
    gone = "" if present else ", which does not exist on this host"
    if re.fullmatch(r"/usr/bin/qemu-[a-z0-9_]+", interpreter) and "F" in flags:
        if "C" in flags or not present:
            why = f"flags {flags} and an interpreter {interpreter} without -static{gone}"
            return Origin(kind=Kind.TONISTIIGI, path=None, why=why)
        return None
    static = re.fullmatch(r"/usr/bin/qemu-[a-z0-9_]+-static", interpreter)
    if static and "P" not in flags and (not present or len(handler.magic) == 19):
        why = f"flags {flags or 'none'} without P and {interpreter}{gone}"
        return Origin(kind=Kind.MULTIARCH, path=None, why=why)
    return None
