"""Register armvm's handlers, and remove them: `armvm binfmt register|unregister`.

`armvm.usermode.binfmt.own_file` says how other tools' handlers stay untouched. Two things
are changed, in this order: the kernel's table (which judges the line) and the file in
/etc/binfmt.d (which makes it last); where the second fails, the first is undone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from armvm.base.errors import Conflict, NotFound, PermissionDenied
from armvm.base.progress import Progress
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt import handlers, own_file
from armvm.usermode.binfmt import replace as exchange
from armvm.usermode.binfmt.handlers import Handler, Table
from armvm.usermode.binfmt.own_file import Own
from armvm.usermode.binfmt.registration import line
from armvm.usermode.binfmt.replace import Places
from armvm.usermode.binfmt.request import Request, rule_of


@dataclass(frozen=True, kw_only=True)
class Done:
    """The result: the handler that now matches the architecture's programs, if any.

    *changed* is false if nothing had to be done; *over* are other tools' handlers that also match
    and have lower precedence.
    """

    architecture: str
    changed: bool
    handler: Handler | None
    over: tuple[str, ...] = ()
    path: Path | None = None


def register(
    architecture: Architecture, request: Request, progress: Progress, places: Places | None = None
) -> Done:
    """Register an armvm handler for an architecture, now and at every boot.

    Where an enabled handler does the same already, nothing is changed. Raises Conflict where
    another tool's handler, or its file, has the architecture and the request does not override it.
    """
    at = places or Places()
    _need_root(at)
    rule = rule_of(architecture, request, progress)
    table = exchange.mounted(at)
    if not table.on:
        raise Conflict(
            "binfmt_misc is disabled, so the kernel does not use handlers",
            hint=f"sudo sh -c 'echo 1 > {at.root / 'status'}'",
        )
    own = own_file.read(architecture, at.etc)
    winner = table.winner(architecture.magic)
    mine = own is not None and winner is not None and own.rule.is_handler(winner)
    same = winner is not None and rule.is_handler(winner, whatever_name=True)
    if same and (mine or not request.over):
        return _done(architecture, at, changed=False)
    if not mine and not request.over:
        _nobody_elses(architecture, table, at, own)
    if own is not None and exchange.taken(own, table) and own.rule.name.startswith("qemu-"):
        own_file.remove(own)  # the name is somebody else's now: the second one is for that
        own = None
    name, file = _name(architecture, table, at, own)
    rule = replace(rule, name=name)
    text = line(rule)

    def keep() -> None:
        exchange.shown(rule, at)
        own_file.write(Own(path=at.etc / file, text=text, rule=rule), architecture)

    exchange.swap(own, rule, table, at, keep)
    return _done(architecture, at, changed=True)


def unregister(architecture: Architecture, places: Places | None = None) -> Done:
    """Take armvm's handler for an architecture back; what others registered is as it was.

    Raises NotFound where armvm registered none, Conflict where it has changed since.
    """
    at = places or Places()
    own = _own(architecture, at)
    _need_root(at)
    exchange.remove(own, handlers.read(at.root), at)
    own_file.remove(own)
    return _done(architecture, at, changed=True)


def _nobody_elses(architecture: Architecture, table: Table, at: Places, own: Own | None) -> None:
    """Raise Conflict if another tool has a handler (enabled or not) or a file for this."""
    others = [
        one
        for one in table.handlers
        if (one.takes(architecture.magic) or one.name == f"qemu-{architecture.name}")
        and not (own is not None and own.rule.is_handler(one))
    ]
    command = f"armvm binfmt register {architecture.name} --replace"
    if others:
        first = others[0]
        state = "" if first.enabled else ", which is disabled"
        raise Conflict(
            f"another tool's handler for {architecture.name} already exists: {first.name}{state}",
            detail=f"interpreter {first.interpreter}, flags {first.flags or 'none'}",
            hint=f"{command} gives armvm's precedence until armvm binfmt unregister"
            + ("" if first.enabled else f"; or enable it: echo 1 > {at.root / first.name}"),
        )
    path = at.etc / f"qemu-{architecture.name}.conf"
    if path.exists() and own is None:
        raise Conflict(
            f"{path} already exists: another tool's file for the next boot",
            hint=f"{command} adds armvm's file after it, which then takes precedence",
        )


def _name(architecture: Architecture, table: Table, at: Places, own: Own | None) -> tuple[str, str]:
    """Return the names of the handler and its file."""
    if own is not None:
        return own.rule.name, own.path.name
    common, second = own_file.names(architecture)
    taken = table.named(common[0]) is not None or (at.etc / common[1]).exists()
    return second if taken else common


def _own(architecture: Architecture, at: Places) -> Own:
    own = own_file.read(architecture, at.etc)
    if own is None:
        raise NotFound(
            f"armvm has registered no handler for {architecture.name}",
            hint=f"armvm binfmt status {architecture.name} shows who did",
        )
    return own


def _done(architecture: Architecture, at: Places, *, changed: bool) -> Done:
    table = handlers.read(at.root)
    own = own_file.read(architecture, at.etc)
    winner = table.winner(architecture.magic)
    others = [one for one in table.takers(architecture.magic) if one != winner]
    return Done(
        architecture=architecture.name,
        changed=changed,
        handler=winner,
        over=tuple(one.name for one in others),
        path=own.path if own else None,
    )


def _need_root(at: Places) -> None:
    if (os.geteuid() if at.uid is None else at.uid) != 0:
        raise PermissionDenied(
            "only root can change this host's binfmt handlers",
            hint="run it with sudo; armvm emulate FILE runs one program without a handler",
        )
