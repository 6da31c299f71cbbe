"""What `armvm binfmt register` and `unregister` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from armvm.base.errors import UsageError
from armvm.base.progress import Progress
from armvm.provision.binfmt.status import flags_of
from armvm.usermode.architectures import Architecture, find
from armvm.usermode.binfmt import register as registrar
from armvm.usermode.binfmt.register import Done
from armvm.usermode.binfmt.registration import FLAGS
from armvm.usermode.binfmt.request import Wish


def wish(
    names: Sequence[str], *, program: Path | None, flags: str | None, replace: bool, dynamic: bool
) -> Wish:
    """Return what is asked for. Raises UsageError for one interpreter for several architectures."""
    if program is not None and len(names) > 1:
        raise UsageError(
            "an interpreter runs the programs of one architecture",
            hint="register each with its own --interpreter",
        )
    return Wish(
        program=program.absolute() if program else None,
        flags=flags_of(FLAGS if flags is None else flags),
        over=replace,
        dynamic=dynamic,
    )


def register(names: Sequence[str], wanted: Wish, progress: Progress) -> list[str]:
    """Register handlers, and return a line on each."""
    if "C" in wanted.flags:
        progress.warn(
            "flag C: a user who brings a setuid program of this architecture is root here"
        )
    return _each(names, lambda one: registrar.register(one, wanted, progress), _registered)


def unregister(names: Sequence[str]) -> list[str]:
    """Take armvm's handlers back, and return a line on each."""
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
    assert handler is not None  # noqa: S101 - registered a moment ago
    text = f"{done.architecture}: {handler.name} runs {handler.interpreter}"
    if not done.changed:
        return f"{text} already; nothing is changed" + ("" if done.path else " (not armvm's)")
    waiting = f"; {', '.join(done.over)} waits behind it" if done.over else ""
    return f"{text}, also after a boot by {done.path}{waiting}"


def _left(done: Done) -> str:
    handler = done.handler
    if handler is None:
        return f"{done.architecture}: no handler is left"
    return f"{done.architecture}: {handler.name} runs {handler.interpreter}"
