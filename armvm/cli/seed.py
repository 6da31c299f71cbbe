"""``seed``: writes a NoCloud seed to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armvm.cli.context import print_json
from armvm.cli.options import Json, MachineOptions, with_machine_options
from armvm.cli.request import machine_of
from armvm.settings.user_path import given_path


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Files", epilog=_SEED_EXAMPLES)(seed)


_SEED_EXAMPLES = """Examples:

  armvm seed --name pi --user alice --output seed.iso

  armvm seed --user-data - --output - < setup.yaml > seed.iso"""


@with_machine_options(ip=None)
def seed(
    options: MachineOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="ISO file to write; - for standard output.",
            parser=given_path,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: Json = False,
) -> None:
    """Write a NoCloud seed (an ISO labelled cidata) to a file.

    The seed contains the guest's private ssh host key. armvm makes the file readable only for you;
    if you write to standard output, protect the key yourself.
    """
    from armvm.cli.context import standard_output
    from armvm.provision.machine.seed import make_seed, write_seed

    name = options.name or "arm64-01"
    if str(output) == "-":
        stdout = standard_output("a seed", json=json)
        stdout.write(make_seed(machine_of(options, name)))
        return
    facts = write_seed(machine_of(options, name), output, force=force)
    if json:
        print_json(facts)
    else:
        print(f"wrote {facts.path}: user {facts.user}, host key {facts.host_key}")
