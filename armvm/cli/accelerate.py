"""``accelerate``: runs a guest's compile steps on this host."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli.context import open_host, print_json, progress_for
from armvm.cli.options import Connect, Json, OptionalName, Quiet

_EXAMPLES = """Examples:

  armvm accelerate arm64-01

  armvm ssh arm64-01 -- make -C project -j4

  armvm accelerate arm64-01 --stop"""


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Login", epilog=_EXAMPLES)(accelerate)


def accelerate(
    name: OptionalName = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Compile in the guest again. Default: off.")
    ] = False,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compile an emulated guest's C and C++ files on this host, until the guest stops or restarts.

    gcc, g++, cc and c++ in the guest pass each compile step (-c) to this host's cross compiler of
    the same version, which makes the same object several times as fast. make, cmake and
    dpkg-buildpackage work as they are. Linking stays in the guest, and so does what the host
    declines: the log says why. If the host is gone, the guest compiles by itself.

    Requires gcc in the guest, and on this host gcc-NN-aarch64-linux-gnu (for C++ also
    g++-NN-aarch64-linux-gnu) and bubblewrap, which confines the compilers.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.accelerate import accelerate as accelerating
    from armvm.provision.machine.pick import pick

    if stop and json:
        raise UsageError("--stop and --json cannot be used together")
    machine = pick(open_host(connect), name)
    progress = progress_for(quiet)
    if stop:
        if accelerating.stop(machine, progress):
            print(f"{machine.name} compiles by itself")
        else:
            print(f"{machine.name} was not accelerated", file=sys.stderr)
        return
    found = accelerating.accelerate(machine, progress)
    if json:
        print_json(found)
    else:
        print(f"{found.machine} compiles on this host: {', '.join(found.names)}")
