"""Replace an armvm handler in the kernel; on failure, restore the previous one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import Conflict, MissingCapability
from armvm.usermode.binfmt import binfmt_d, handlers, kernel
from armvm.usermode.binfmt.handlers import Table
from armvm.usermode.binfmt.own_file import Own
from armvm.usermode.binfmt.registration import Rule, line


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are: binfmt_misc and the directory that is read at boot.

    *uid* is the user who asks; None is this process's own.
    """

    root: Path = handlers.ROOT
    etc: Path = binfmt_d.ETC
    uid: int | None = None


def mounted(at: Places) -> Table:
    """Return the registered handlers; mounts binfmt_misc if necessary. Raises MissingCapability."""
    if not (at.root / "register").exists():
        kernel.mount(at.root)
    return handlers.read(at.root)


def taken(own: Own, table: Table) -> bool:
    """Return whether the handler with armvm's name is not the one that armvm registered."""
    live = table.named(own.rule.name)
    return live is not None and not own.rule.is_handler(live)


def untouched(own: Own, table: Table) -> None:
    """Raise Conflict if another program has changed armvm's handler."""
    live = table.named(own.rule.name)
    if live is not None and taken(own, table):
        raise Conflict(
            f"another tool has registered the handler {live.name} again since armvm did",
            detail=f"interpreter {live.interpreter}, flags {live.flags or 'none'}",
            hint=f"to leave it to that tool: rm {own.path}",
        )


def remove(own: Own, table: Table, at: Places) -> None:
    """Remove armvm's own handler from the kernel; raises Conflict if it was changed."""
    untouched(own, table)
    if table.named(own.rule.name) is not None:
        kernel.control(at.root, own.rule.name, "-1")


def swap(own: Own | None, rule: Rule, table: Table, at: Places, keep: Callable[[], None]) -> None:
    """Register a rule in place of armvm's handler, then *keep* it; undo it if either fails.

    A handler named ``armvm-ARCH`` without an armvm file is a leftover of such a failure.
    """
    live = table.named(rule.name)
    if live is not None and (own is not None or rule.name.startswith("armvm-")):
        kernel.control(at.root, rule.name, "-1")
    again = own.text if own is not None and live is not None else None
    try:
        kernel.register(at.root, line(rule))
        try:
            keep()
        except BaseException:
            kernel.control(at.root, rule.name, "-1")
            raise
    except BaseException:
        if again is not None:
            kernel.register(at.root, again)
        raise


def shown(rule: Rule, at: Places) -> None:
    """Check that the kernel lists the rule as registered."""
    found = handlers.read(at.root).named(rule.name)
    if found is None or not rule.is_handler(found):
        raise MissingCapability(
            f"the kernel accepted the handler {rule.name}, but lists it differently",
            hint=f"check {at.root / rule.name}",
        )
