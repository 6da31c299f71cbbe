"""Which machine is meant. Apart from the verbs: `armvm ssh` needs nothing else of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from armvm.base.errors import ConfigError, Conflict, NotFound, UsageError
from armvm.host.connection import Connection, Domain
from armvm.host.domain.instance import Instance, find_domain, instances, observe
from armvm.provision.machine.unfinished import assert_whole, is_left_behind
from armvm.settings.names import shown

_GLOB = re.compile(r"[*?\[]")


def pick(
    connection: Connection, name: str | None, *, unfinished: bool = False
) -> tuple[Domain, Instance]:
    """Return the machine called *name*, or the only one there is.

    Raises NotFound, ConfigError when a name is needed to tell machines apart, and Conflict for one
    that is off and being made, or that a killed create left behind; with *unfinished*, not that.
    """
    domain, instance = _pick(connection, name)
    if not unfinished and not instance.running:
        assert_whole(instance)
    return domain, instance


def pick_many(
    connection: Connection,
    names: Sequence[str],
    *,
    every: bool = False,
    said: Callable[[str], None],
    unfinished: bool = False,
) -> list[tuple[Domain, Instance]]:
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
    found: dict[str, tuple[Domain, Instance]] = {}
    for pattern in ["*"] if every else names:
        if not _GLOB.search(pattern):
            found[pattern] = pick(connection, pattern, unfinished=unfinished)
            continue
        fitting = [one for one in there if fnmatchcase(one[1].name, pattern)]
        if not fitting and not every:
            raise NotFound(
                f"no machine fits {shown(pattern)}", hint="'armvm list' shows what there is"
            )
        for domain, instance in fitting:
            try:
                if not (unfinished and is_left_behind(instance)):
                    assert_whole(instance)
                found.setdefault(instance.name, (domain, instance))
            except Conflict as error:
                said(f"{error.message}: it is left out")
    return list(found.values())


def is_pattern(name: str) -> bool:
    """Tell whether a name is a pattern of names: no machine's has such characters."""
    return _GLOB.search(name) is not None


def _pick(connection: Connection, name: str | None) -> tuple[Domain, Instance]:
    if name is not None:
        domain = find_domain(connection, name)
        return domain, observe(domain)
    found = instances(connection)
    if not found:
        raise NotFound("there is no machine yet", hint="armvm create   makes one")
    if len(found) > 1:
        raise ConfigError(
            "there is more than one machine; which one?",
            hint="name one of " + ", ".join(instance.name for instance in found),
        )
    return find_domain(connection, found[0].name), found[0]


def pick_uuid(connection: Connection, uuid: str) -> tuple[Domain, Instance]:
    """Return the machine with a UUID. Raises NotFound."""
    for instance in instances(connection):
        if instance.uuid == uuid:
            return find_domain(connection, instance.name), instance
    raise NotFound(f"there is no machine with the UUID {shown(uuid)}")


def everything(connection: Connection) -> list[tuple[Domain, Instance]]:
    """Return all machines."""
    return [(find_domain(connection, one.name), one) for one in instances(connection)]
