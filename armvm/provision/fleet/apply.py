"""``armvm apply``: create the machines of a fleet file, and delete those no longer in it.

Each host is worked on in a process of its own, by the code of `armvm create`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from typing import Annotated, Any

from armvm.base.errors import ArmvmError, Conflict, HostError
from armvm.base.paths import config_files
from armvm.base.process import workers
from armvm.base.progress import Named, Progress
from armvm.base.result import Doc, MachineName
from armvm.host.connection import Connection
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import find_machine
from armvm.host.domain.instance import Instance, domain_names, instances
from armvm.host.domain.metadata import FleetMark
from armvm.provision import connect
from armvm.provision.fleet import hosts as asking
from armvm.provision.fleet.diff import (
    PLAIN,
    Action,
    Commands,
    Existing,
    On,
    Seen,
    Step,
    Wanted,
    compare,
)
from armvm.provision.golden import choose
from armvm.provision.golden.choose import find as find_golden
from armvm.provision.launch.launch import Created, known_source
from armvm.provision.launch.many import launch_all, plans
from armvm.provision.machine.create import Where, make_plan
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.plan import CreatePlan
from armvm.provision.machine.request import requested
from armvm.provision.machine.unfinished import is_left_behind
from armvm.settings import verify, warm
from armvm.settings.fleet import Fleet, Group
from armvm.settings.hosts import Host
from armvm.settings.layers import environment_layer
from armvm.settings.machine import Machine
from armvm.settings.table import SETTINGS
from armvm.settings.urls import without_login

#: Seconds that the processes of the hosts have to remove half-made machines after Ctrl-C.
_CLEANUP = 120.0
#: Seconds that a host has to check what its machines need.
_CHECK = 60.0
#: How many machines an error names.
_MANY = 5


@dataclass(frozen=True, kw_only=True)
class AppliedMachine:
    """A machine of the fleet, and what `armvm apply` did about it."""

    name: MachineName
    on: Annotated[str | None, Doc("Its host's name in [hosts]; null: the default connection.")]
    action: Annotated[
        Action,
        Doc(
            "create and delete: to be done; same: nothing to do; differs: it has other "
            "settings, and armvm leaves it; conflict: its name is taken; unknown: its host did "
            "not answer; surplus: not in the file, and kept without --prune."
        ),
    ]
    details: Annotated[list[str], Doc("Settings of a new machine, differences, or a reason.")]
    cure: Annotated[str | None, Doc("What you can do about it.")]
    done: Annotated[bool, Doc("Whether armvm created or deleted it now.")]
    ready_seconds: Annotated[
        float | None, Doc("Seconds until it was ready; null: armvm did not create it, or wait.")
    ]
    error: Annotated[str | None, Doc("Why it could not be created or deleted.")]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A fleet and the URIs of its hosts; a URI of None is the default connection.

    The hosts in *optional* are asked, but may be down.
    """

    fleet: Fleet
    uris: Mapping[On, str | None]
    optional: frozenset[On] = frozenset()


