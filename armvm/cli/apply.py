"""``apply``: creates the machines of a fleet file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.printable import printable_lines
from armvm.base.progress import Plain, Quiet
from armvm.cli.context import agreed, print_json, print_rows
from armvm.cli.options import Connect, Json, Timeout, default_words
from armvm.cli.options import Quiet as QuietOption
from armvm.settings.user_path import given_path

if TYPE_CHECKING:
    from armvm.base.errors import ArmvmError
    from armvm.provision.fleet.apply import Done
    from armvm.provision.fleet.diff import Step


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm apply --dry-run\n\n  armvm apply lab.toml --prune --yes",
    )(apply)


def apply(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Fleet file. Default: fleet.toml.",
            parser=given_path,
            show_default=False,
        ),
    ] = None,
    connect: Connect = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the differences and change nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete machines of this fleet that are not in the file any more."
        ),
    ] = False,
    parallel: Annotated[
        int,
        typer.Option(
            "--parallel",
            metavar="N",
            min=1,
            help="Number of hosts to work on at the same time. Default: 4.",
            show_default=False,
        ),
    ] = 4,
    start: Annotated[
        bool,
        typer.Option(
            "--start/--no-start", help="Start new machines. Default: start.", show_default=False
        ),
    ] = True,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Wait until you can log in. Default: wait.", show_default=False
        ),
    ] = True,
    timeout: Timeout = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: Json = False,
    quiet: QuietOption = False,
) -> None:
    """Create the machines of a fleet file on their hosts.

    armvm prints the differences first. It creates machines that are missing, and reports those
    that have other settings, with the command that changes them. It deletes machines only with
    --prune: those that it made for this fleet, and only after a confirmation.

    A failure on one host does not stop the others; the exit code is that of the first failure. On
    Ctrl-C, machines that are ready stay, and the others are removed. --connect or --on is for
    machines that have no host in the file.
    """
    from armvm.base.paths import config_files
    from armvm.provision.fleet.apply import (
        Done,
        How,
        carry_out,
        check,
        problems,
        results,
        survey,
        target,
    )
    from armvm.provision.fleet.diff import Action, Commands
    from armvm.settings.fleet import read_fleet
    from armvm.settings.hosts import hosts_in

    known = hosts_in(config_files())
    wanted = target(read_fleet(file or Path("fleet.toml"), known), known, connect, everywhere=prune)
    commands = Commands(default=default_words(context), file=None if file is None else str(file))
    found = survey(wanted, prune=prune, commands=commands)
    done = Done(seconds={}, errors={}, failures=problems(found, commands))
    if not json:
        _show(found.steps)
    lost = [_shown(one) for one in found.steps if one.action is Action.DELETE]
    question = f"Delete {', '.join(lost)} with all data?"
    loss = f"this permanently deletes {', '.join(lost)}"
    if lost and not dry_run and not agreed(yes, question, loss):
        return
    try:
        if dry_run:
            check(wanted, found.steps, done)
        else:
            progress = Quiet() if quiet else Plain(sys.stderr)
            how = How(start=start, wait=wait, timeout=timeout, parallel=parallel, progress=progress)
            carry_out(wanted, found.steps, how, done, lambda step: _tell(step, done, json))
    finally:
        if json:  # also after Ctrl-C, because some machines may exist
            print_json(results(found.steps, done))
    _raise(done.failures)


def _show(steps: list[Step]) -> None:
    """Print what has to be done: a line for each machine that is not as it should be."""
    from armvm.provision.fleet.diff import Action

    rows = [
        [one.action.value, one.on or "-", one.name, ", ".join(one.details)]
        for one in steps
        if one.action is not Action.SAME
    ]
    if rows:
        print_rows(["ACTION", "HOST", "NAME", "DETAILS"], rows)
    same = sum(one.action is Action.SAME for one in steps)
    if same or not rows:
        print(f"{same} machine{'' if same == 1 else 's'} unchanged")
    sys.stdout.flush()
    for one in steps:
        if one.action in (Action.DIFFERS, Action.SURPLUS) and one.cure is not None:
            print(f"{one.name}: {one.cure}", file=sys.stderr)


def _tell(step: Step, done: Done, json: bool) -> None:
    """Print that a machine was created or deleted."""
    from armvm.provision.fleet.diff import Action

    if json:
        return
    where = _shown(step)
    seconds = done.seconds[step.on, step.name]
    if step.action is Action.DELETE:
        print(f"{where} deleted", flush=True)
    elif seconds is None:
        print(f"{where} created", flush=True)
    else:
        print(f"{where} is ready after {seconds:g} s", flush=True)


def _shown(step: Step) -> str:
    """Return a machine's name with its host's."""
    return f"{step.name} on {step.on}" if step.on else step.name


def _raise(failures: list[ArmvmError]) -> None:
    """Raise the first failure, and print the others as warnings."""
    for other in failures[1:]:
        print(f"warning: {printable_lines(other.message)}", file=sys.stderr)
    if failures:
        raise failures[0]
