"""Registering handlers of armvm's own, and taking them back: `armvm binfmt register` and its kin.

How that leaves other tools' handlers untouched is told in `armvm.usermode.ownfile`. Two things
are changed, in this order: the kernel's table (which judges the line) and the file in
/etc/binfmt.d (which makes it last); where the second fails, the first is undone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from armvm.errors import ArmvmError, Conflict, MissingCapability, NotFound, PermissionDenied
from armvm.progress import Progress
from armvm.usermode import binfmtd, handlers, interpreter, kernel, ownfile
from armvm.usermode.architectures import Architecture
from armvm.usermode.handlers import Handler, Table
from armvm.usermode.ownfile import Own
from armvm.usermode.registration import FLAGS, Rule, line, parse_line, rule_for


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are: binfmt_misc, the directory written to, and all that are read at boot."""

    root: Path = handlers.ROOT
    etc: Path = binfmtd.ETC
    boot: tuple[Path, ...] = binfmtd.DIRECTORIES


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to register: *program* None is the best that is installed.

    *over* lets it go before another tool's handler, *dynamic* lets a dynamic interpreter have F.
    """

    program: Path | None = None
    flags: str = FLAGS
    over: bool = False
    dynamic: bool = False


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of it: the handler that now takes the architecture's programs, if any.

    *changed* is false where everything was so already; *over* are handlers of others that match
    too and wait behind it.
    """

    architecture: str
    changed: bool
    handler: Handler | None
    over: tuple[str, ...] = ()
    path: Path | None = None


def rule_of(architecture: Architecture, wish: Wish, progress: Progress) -> Rule:
    """Return the rule that a wish comes to, its interpreter looked at.

    Raises NotFound and MissingCapability for an interpreter that cannot do it, ConfigError for
    what the kernel would refuse.
    """
    path = wish.program or interpreter.find(architecture)
    rule = rule_for(architecture, str(path), flags=wish.flags)
    line(rule)
    found = interpreter.look(str(path), version=False)
    if found.problem is not None:
        raise NotFound(
            f"the interpreter {path} cannot be used: {found.problem}",
            hint="--interpreter FILE takes the path of a qemu-ARCH that can be executed",
        )
    if found.static is False and "F" in wish.flags and not wish.dynamic:
        raise MissingCapability(
            f"{path} is dynamically linked, so flag F would not make it work in other roots",
            detail=f"in a chroot or a container the kernel looks there for its loader "
            f"{found.loader} and then it for its libraries; none of them is there",
            hint="take a static one (package qemu-user-static), or say --dynamic if it is for "
            "this root alone",
        )
    loose = interpreter.others_can_write(path)
    if loose is not None:
        progress.warn(
            f"{loose} can be changed by others than root, and with it what {architecture.name} "
            "programs run as, root's too"
        )
    return rule


def line_of(architecture: Architecture, wish: Wish, progress: Progress) -> str:
    """Return the line that a wish comes to; raises as `rule_of` does."""
    return line(rule_of(architecture, wish, progress))


def register(
    architecture: Architecture, wish: Wish, progress: Progress, places: Places | None = None
) -> Done:
    """Register a handler of armvm's for an architecture, now and at every boot.

    Where an enabled handler does the same already, nothing is changed. Raises Conflict where
    another tool's handler, or its file, has the architecture and the wish is not to go before it.
    """
    at = places or Places()
    rule = rule_of(architecture, wish, progress)
    _need_root(architecture)
    table = _mounted(at)
    own = ownfile.read(architecture, at.etc)
    winner = table.winner(architecture.magic)
    mine = own is not None and winner is not None and own.rule.is_handler(winner)
    if winner is not None and rule.is_handler(winner, whatever_name=True) and table.on:
        if mine or not wish.over:
            return _done(architecture, at, changed=False)
    if not mine and not wish.over:
        _nobody_elses(architecture, table, at, own)
    name, file = _name(architecture, table, at, own)
    rule = replace(rule, name=name)
    text = line(rule)
    _remove(own, table, at, over=wish.over)
    try:
        kernel.register(at.root, text)
        _shown(rule, at)
        before = (*own.before, own.text) if own and own.text != text else own and own.before
        ownfile.write(
            Own(path=at.etc / file, text=text, rule=rule, before=before or ()), architecture
        )
    except BaseException:
        _put_back(own, name, at)
        raise
    return _done(architecture, at, changed=True)


def unregister(architecture: Architecture, places: Places | None = None) -> Done:
    """Take armvm's handler for an architecture back; what others registered is as it was.

    Raises NotFound where armvm registered none, Conflict where it has changed since.
    """
    at = places or Places()
    own = _own(architecture, at)
    _need_root(architecture)
    _remove(own, handlers.read(at.root), at, over=False)
    ownfile.remove(own)
    return _done(architecture, at, changed=True)


def revert(architecture: Architecture, places: Places | None = None) -> Done:
    """Go back to what armvm had registered before; from the first, to before armvm.

    Raises NotFound where armvm registered nothing, Conflict where it has changed since or the
    interpreter of then is gone.
    """
    at = places or Places()
    own = _own(architecture, at)
    if not own.before:
        return unregister(architecture, at)
    _need_root(architecture)
    text = own.before[-1]
    rule = parse_line(text)
    if rule is None or rule.name != own.rule.name:
        raise Conflict(f"{own.path} has been changed", hint=f"look at it: {text!r}")
    found = interpreter.look(rule.interpreter, version=False)
    if found.problem is not None:
        raise Conflict(
            f"the interpreter of before, {rule.interpreter}, cannot be used: {found.problem}",
            hint=f"armvm binfmt unregister {architecture.name} goes back to before armvm",
        )
    table = _mounted(at)
    _remove(own, table, at, over=False)
    try:
        kernel.register(at.root, text)
        ownfile.write(replace(own, text=text, rule=rule, before=own.before[:-1]), architecture)
    except BaseException:
        _put_back(own, rule.name, at)
        raise
    return _done(architecture, at, changed=True)


