"""Find the machines that a command names. Kept small, because `armvm ssh` needs only this."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from armvm.base.errors import ConfigError, Conflict, NotFound, UsageError
from armvm.host.connection import Connection
from armvm.host.domain.handle import Handle as Handle  # re-exported for callers of pick
from armvm.host.domain.handle import find_machine, observed
from armvm.host.domain.instance import Instance, find_by_uuid, find_domain, machines
from armvm.provision.machine.unfinished import assert_whole, is_left_behind
from armvm.settings.names import shown

_GLOB = re.compile(r"[*?\[]")


def pick(connection: Connection, name: str | None, *, unfinished: bool = False) -> Handle:
    """Return the machine called *name*, or the only machine if *name* is None.

    Raises NotFound, and ConfigError if a name is required because there are several machines.
    Unless *unfinished*, raises Conflict for a machine that is off and either still being created
    or left behind by a killed create.
    """
    machine = _pick(connection, name)
    member = machine.record.member
    if member is not None and member.waiting and not unfinished:
        raise Conflict(
            f"{machine.name} belongs to the pool of golden {machine.record.golden}",
            hint=f"take a machine from it: armvm create --from {machine.record.golden}",
        )
    if not unfinished and not machine.running:
        assert_whole(machine.instance)
    return machine


def pick_many(
    connection: Connection,
    names: Sequence[str],
    *,
    every: bool = False,
    said: Callable[[str], None],
    unfinished: bool = False,
) -> list[Handle]:
    """Return the machines that *names* and patterns (``*``, ``?``, ``[…]``) mean, each once.

    With *every*, returns all machines; without names and *every*, the only machine. Among machines
    that were not named individually, those still being created are skipped, and unless
    *unfinished* also those that a killed create left; each is reported to *said*. Raises
    UsageError for names together with *every*, NotFound for a pattern without a match, and the
    errors of `pick`.
    """
    if every and names:
        raise UsageError("names and --all cannot be used together")
    if not names and not every:
        return [pick(connection, None, unfinished=unfinished)]
    patterns = ["*"] if every else names
    there = everything(connection) if any(map(is_pattern, patterns)) else []
    found: dict[str, Handle] = {}
    for pattern in patterns:
        if not is_pattern(pattern):
            found[pattern] = pick(connection, pattern, unfinished=unfinished)
            continue
        fitting = [one for one in there if fnmatchcase(one.name, pattern)]
        if not fitting and not every:
            raise NotFound(
                f"no machine matches {shown(pattern)}", hint="list the machines: armvm list"
            )
        for machine in fitting:
            try:
                if not (unfinished and is_left_behind(machine.instance)):
                    assert_whole(machine.instance)
                found.setdefault(machine.name, machine)
            except Conflict as error:
                said(f"{error.message}; skipping it")
    return list(found.values())


def is_pattern(name: str) -> bool:
    """Return whether a name is a pattern. Names of machines never contain its characters."""
    return _GLOB.search(name) is not None


def _pick(connection: Connection, name: str | None) -> Handle:
    if name is not None:
        return find_machine(connection, name)
    found = machines(connection)
    if not found:
        raise NotFound("no machines found", hint="create one: armvm create")
    if len(found) > 1:
        raise ConfigError(
            "NAME is required: there are several machines",
            hint="choose one of " + ", ".join(instance.name for instance in found),
        )
    return _handle(connection, found[0])


def pick_uuid(connection: Connection, uuid: str) -> Handle:
    """Return the machine with a UUID. Raises NotFound."""
    return observed(connection, find_by_uuid(connection, uuid))


def everything(connection: Connection) -> list[Handle]:
    """Return all machines. One that disappears meanwhile is left out."""
    found = []
    for one in machines(connection):
        with contextlib.suppress(NotFound):
            found.append(_handle(connection, one))
    return found


def _handle(connection: Connection, instance: Instance) -> Handle:
    domain = find_domain(connection, instance.name)
    return Handle(connection=connection, domain=domain, instance=instance)
