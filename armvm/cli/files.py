"""``xml`` and ``seed``: what a machine is made of, printed or written, and nothing else done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, open_where, print_json, progress_for
from armvm.cli.options import Connect, Json, PoolName, Request, with_machine_options
from armvm.spec.files import given_path


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(rich_help_panel="Files", epilog=_XML_EXAMPLES)(xml)
    app.command(rich_help_panel="Files", epilog=_SEED_EXAMPLES)(seed)


_XML_EXAMPLES = """Examples:

  armvm xml arm64-01 > arm64-01.xml

  armvm xml --name new --mem 8G --headless"""

_SEED_EXAMPLES = """Examples:

  armvm seed --name pi --user alice --output seed.iso

  armvm seed --user-data - --output - < setup.yaml > seed.iso"""


@with_machine_options
def xml(
    request: Request,
    machine: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A machine that exists; without it, the options describe a new one.",
            autocompletion=complete.machines,
        ),
    ] = None,
    connect: Connect = None,
    pool: PoolName = None,
) -> None:
    """Print a machine's own XML, portable to other hosts, or that of one that does not exist yet.

    Portable means: without the emulator's and the firmware's paths, which every host resolves
    for itself when the XML is defined.
    """
    if machine is not None:
        from armvm.provision.machines import portable_xml

        sys.stdout.write(portable_xml(open_host(connect), machine))
        return
    from armvm.provision.access import free_name
    from armvm.provision.launch import decide

    where = open_where(connect, pool)
    wanted = request(lambda: free_name(where.connection))
    sys.stdout.write(decide(where, wanted, progress_for(True)).xml)


@with_machine_options
def seed(
    request: Request,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The ISO file to write; -, standard output.",
            parser=given_path,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json: Json = False,
) -> None:
    """Write a NoCloud seed (an ISO labelled cidata) to a file, and do nothing else.

    It holds the guest's private ssh host key, so only you can read the file; on standard output,
    guarding it is up to you.
    """
    from armvm.cli.context import standard_output
    from armvm.provision.seed import make_seed, write_seed

    if str(output) == "-":
        stdout = standard_output("a seed", json=json)
        stdout.write(make_seed(request(lambda: "arm64-01"))[0])
        return
    facts = write_seed(request(lambda: "arm64-01"), output, force=force)
    if json:
        print_json(facts)
    else:
        print(f"wrote {facts['path']}: user {facts['user']}, host key {facts['host_key']}")
