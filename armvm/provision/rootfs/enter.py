"""``rootfs enter``: a command in a root file system, on the caller's terminal or for us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from armvm.base import process
from armvm.usermode.rootfs import enter as entering


def enter(root: Path, words: Sequence[str]) -> int:
    """Run a command in *root* (a login shell without one), and return its exit code.

    Raises NotFound, ConfigError for a directory without programs, PermissionDenied for one that
    is neither this user's nor of his ids, MissingCapability when its programs cannot run here.
    """
    return process.passthrough(entering.prepared(entering.check_root(root), words))


def run(
    root: Path,
    words: Sequence[str],
    *,
    on_line: Callable[[str], None],
    network: bool = True,
) -> process.Completed:
    """Run a command in *root* to its end, however it ends; its lines go to *on_line*.

    Raises as enter() does.
    """
    argv = entering.prepared(entering.check_root(root), words, network=network)
    return process.run(argv, check=False, on_line=on_line)
