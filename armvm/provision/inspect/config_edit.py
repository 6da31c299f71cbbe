"""Edit the user's configuration file; an invalid draft does not replace it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from armvm.base import editor
from armvm.base.errors import ArmvmError, Conflict, PermissionDenied
from armvm.base.paths import private_dir, write_atomic
from armvm.provision.inspect.config import check, example


def edit(path: Path, again: Callable[[ArmvmError], bool]) -> bool:
    """Let the user edit a configuration file, and return whether it changed.

    The editor works on a draft beside the file. A valid draft replaces the file. On an error,
    *again* decides whether to edit the draft again. Raises the errors of `check` and of the editor,
    and Conflict if another program changed the file during the edit.
    """
    target = path.resolve()  # replace the target of a link, not the link
    before = _bytes(target)
    draft = target.with_name(f"{target.stem}.draft.toml")
    mode = stat.S_IMODE(target.stat().st_mode) if before is not None else 0o600
    try:
        private_dir(target.parent)
        if not draft.exists():  # otherwise continue an earlier edit
            write_atomic(draft, example().encode() if before is None else before)
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot write {draft}") from error
    original = example().encode() if before is None else before

    def accept() -> bool:
        check(draft)
        data = draft.read_bytes()
        if data == original:
            return False
        if _bytes(target) != before:
            raise Conflict(f"another program changed {target} during the edit")
        write_atomic(target, data, mode=mode)
        return True

    return editor.edit(draft, original, accept, again, resume="continue with armvm config edit")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise PermissionDenied(f"permission denied: cannot read {path}") from error
