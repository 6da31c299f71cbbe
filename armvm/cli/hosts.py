"""``hosts``: shows the hosts of the configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import print_json, print_rows
from armvm.cli.options import AnswerTimeout, Json

if TYPE_CHECKING:
    from armvm.provision.fleet.hosts import HostState

_COLUMNS = "HOST STATE LIBVIRT QEMU ARM64 CPUS VCPUS FREE MACHINES GOLDENS NOTE".split()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Host",
        epilog="Examples:\n\n  armvm hosts\n\n  armvm hosts lab1 lab2 --timeout 3 --json",
    )(hosts)


def hosts(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Names of hosts. Default: all in [hosts] of config.toml.",
            autocompletion=complete.hosts,
            show_default=False,
        ),
    ] = None,
    timeout: AnswerTimeout = 10.0,
    json: Json = False,
) -> None:
    """Show your hosts: whether they answer, versions, free resources, machines.

    armvm asks all hosts at the same time. ssh does not ask for a password: use a key. VCPUS are
    those of all running domains; FREE memory includes caches; MACHINES are running/all. The exit
    code is 6 if a host does not answer.
    """
    from armvm.base.paths import config_files
    from armvm.provision.fleet.hosts import chosen, no_answer, states

    found = states(chosen(names or [], config_files()), timeout)
    if json:
        print_json(found)
    elif found:
        print_rows(_COLUMNS, [_cells(one) for one in found])
    else:
        print("no host has a name: add [hosts] with armvm config edit", file=sys.stderr)
    down = [one.name for one in found if not one.reachable]
    if down:
        raise no_answer(down, len(found))


def _cells(one: HostState) -> list[str]:
    if not one.reachable:
        return [one.name, "down", *("-" for _ in _COLUMNS[3:]), one.reason or ""]
    return [
        one.name,
        "up",
        one.libvirt or "-",
        one.qemu or "-",
        one.accelerator or "no",
        str(one.cpus),
        str(one.running_vcpus),
        f"{(one.free_mib or 0) / 1024:.1f} of {(one.memory_mib or 0) / 1024:.1f} GiB",
        f"{one.running}/{one.machines}",
        str(len(one.goldens or [])),
        one.reason or "",
    ]