@dataclass(frozen=True, kw_only=True)
class How:
    """How machines are created, as for `armvm create`. ``parallel``: hosts at the same time."""

    start: bool
    wait: bool
    timeout: float | None
    parallel: int
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What has to be done, and the errors of hosts that did not answer."""

    steps: list[Step]
    down: Mapping[On, ArmvmError]


@dataclass(kw_only=True)
class Done:
    """What has been done so far, by host and name; filled while `carry_out` runs."""

    seconds: dict[tuple[On, str], float | None]
    errors: dict[tuple[On, str], ArmvmError]
    failures: list[ArmvmError]


def target(
    fleet: Fleet, known: Mapping[str, Host], connect: str | None, *, everywhere: bool
) -> Target:
    """Return the hosts that matter: the file's, and with *everywhere* all that have a name.

    The default connection matters too, because its machines may have left the file. *connect* is
    its URI. It may be down if the user did not name it and others are asked: the host that runs
    armvm may have no libvirt.
    """
    names = dict.fromkeys(one.on for one in fleet.machines)
    uris: dict[On, str | None] = {
        name: connect if name is None else known[name].uri for name in names
    }
    if everywhere:
        uris |= {name: one.uri for name, one in known.items() if name not in uris}
    if None in uris:
        return Target(fleet=fleet, uris=uris)
    optional: frozenset[On] = frozenset([None] if uris and connect is None else [])
    return Target(fleet=fleet, uris={**uris, None: connect}, optional=optional)


def survey(target: Target, *, prune: bool, commands: Commands = PLAIN) -> Survey:
    """Ask the hosts, all at the same time, and compare their machines with the file.

    *commands* are those that the steps suggest. Raises ConfigError and the other errors of
    settings that no machine can have.
    """
    wanted = _wanted(target.fleet)
    keys = {name or "": name for name in target.uris}
    answers = asking.ask(
        {key: target.uris[name] for key, name in keys.items()}, _look, asking.TIMEOUT
    )
    seen: dict[On, Seen | ArmvmError] = {keys[key]: one for key, one in answers.items()}
    return Survey(
        steps=compare(target.fleet, wanted, seen, prune=prune, commands=commands),
        down={
            on: one
            for on, one in seen.items()
            if isinstance(one, ArmvmError) and on not in target.optional
        },
    )


def problems(found: Survey, commands: Commands = PLAIN) -> list[ArmvmError]:
    """Return the errors that a survey found: hosts that are down, names that are taken."""
    failures: list[ArmvmError] = [
        HostError(
            f"{shown_host(on)} did not answer: {asking.few_words(error)}",
            hint=f"check it: {commands.on('doctor', on)}",
        )
        for on, error in found.down.items()
    ]
    failures += [
        Conflict(f"{one.name} on {shown_host(one.on)}: {', '.join(one.details)}", hint=one.cure)
        for one in found.steps
        if one.action is Action.CONFLICT
    ]
    return failures


def shown_host(on: On) -> str:
    """Return a host's name, for people."""
    return "the default connection" if on is None else on


def carry_out(
    target: Target, steps: Sequence[Step], how: How, done: Done, told: Callable[[Step], None]
) -> None:
    """Create and delete machines, and record in *done* what was done and what failed.

    Calls *told* for each machine that was created or deleted. A failure on one host does not stop
    the others. A machine that moves to another host is deleted only after it was created there. If
    the call is interrupted, complete machines stay, and the others are removed.
    """
    by_key = {(one.on, one.name): one for one in steps}

    def heard(key: str, value: Any) -> None:
        name, seconds = value
        on = key or None
        done.seconds[on, name] = seconds
        told(by_key[on, name])

    def run(action: Action, work: Callable[..., None]) -> None:
        mine = [one for one in steps if one.action is action]
        jobs: dict[On, list[Step]] = {}
        for one in mine:
            jobs.setdefault(one.on, []).append(one)
        outcomes = workers.run_all(
            {on or "": partial(work, target, target.uris[on], jobs[on], how) for on in jobs},
            parallel=how.parallel,
            patience=_CLEANUP,
            heard=heard,
        )
        for key, outcome in outcomes.items():
            if outcome.error is None:
                continue
            missed = [one for one in jobs[key or None] if (one.on, one.name) not in done.seconds]
            for one in missed:
                done.errors[one.on, one.name] = outcome.error
            done.failures.append(_on_host(key or None, outcome.error, action, missed))

    run(Action.CREATE, _create)
    missing = {name for _, name in done.errors}
    steps = [one for one in steps if not (one.action is Action.DELETE and one.name in missing)]
    run(Action.DELETE, _delete)


def _on_host(on: On, error: ArmvmError, action: Action, missed: Sequence[Step]) -> ArmvmError:
    """Return an error with its host, and the machines that were not created or deleted."""
    told = copy(error)
    names = [one.name for one in missed[:_MANY]]
    names += [f"{len(missed) - _MANY} more"] if len(missed) > _MANY else []
    what = f" (not {action.value}d: {', '.join(names)})" if names else ""
    told.message = f"{shown_host(on)}: {error.message}{what}"
    return told


