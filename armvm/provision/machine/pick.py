"""Which machine is meant. Apart from the verbs: `armvm ssh` needs nothing else of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from armvm.base.errors import ConfigError, Conflict, NotFound, UsageError
from armvm.host.connection import Connection
from armvm.host.domain.handle import Handle as Handle  # also for those who pick
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import Instance, find_domain, instances
from armvm.provision.machine.unfinished import assert_whole, is_left_behind
from armvm.settings.names import shown

_GLOB = re.compile(r"[*?\[]")


def pick(connection: Connection, name: str | None, *, unfinished: bool = False) -> Handle:
    """Return the machine called *name*, or the only one there is.

    Raises NotFound, ConfigError when a name is needed to tell machines apart, and Conflict for one
    that is off and being made, or that a killed create left behind; with *unfinished*, not that.
    """
    machine = _pick(connection, name)
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

    With *every*, all; without both, the only one there is. Of those that nobody named, the ones
    that are being made, and unless *unfinished* those that a killed create left, are left out and
    *said*. Raises UsageError for names and *every* together, NotFound for what fits no machine, and
    what `pick` raises.
    """
    if every and names:
        raise UsageError("either names or --all")
    if not names and not every:
        return [pick(connection, None, unfinished=unfinished)]
    there = everything(connection)
    found: dict[str, Handle] = {}
    for pattern in ["*"] if every else names:
        if not _GLOB.search(pattern):
            found[pattern] = pick(connection, pattern, unfinished=unfinished)
            continue
        fitting = [one for one in there if fnmatchcase(one.name, pattern)]
        if not fitting and not every:
            raise NotFound(
                f"no machine fits {shown(pattern)}", hint="'armvm list' shows what there is"
            )
        for machine in fitting:
            try:
                if not (unfinished and is_left_behind(machine.instance)):
                    assert_whole(machine.instance)
                found.setdefault(machine.name, machine)
            except Conflict as error:
                said(f"{error.message}: it is left out")
    return list(found.values())


def is_pattern(name: str) -> bool:
    """Tell whether a name is a pattern of names: no machine's has such characters."""
    return _GLOB.search(name) is not None


def _pick(connection: Connection, name: str | None) -> Handle:
    if name is not None:
        return find_machine(connection, name)
    found = instances(connection)
    if not found:
        raise NotFound("there is no machine yet", hint="armvm create   makes one")
    if len(found) > 1:
        raise ConfigError(
            "there is more than one machine; which one?",
            hint="name one of " + ", ".join(instance.name for instance in found),
        )
    return _handle(connection, found[0])


def pick_uuid(connection: Connection, uuid: str) -> Handle:
    """Return the machine with a UUID. Raises NotFound."""
    for instance in instances(connection):
        if instance.uuid == uuid:
            return _handle(connection, instance)
    raise NotFound(f"there is no machine with the UUID {shown(uuid)}")


def everything(connection: Connection) -> list[Handle]:
    """Return all machines."""
    return [_handle(connection, one) for one in instances(connection)]


def _handle(connection: Connection, instance: Instance) -> Handle:
    domain = find_domain(connection, instance.name)
    return Handle(connection=connection, domain=domain, instance=instance)
