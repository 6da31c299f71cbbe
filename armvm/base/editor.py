"""The user's editor: one way for all commands that let a text be edited."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from armvm.base.errors import ArmvmError, CommandFailed, ConfigError, Conflict, MissingCapability
from armvm.base.process import passthrough
from armvm.base.programs import find

#: Tried in this order if neither $VISUAL nor $EDITOR is set.
FALLBACKS = ("sensible-editor", "editor", "nano", "vi")

Accepted = TypeVar("Accepted")


def edit(
    draft: Path,
    original: bytes,
    accept: Callable[[], Accepted],
    again: Callable[[ArmvmError], bool],
    *,
    resume: str | None = None,
) -> Accepted:
    """Open *draft* in the user's editor until *accept* succeeds, and return its result.

    If the editor or *accept* fails, *again* decides whether to edit on; a Conflict is raised at
    once, since no editing resolves it. The error's hint then names the draft, and *resume* how to
    go on with it. A draft that was accepted, or that equals *original*, is removed.
    """
    while True:
        try:
            _run(draft)
            result = accept()
        except ArmvmError as error:
            if not isinstance(error, Conflict) and again(error):
                continue
            if draft.is_file() and draft.read_bytes() != original:
                hints = (f"your text is in {draft}", resume, error.hint)
                error.hint = "; ".join(hint for hint in hints if hint)
            else:
                draft.unlink(missing_ok=True)
            raise
        draft.unlink(missing_ok=True)
        return result


def _run(path: Path) -> None:
    """Open a file in $VISUAL, else $EDITOR. Raises CommandFailed, MissingCapability."""
    words = _chosen()
    code = passthrough([*words, path])
    if code != 0:
        raise CommandFailed(
            f"the editor {words[0]} failed with exit code {code}",
            hint="set VISUAL or EDITOR to choose another one",
        )


def _chosen() -> list[str]:
    text = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"invalid $VISUAL or $EDITOR {text!r}: {error}") from error
    return words or [_fallback()]


def _fallback() -> str:
    for program in FALLBACKS:
        try:
            return find(program)
        except MissingCapability:
            continue
    raise MissingCapability("no editor found", hint="set VISUAL or EDITOR to yours")
