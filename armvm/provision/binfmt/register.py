"""`armvm binfmt register` and `unregister`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from armvm.base.errors import UsageError
from armvm.base.progress import Progress
from armvm.provision.binfmt.status import flags_of
from armvm.settings.user_path import absolute
from armvm.usermode.architectures import Architecture, find
from armvm.usermode.binfmt import register as registrar
from armvm.usermode.binfmt.register import Done
from armvm.usermode.binfmt.registration import FLAGS
from armvm.usermode.binfmt.request import Request


def request(
    names: Sequence[str], *, program: Path | None, flags: str | None, replace: bool, dynamic: bool
) -> Request:
    """Return the requested rule. Raises UsageError for one interpreter of several architectures."""
    if program is not None and len(names) > 1:
        raise UsageError(
            "--interpreter applies to one architecture, but several were given",
            hint="register each architecture with its own --interpreter",
        )
    return Request(
        program=absolute(program) if program else None,
        flags=flags_of(FLAGS if flags is None else flags),
        over=replace,
        dynamic=dynamic,
    )


def register(names: Sequence[str], wanted: Request, progress: Progress) -> list[str]:
    """Register handlers; return a line about each."""
    if "C" in wanted.flags:
        progress.warn(
            "flag C: any user with a setuid program of this architecture can become root here"
        )
    return _each(names, lambda one: registrar.register(one, wanted, progress), _registered)


def unregister(names: Sequence[str]) -> list[str]:
    """Unregister armvm's handlers; return a line about each."""
    return _each(names, registrar.unregister, _left)


def _each(
    names: Sequence[str],
    change: Callable[[Architecture], Done],
    told: Callable[[Done], str],
) -> list[str]:
    chosen = list(dict.fromkeys(find(name) for name in names))
    return [told(change(one)) for one in chosen]


def _registered(done: Done) -> str:
    handler = done.handler
    assert handler is not None  # noqa: S101 - it was just registered
    text = f"{done.architecture}: {handler.name} runs {handler.interpreter}"
    if not done.changed:
        return f"{text} already; nothing changed" + ("" if done.path else " (not armvm's handler)")
    waiting = f" (takes precedence over {', '.join(done.over)})" if done.over else ""
    return f"{text}{waiting}; {done.path} registers it at boot"


def _left(done: Done) -> str:
    handler = done.handler
    if handler is None:
        return f"{done.architecture}: no handler remains"
    return f"{done.architecture}: {handler.name} runs {handler.interpreter}"
