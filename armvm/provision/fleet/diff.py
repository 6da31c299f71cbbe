"""Compare a fleet file with what exists. Pure: decides, and changes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from armvm.base.errors import ArmvmError
from armvm.host.domain.metadata import FleetMark
from armvm.settings.fleet import Fleet, FleetMachine
from armvm.settings.names import shown
from armvm.settings.table import SETTINGS

#: A host's name; None is the default connection.
On = str | None
#: The settings that `armvm resize` changes.
_RESIZED = ("cpus", "mem", "disk")


class Action(Enum):
    """What has to be done about a machine, or why nothing is."""

    CREATE = "create"
    SAME = "same"
    #: It exists with other settings. armvm reports it and changes nothing.
    DIFFERS = "differs"
    #: Its name is taken by a machine that was not made for this fleet.
    CONFLICT = "conflict"
    #: Its host did not answer.
    UNKNOWN = "unknown"
    DELETE = "delete"
    #: It was made for this fleet, and is not in the file any more.
    SURPLUS = "surplus"


@dataclass(frozen=True, kw_only=True)
class Existing:
    """A machine on a host. ``unfinished`` was left by a killed create, which a new one removes."""

    name: str
    uuid: str
    cpus: int
    memory_mib: int
    user: str
    settings: Mapping[str, Any]
    fleet: FleetMark | None = None
    creating: bool = False
    unfinished: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A host's machines by name, and the names of its other domains."""

    machines: Mapping[str, Existing] = field(default_factory=dict)
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A machine of the file. ``fields`` are the fields of a Machine that an existing one must have.

    A ``user`` of None is the image's own. ``made_from`` is the image or the golden, for people.
    """

    machine: FleetMachine
    fields: Mapping[str, Any]
    made_from: str
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A machine, and what has to be done about it. ``cure`` is what the user can do."""

    name: str
    on: On
    action: Action
    details: tuple[str, ...] = ()
    cure: str | None = None
    uuid: str | None = None
    machine: FleetMachine | None = None


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The commands that messages suggest, with what the user gave to apply the file.

    ``default`` are the words that choose the default connection: ``--on HOST``, ``--connect URI``,
    or none. ``file`` is the fleet file as given; None is fleet.toml.
    """

    default: tuple[str, ...] = ()
    file: str | None = None

    def apply(self, *options: str) -> str:
        """Return the command that applies the file, quoted for a shell."""
        file = () if self.file is None else (self.file,)
        return shlex.join(["armvm", "apply", *self.default, *file, *options])

    def on(self, verb: str, on: On) -> str:
        """Return a command's verb with its host, quoted for a shell."""
        return shlex.join(["armvm", verb, *(self.default if on is None else ("--on", on))])


#: The commands without a host and a file.
PLAIN = Commands()


def compare(
    fleet: Fleet,
    wanted: Sequence[Wanted],
    seen: Mapping[On, Seen | ArmvmError],
    *,
    prune: bool,
    commands: Commands = PLAIN,
) -> list[Step]:
    """Return a step for each machine of the file, in its order, and for each surplus machine."""
    steps = [_step(fleet, one, seen[one.machine.on], commands) for one in wanted]
    kept = {step.uuid for step in steps if step.uuid is not None}
    # A machine whose new host does not answer, or has another domain of that name, cannot move
    # there. Where a host does not answer, another name may also lead to the same libvirt.
    stuck = {step.name for step in steps if step.action in (Action.UNKNOWN, Action.CONFLICT)}
    for on, there in seen.items():
        if isinstance(there, ArmvmError):
            continue
        for one in there.machines.values():
            if _is_ours(fleet, one) and one.uuid not in kept and one.name not in stuck:
                kept.add(one.uuid)  # two names of hosts can mean one libvirt
                steps.append(_surplus(on, one, commands, prune=prune))
    return steps