def reset(architecture: Architecture, places: Places | None = None) -> Done:
    """Make an architecture's handlers what a boot would make them, without armvm's.

    All handlers for it are removed, whoever registered them; then those that binfmt.d(5) declares
    are registered, in its order. What a container or binfmt-support registered is gone.
    """
    at = places or Places()
    _need_root(architecture)
    table = _mounted(at)
    while (own := ownfile.read(architecture, at.etc)) is not None:
        ownfile.remove(own)
    for one in table.takers(architecture.magic):
        kernel.control(at.root, one.name, "-1")
    trouble: ArmvmError | None = None
    for declared in binfmtd.declared(at.boot):
        made = Handler(
            name=declared.rule.name,
            enabled=True,
            interpreter="",
            flags="",
            offset=declared.rule.offset,
            magic=declared.rule.magic,
            mask=declared.rule.mask,
        )
        if made.takes(architecture.magic):
            try:
                kernel.register(at.root, declared.text)
            except ArmvmError as error:
                trouble = error
    if trouble is not None:
        raise trouble
    return _done(architecture, at, changed=True)


def _nobody_elses(architecture: Architecture, table: Table, at: Places, own: Own | None) -> None:
    """Raise Conflict where others have this architecture: a handler, on or off, or a file."""
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
            f"{architecture.name} programs have a handler that is not armvm's: {first.name}{state}",
            detail=f"interpreter {first.interpreter}, flags {first.flags or 'none'}",
            hint=f"{command} puts armvm's before it until armvm binfmt unregister"
            + ("" if first.enabled else f"; or enable it: echo 1 > {at.root / first.name}"),
        )
    path = at.etc / f"qemu-{architecture.name}.conf"
    if path.exists() and own is None:
        raise Conflict(
            f"{path} is there and not armvm's, so it is somebody's wish for the next boot",
            hint=f"{command} puts armvm's after it, which then goes before",
        )


def _name(
    architecture: Architecture, table: Table, at: Places, own: Own | None
) -> tuple[str, str]:
    """Return what the handler and its file are called."""
    if own is not None:
        return own.rule.name, own.path.name
    common, second = ownfile.names(architecture)
    taken = table.named(common[0]) is not None or (at.etc / common[1]).exists()
    return second if taken else common


def _remove(own: Own | None, table: Table, at: Places, *, over: bool) -> None:
    """Remove armvm's own handler from the kernel; one of its name that differs is not armvm's."""
    live = table.named(own.rule.name) if own else None
    if own is None or live is None:
        return
    if not own.rule.is_handler(live) and not (over and live.name.startswith("armvm-")):
        raise Conflict(
            f"the handler {live.name} is not as armvm registered it; somebody else did since",
            detail=f"interpreter {live.interpreter}, flags {live.flags or 'none'}",
            hint=f"rm {own.path} leaves it to them; armvm binfmt reset takes out both",
        )
    kernel.control(at.root, live.name, "-1")


def _put_back(own: Own | None, name: str, at: Places) -> None:
    """Undo a registration that did not come to its end."""
    live = handlers.read(at.root).named(name)
    if live is not None and (own is None or not own.rule.is_handler(live)):
        kernel.control(at.root, name, "-1")
        live = None
    if own is not None and live is None:
        kernel.register(at.root, own.text)


def _shown(rule: Rule, at: Places) -> None:
    """Check that the kernel shows what it took."""
    found = handlers.read(at.root).named(rule.name)
    if found is None or not rule.is_handler(found):
        raise MissingCapability(
            f"the kernel took the handler {rule.name}, but does not show it so",
            hint=f"look at {at.root / rule.name}",
        )


def _own(architecture: Architecture, at: Places) -> Own:
    own = ownfile.read(architecture, at.etc)
    if own is None:
        raise NotFound(
            f"armvm has registered no handler for {architecture.name}",
            hint=f"armvm binfmt status {architecture.name} shows who did; "
            f"armvm binfmt reset {architecture.name} makes it as after a boot",
        )
    return own


def _mounted(at: Places) -> Table:
    if not (at.root / "register").exists():
        kernel.mount(at.root)
    return handlers.read(at.root)


def _done(architecture: Architecture, at: Places, *, changed: bool) -> Done:
    table = handlers.read(at.root)
    own = ownfile.read(architecture, at.etc)
    winner = table.winner(architecture.magic)
    others = [one for one in table.takers(architecture.magic) if one != winner]
    return Done(
        architecture=architecture.name,
        changed=changed,
        handler=winner,
        over=tuple(one.name for one in others),
        path=own.path if own else None,
    )


def _need_root(architecture: Architecture) -> None:
    if os.geteuid() != 0:
        raise PermissionDenied(
            "only root can change this host's binfmt handlers",
            hint=f"sudo armvm binfmt register {architecture.name}; or --user, which registers "
            "it in a user namespace of your own (Linux 6.7)",
        )
