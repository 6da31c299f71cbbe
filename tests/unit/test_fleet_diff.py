"""What `armvm apply` decides, from a fleet file and what exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import ConnectFailed
from armvm.host.domain.metadata import FleetMark
from armvm.provision.fleet.apply import Survey, problems, survey, target
from armvm.provision.fleet.diff import (
    Action,
    Commands,
    Existing,
    On,
    Seen,
    Step,
    Wanted,
    compare,
)
from armvm.settings.fleet import Fleet, FleetMachine, Group
from armvm.settings.hosts import Host
from armvm.settings.machine import Machine

DOWN = ConnectFailed("it is down")
SETTINGS = dict(Machine(name="any").summary())


def fleet(*machines: FleetMachine) -> Fleet:
    return Fleet(name="f", path=Path("fleet.toml"), machines=machines)


def wanted(name: str, on: On = "lab1", **more: Any) -> Wanted:
    group = Group(table=name, place="fleet.toml", values={}, golden=more.pop("golden", None))
    machine = FleetMachine(name=name, on=on, group=group)
    return Wanted(machine=machine, made_from="image x", **{"fields": SETTINGS, **more})


def existing(name: str, **more: Any) -> Existing:
    values: dict[str, Any] = {
        "uuid": f"uuid of {name}",
        "cpus": SETTINGS["cpus"],
        "memory_mib": SETTINGS["memory_mib"],
        "user": "ubuntu",
        "settings": SETTINGS,
        "fleet": FleetMark(name="f", machine=name),
    }
    return Existing(name=name, **{**values, **more})


def seen(*machines: Existing, others: tuple[str, ...] = ()) -> Seen:
    return Seen(machines={one.name: one for one in machines}, others=frozenset(others))


def decide(what: list[Wanted], there: dict[On, Any], *, prune: bool = True) -> list[Step]:
    return compare(fleet(*(one.machine for one in what)), what, there, prune=prune)


def only(what: Wanted, there: Seen) -> Step:
    [step] = decide([what], {what.machine.on: there})
    return step


def actions(steps: list[Step]) -> list[tuple[str, On, Action]]:
    return [(one.name, one.on, one.action) for one in steps]


def test_what_is_missing_is_created_and_what_is_there_is_left() -> None:
    steps = decide([wanted("a"), wanted("b", None)], {"lab1": seen(), None: seen(existing("b"))})
    assert actions(steps) == [("a", "lab1", Action.CREATE), ("b", None, Action.SAME)]
    assert steps[0].details == ("image x", "cpus 2", "mem 2048", "disk 10G")


def test_what_a_killed_create_left_is_created_again() -> None:
    assert only(wanted("a"), seen(existing("a", unfinished=True))).action is Action.CREATE


@pytest.mark.parametrize(
    ("changes", "details", "cure"),
    [
        ({"memory_mib": 4096}, "mem 2048 → 4096", "armvm resize --on lab1 a --mem 4096"),
        ({"cpus": 1}, "cpus 2 → 1", "armvm resize --on lab1 a --cpus 1"),
        ({"disk": 20 << 30}, "disk 10G → 20G", "armvm resize --on lab1 a --disk 20G"),
        ({"disk": 5 << 30}, "disk 10G → 5G", "armvm delete --on lab1 a, then armvm apply"),
        ({"headless": True}, "headless off → on", "armvm delete"),
        ({"network": "user"}, "network default → user", "armvm delete"),
        ({"preset": "minimal"}, "preset default → minimal", "armvm delete"),
        ({"cpus": 4, "motd": False}, "cpus 2 → 4; motd on → off", "armvm delete"),
    ],
)
def test_other_settings_are_reported_with_what_to_do(
    changes: dict[str, Any], details: str, cure: str
) -> None:
    step = only(wanted("a", fields={**SETTINGS, **changes}), seen(existing("a")))
    assert step.action is Action.DIFFERS
    assert "; ".join(step.details) == details
    assert cure in str(step.cure)


def test_user_and_source_are_compared() -> None:
    assert only(wanted("a", user="ubuntu"), seen(existing("a"))).action is Action.SAME
    assert only(wanted("a", user="me"), seen(existing("a"))).details == ("user ubuntu → me",)
    step = only(wanted("a", golden="ci"), seen(existing("a")))
    assert step.details == ("image default → golden ci",)
    mark = FleetMark(name="f", machine="a", source="golden ci")
    assert only(wanted("a", golden="ci"), seen(existing("a", fleet=mark))).action is Action.SAME


def test_what_other_tools_changed_counts_and_what_was_unknown_does_not() -> None:
    assert only(wanted("a"), seen(existing("a", cpus=3))).details == ("cpus 3 → 2",)
    assert only(wanted("a"), seen(existing("a", settings={}))).action is Action.SAME


@pytest.mark.parametrize(
    "there",
    [
        seen(others=("a",)),
        seen(existing("a", fleet=None)),
        seen(existing("a", fleet=FleetMark(name="other", machine="a"))),
        seen(existing("a", fleet=FleetMark(name="f", machine="b"))),
        seen(existing("a", creating=True)),
    ],
    ids=["no machine", "by hand", "another fleet", "renamed", "being created"],
)
def test_a_name_that_is_taken_is_left_alone(there: Seen) -> None:
    assert actions(decide([wanted("a")], {"lab1": there})) == [("a", "lab1", Action.CONFLICT)]


def test_only_this_fleets_machines_are_deleted_and_only_with_prune() -> None:
    there = seen(
        existing("mine"),
        existing("by-hand", fleet=None),
        existing("theirs", fleet=FleetMark(name="other", machine="theirs")),
        existing("renamed", fleet=FleetMark(name="f", machine="before")),
        existing("starting", creating=True),
    )
    steps = decide([], {"lab1": there})
    assert actions(steps) == [
        ("mine", "lab1", Action.DELETE), ("starting", "lab1", Action.SURPLUS)
    ]  # fmt: skip
    assert steps[0].uuid == "uuid of mine"
    [kept, _] = decide([], {"lab1": there}, prune=False)
    assert (kept.action, kept.cure) == (Action.SURPLUS, "delete it: armvm apply --prune")


def test_a_host_that_is_down_stops_no_other() -> None:
    steps = decide([wanted("a"), wanted("b", "lab2")], {"lab1": DOWN, "lab2": seen()})
    assert actions(steps) == [("a", "lab1", Action.UNKNOWN), ("b", "lab2", Action.CREATE)]


def test_a_machine_moves_to_another_host() -> None:
    steps = decide([wanted("a", "lab2")], {"lab1": seen(existing("a")), "lab2": seen()})
    assert actions(steps) == [("a", "lab2", Action.CREATE), ("a", "lab1", Action.DELETE)]
    # Not while the new host is down.
    steps = decide([wanted("a", "lab2")], {"lab1": seen(existing("a")), "lab2": DOWN})
    assert actions(steps) == [("a", "lab2", Action.UNKNOWN)]


@pytest.mark.parametrize(
    "there",
    [seen(others=("a",)), seen(existing("a", uuid="x", fleet=None))],
    ids=["no machine", "by hand"],
)
def test_a_machine_whose_name_is_taken_on_its_new_host_stays_where_it_is(there: Seen) -> None:
    steps = decide([wanted("a", "lab2")], {"lab1": seen(existing("a")), "lab2": there})
    assert actions(steps) == [("a", "lab2", Action.CONFLICT)]


def test_two_names_of_one_libvirt_delete_nothing_that_is_wanted() -> None:
    there = seen(existing("a"), existing("old"))
    steps = decide([wanted("a")], {"lab1": there, "same": there, None: there})
    assert actions(steps) == [("a", "lab1", Action.SAME), ("old", "lab1", Action.DELETE)]
    changed = seen(replace(existing("a"), cpus=9))
    assert actions(decide([wanted("a")], {"lab1": changed, "same": changed})) == [
        ("a", "lab1", Action.DIFFERS)
    ]


@pytest.mark.parametrize("old", ["\x1b[2J", {"a": 1}, [1], 1.5, "x" * 9999])
def test_metadata_that_somebody_edited_is_shown_safely(old: Any) -> None:
    for key in ("disk", "network", "headless", "preset"):
        [detail] = only(wanted("a"), seen(existing("a", settings={**SETTINGS, key: old}))).details
        assert detail.isprintable()
        assert len(detail) < 120


LABS = {
    name: Host(name=name, uri=f"qemu+ssh://{name}/system", place="config.toml")
    for name in ("lab1", "lab2")
}


@pytest.mark.parametrize(
    ("machines", "connect", "everywhere", "asked", "optional"),
    [
        ([], None, False, [None], []),
        ([], "test:///default", False, [None], []),
        (["lab1"], None, False, ["lab1", None], [None]),
        (["lab1"], "test:///default", False, ["lab1", None], []),
        (["lab1", None], None, False, ["lab1", None], []),
        ([], None, True, ["lab1", "lab2", None], [None]),
    ],
)
def test_the_default_connection_is_always_asked(
    machines: list[On], connect: str | None, everywhere: bool, asked: list[On], optional: list[On]
) -> None:
    there = fleet(*(wanted(f"m{on}", on).machine for on in machines))
    found = target(there, LABS, connect, everywhere=everywhere)
    assert list(found.uris) == asked
    assert found.uris[None] == connect
    assert found.optional == frozenset(optional)


def test_the_default_connection_may_be_down_only_if_nobody_named_it() -> None:
    nowhere = "qemu+unix:///system?socket=/nowhere"
    for optional, down in (([None], []), ([], [None])):
        asked = replace(
            target(fleet(), {}, nowhere, everywhere=False), optional=frozenset(optional)
        )
        assert list(survey(asked, prune=False).down) == down


def test_commands_name_the_file_and_the_host_as_given() -> None:
    commands = Commands(default=("--on", "lab1"), file="my lab.toml")
    what = wanted("a", None, fields={**SETTINGS, "headless": True})
    steps = compare(
        fleet(what.machine),
        [what],
        {None: seen(existing("a"), existing("b"))},
        prune=False,
        commands=commands,
    )
    assert [one.cure for one in steps] == [
        "create it again: armvm delete --on lab1 a, then armvm apply --on lab1 'my lab.toml'",
        "delete it: armvm apply --on lab1 'my lab.toml' --prune",
    ]
    [error] = problems(Survey(steps=[], down={None: DOWN}), commands)
    assert error.hint == "check it: armvm doctor --on lab1"