def _step(fleet: Fleet, wanted: Wanted, there: Seen | ArmvmError, commands: Commands) -> Step:
    machine = wanted.machine
    name, on = machine.name, machine.on

    def step(action: Action, *details: str, **more: Any) -> Step:
        return Step(name=name, on=on, action=action, details=details, machine=machine, **more)

    if isinstance(there, ArmvmError):
        return step(Action.UNKNOWN, "its host did not answer")
    if name in there.others:
        return step(Action.CONFLICT, "another domain has this name")
    one = there.machines.get(name)
    if one is None or one.unfinished:  # create removes what a killed one left
        return step(Action.CREATE, *_summary(wanted), uuid=None if one is None else one.uuid)
    if one.creating:
        return step(Action.CONFLICT, "another armvm is creating it", uuid=one.uuid)
    if not _is_ours(fleet, one):
        return step(
            Action.CONFLICT,
            f"it exists, but was not made for the fleet {fleet.name}",
            cure=f"choose another name, or delete it: {commands.on('delete', on)} {name}",
            uuid=one.uuid,
        )
    changes = list(_changes(wanted, one))
    if not changes:
        return step(Action.SAME, uuid=one.uuid)
    return step(
        Action.DIFFERS,
        *(f"{key} {_text(key, old)} → {_text(key, new)}" for key, old, new in changes),
        cure=_cure(name, on, changes, commands),
        uuid=one.uuid,
    )


def _surplus(on: On, one: Existing, commands: Commands, *, prune: bool) -> Step:
    if one.creating:
        return Step(name=one.name, on=on, action=Action.SURPLUS, details=("being created",))
    return Step(
        name=one.name,
        on=on,
        action=Action.DELETE if prune else Action.SURPLUS,
        details=("not in the file",),
        cure=None if prune else f"delete it: {commands.apply('--prune')}",
        uuid=one.uuid,
    )


def _is_ours(fleet: Fleet, one: Existing) -> bool:
    """Return whether a machine was made for a fleet, and still has the name it was made with."""
    mark = one.fleet
    return mark is not None and mark.name == fleet.name and mark.machine == one.name


def _changes(wanted: Wanted, one: Existing) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, old and new value of each difference.

    CPUs and memory are the definition's, which other tools change too. A setting that the record
    lacks was not known when the machine was made.
    """
    old = {**one.settings, "cpus": one.cpus, "memory_mib": one.memory_mib}
    keys = {setting.field: key for key, setting in SETTINGS.items()}
    for name, value in wanted.fields.items():
        if name in old and old[name] != value:
            yield keys.get(name, name), old[name], value
    if wanted.user is not None and wanted.user != one.user:
        yield "user", one.user, wanted.user
    source = wanted.machine.group.source or ""
    if one.fleet is not None and one.fleet.source != source:
        yield "image", one.fleet.source or None, source or None


def _cure(name: str, on: On, changes: Sequence[tuple[str, Any, Any]], commands: Commands) -> str:
    if all(_can_resize(key, old, new) for key, old, new in changes):
        flags = " ".join(f"--{key} {SETTINGS[key].write(new)}" for key, _, new in changes)
        return f"{commands.on('resize', on)} {name} {flags}"
    return f"create it again: {commands.on('delete', on)} {name}, then {commands.apply()}"


def _can_resize(key: str, old: Any, new: Any) -> bool:
    """Return whether `armvm resize` makes a change; it does not shrink disks."""
    return key in _RESIZED and (key != "disk" or (isinstance(old, int) and old < new))


def _summary(wanted: Wanted) -> list[str]:
    """Return what a new machine will be, from the values that the file and its defaults fix."""
    fields = wanted.fields
    shown = [
        f"{key} {_text(key, fields[SETTINGS[key].field])}"
        for key in _RESIZED
        if SETTINGS[key].field in fields
    ]
    return [wanted.made_from, *shown]


def _text(key: str, value: Any) -> str:
    """Return a value for people. An old one is from metadata, which anybody may have edited."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and key in SETTINGS:
        return SETTINGS[key].write(value)
    text = str(value)
    return text if text.isprintable() and len(text) <= 60 else shown(text)
