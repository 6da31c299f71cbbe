"""``rootfs enter``: runs a command in a root file system, on the terminal or for armvm itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from armvm.base import process
from armvm.usermode.rootfs import enter as entering


def enter(root: Path, words: Sequence[str]) -> int:
    """Run a command in *root*, by default a login shell, and return its exit code.

    Raises NotFound, ConfigError for a directory without programs, PermissionDenied for one that
    belongs to neither this user nor the user's subordinate ids, and MissingCapability if its
    programs cannot run here.
    """
    return process.passthrough(entering.prepared(entering.check_root(root), words))


def run(
    root: Path,
    words: Sequence[str],
    *,
    on_line: Callable[[str], None],
    network: bool = True,
) -> process.Completed:
    """Run a command in *root* and return its result, also on failure; *on_line* gets its lines.

    Raises the same errors as enter().
    """
    argv = entering.prepared(entering.check_root(root), words, network=network)
    return process.run(argv, check=False, on_line=on_line)