def check(target: Target, steps: Sequence[Step], done: Done) -> None:
    """Record in *done* why machines cannot be created, for a dry run; asks no catalog.

    The hosts check what the plans name: goldens, image files, networks, pools and the rest.
    """
    jobs: dict[On, list[Step]] = {}
    for one in steps:
        if one.action is Action.CREATE:
            jobs.setdefault(one.on, []).append(one)

    def heard(key: str, value: Any) -> None:
        on = key or None
        table, error = value
        missed = [one for one in jobs[on] if _group(one).table == table]
        for one in missed:
            done.errors[one.on, one.name] = error
        done.failures.append(_on_host(on, error, Action.CREATE, missed))

    outcomes = workers.run_all(
        {on or "": partial(_check, target.uris[on], jobs[on]) for on in jobs},
        timeout=_CHECK,
        heard=heard,
    )
    for key, outcome in outcomes.items():
        if outcome.error is not None:
            on = key or None
            done.failures.append(_on_host(on, outcome.error, Action.CREATE, jobs[on]))


def results(steps: Sequence[Step], done: Done) -> list[AppliedMachine]:
    """Return what was done about each machine, for ``--json``."""
    found = []
    for one in steps:
        key = one.on, one.name
        error = done.errors.get(key)
        found.append(
            AppliedMachine(
                name=one.name,
                on=one.on,
                action=one.action,
                details=list(one.details),
                cure=one.cure,
                done=key in done.seconds,
                ready_seconds=done.seconds.get(key),
                error=None if error is None else error.message,
            )
        )
    return found


def _wanted(fleet: Fleet) -> list[Wanted]:
    """Return what each machine of the file must be, with the settings of the layers below it."""
    known: dict[str, tuple[dict[str, Any], str | None, str]] = {}
    for one in fleet.machines:
        if one.group.table not in known:
            known[one.group.table] = _demands(one.group, one.name)
    found = []
    for one in fleet.machines:
        fields, user, made_from = known[one.group.table]
        found.append(Wanted(machine=one, fields=fields, user=user, made_from=made_from))
    return found


def _demands(group: Group, name: str) -> tuple[dict[str, Any], str | None, str]:
    """Return the fields, the user and the source that a table's machines must have.

    A golden decides on what the file leaves open, so nothing else is compared then.
    """
    machine = _machine(group, name)
    fields = dict(machine.summary())
    if group.golden is None:
        return fields, machine.user, f"image {without_login(machine.image)}"
    given = {SETTINGS[key].field for key in group.values}
    given |= {"preset"} if group.preset else set()
    kept = {key: value for key, value in fields.items() if key in given}
    return kept, machine.user if "user" in group.values else None, f"golden {group.golden}"


def _machine(group: Group, name: str, golden: Golden | None = None) -> Machine:
    """Return a machine of a table. The environment overrides the file, unless there is a golden."""
    layers = [group.layer]
    preset = group.preset
    if group.golden is None:
        layers.insert(0, environment_layer(os.environ))
        preset = os.environ.get("ARMVM_PRESET") or preset
    base = None if golden is None else (f"golden {golden.name}", choose.settings_of(golden))
    return requested(
        name,
        layers,
        base=base,
        preset=preset,
        ssh_keys=group.ssh_keys,
        user_data=group.user_data,
        disks=group.disks,
        network_config=group.network_config,
    )


def _look(opened: Connection) -> Seen:
    machines = {one.name: _existing(one) for one in instances(opened)}
    return Seen(
        machines=machines,
        others=frozenset(name for name in domain_names(opened) if name not in machines),
    )


def _existing(instance: Instance) -> Existing:
    record = instance.record
    unfinished = is_left_behind(instance)
    return Existing(
        name=instance.name,
        uuid=instance.uuid,
        cpus=instance.cpus,
        memory_mib=instance.memory_mib,
        user=record.user,
        settings=record.settings,
        fleet=record.fleet,
        creating=record.creator is not None and not unfinished,
        unfinished=unfinished,
    )


def _check(uri: str | None, steps: Sequence[Step], send: workers.Send) -> None:
    """Plan a machine of each table on one host; send the tables that fail, with the error."""
    policy = verify.policy(None, os.environ, config_files())
    opened = connect.where(uri, None, policy)
    for group, name in {_group(one).table: (_group(one), one.name) for one in steps}.values():
        try:
            golden = None if group.golden is None else find_golden(opened, group.golden)
            machine = _machine(group, name, golden)
            where = replace(opened, pool=connect.pool_name(_pool(group.pool, golden)))
            make_plan(where, machine, known_source(where, machine, golden))
        except ArmvmError as error:
            send((group.table, error))


