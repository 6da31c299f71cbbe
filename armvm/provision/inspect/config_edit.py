"""Editing the user's configuration file: what is wrong never takes the place of what was right."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

from armvm.base.errors import (
    ArmvmError,
    CommandFailed,
    Conflict,
    MissingCapability,
    PermissionDenied,
)
from armvm.base.paths import private_dir, write_atomic
from armvm.base.process import passthrough
from armvm.provision.inspect.config import check, example

#: What is tried where neither $VISUAL nor $EDITOR is set.
EDITORS = ("sensible-editor", "nano", "vi")


def edit(path: Path, again: Callable[[ArmvmError], bool]) -> bool:
    """Let the user edit a configuration file, and tell whether it was changed.

    The editor works on a draft beside the file. The draft takes the file's place once it is
    sound; while it is not, *again* is asked with the error whether to edit on. When that is
    refused, the error is raised and the draft kept, as it is when the editor fails or when the
    file was changed by somebody else meanwhile (Conflict).
    """
    target = path.resolve()  # a link stays one: what it points to is replaced
    before = _bytes(target)
    draft = target.with_name(f"{target.stem}.draft.toml")
    mode = stat.S_IMODE(target.stat().st_mode) if before is not None else 0o600
    try:
        private_dir(target.parent)
        if not draft.exists():  # else: what an earlier edit has left
            write_atomic(draft, example().encode() if before is None else before)
    except PermissionError as error:
        raise PermissionDenied(f"{draft} cannot be written: {error.strerror}") from error
    begun = draft.read_bytes()
    _edit_until_sound(draft, before, begun, again)
    data = draft.read_bytes()
    if data == before or (before is None and data == begun == example().encode()):
        draft.unlink()
        return False
    if _bytes(target) != before:
        raise Conflict(
            f"{target} was changed by somebody else meanwhile", hint=f"your text is in {draft}"
        )
    write_atomic(target, data, mode=mode)
    draft.unlink()
    return True


def _edit_until_sound(
    draft: Path, before: bytes | None, begun: bytes, again: Callable[[ArmvmError], bool]
) -> None:
    while True:
        code = _editor(draft)
        if code != 0:
            same = draft.read_bytes() == begun
            if same and begun in (before, example().encode()):
                draft.unlink()
            raise CommandFailed(
                f"the editor ended with {code}; the configuration is as it was",
                hint=None if same else f"your text is in {draft}; armvm config edit goes on there",
            )
        try:
            check(draft)
            return
        except ArmvmError as error:
            if again(error):
                continue
            hint = f"your text is in {draft}; armvm config edit goes on there"
            error.hint = f"{error.hint}; {hint}" if error.hint else hint
            raise


def _editor(draft: Path) -> int:
    asked = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if asked:
        return passthrough([*shlex.split(asked), draft])
    for program in EDITORS:
        try:
            return passthrough([program, draft])
        except MissingCapability:
            continue
    raise MissingCapability("there is no editor", hint="set EDITOR to yours")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from error