def _pool(asked: str | None, golden: Golden | None) -> str | None:
    """Return the pool for new machines; None is armvm's own."""
    pool = os.environ.get("ARMVM_POOL") or asked
    return pool if pool or golden is None else golden.mark.record.pool


def _create(
    target: Target, uri: str | None, steps: Sequence[Step], how: How, send: workers.Send
) -> None:
    """Create machines on one host, those of one golden and pool together. Raises the first error.

    Without a golden, machines that boot are waited for together.
    """
    progress = _named(how.progress, steps)
    policy = verify.policy(None, os.environ, config_files())
    failures: list[ArmvmError] = []
    opened = connect.where(uri, None, policy)

    def kind(step: Step) -> tuple[str, str]:
        return _group(step).golden or "", _group(step).pool or ""

    for (golden, pool), alike in groupby(sorted(steps, key=kind), key=kind):
        try:
            _create_alike(
                target, opened, golden or None, pool or None, list(alike), how, progress, send
            )
        except ArmvmError as error:
            failures.append(error)
    for other in failures[1:]:
        progress.warn(other.message)
    if failures:
        raise failures[0]


def _create_alike(
    target: Target,
    opened: Where,
    golden_name: str | None,
    pool: str | None,
    steps: Sequence[Step],
    how: How,
    progress: Progress,
    send: workers.Send,
) -> None:
    golden = None if golden_name is None else find_golden(opened, golden_name)
    where = replace(opened, pool=connect.pool_name(_pool(pool, golden)))

    def tell(plan: CreatePlan, created: Created) -> None:
        ready = created.ready
        send((plan.machine.name, None if ready is None else round(ready.boot.seconds, 1)))

    launch_all(
        where,
        chain.from_iterable(_planned(target.fleet, where, steps, golden, progress)),
        start=how.start,
        wait=how.wait,
        timeout=how.timeout,
        progress=progress,
        warm=choose.warm_for(
            golden_name, cold=False, policy=warm.policy(os.environ, config_files())
        ),
        tell=tell,
    )


def _planned(
    fleet: Fleet,
    where: Where,
    steps: Sequence[Step],
    golden: Golden | None,
    progress: Progress,
) -> Iterator[Iterator[CreatePlan]]:
    """Yield the plans of each table, marked as this fleet's."""
    for _, alike in groupby(steps, key=lambda step: _group(step).table):
        table = list(alike)
        group, names = _group(table[0]), [one.name for one in table]
        machine = _machine(group, names[0], golden)
        yield map(partial(_marked, fleet, group), plans(where, machine, names, progress, golden))


def _group(step: Step) -> Group:
    """Return the table of a machine that is in the file."""
    if step.machine is None:
        raise ValueError(f"{step.name} is not in the file")
    return step.machine.group


def _marked(fleet: Fleet, group: Group, plan: CreatePlan) -> CreatePlan:
    mark = FleetMark(name=fleet.name, machine=plan.machine.name, source=group.source or "")
    return replace(plan, record=replace(plan.record, fleet=mark))


def _delete(
    _target: Target, uri: str | None, steps: Sequence[Step], how: How, send: workers.Send
) -> None:
    """Delete machines on one host, unless they changed hands since they were seen."""
    opened = connect.connect(uri)
    failures: list[ArmvmError] = []
    for step in steps:
        try:
            machine = find_machine(opened, step.name)
            if machine.instance.uuid != step.uuid:
                raise Conflict(f"{step.name} was replaced by another machine meanwhile")
            delete_domain(machine)
            send((step.name, None))
        except ArmvmError as error:
            failures.append(error)
    for other in failures[1:]:
        _named(how.progress, steps).warn(other.message)
    if failures:
        raise failures[0]


def _named(progress: Progress, steps: Sequence[Step]) -> Progress:
    on = steps[0].on
    return progress if on is None else Named(on, progress)
