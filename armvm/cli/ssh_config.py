"""``ssh-config``: makes machines known to the user's own ssh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_host, print_json
from armvm.cli.options import Connect, Json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "ssh-config",
        rich_help_panel="Login",
        epilog="Examples:\n\n  armvm ssh-config --install && ssh arm64-01\n\n"
        "  armvm ssh-config arm64-01 > config && rsync -e 'ssh -F config' -a src arm64-01:\n\n"
        "  armvm ssh-config --remove",
    )(ssh_config)


def ssh_config(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="The machines. Default: all.",
            autocompletion=complete.machines,
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Let ssh know them: one Include line at the top of ~/.ssh/config."
        ),
    ] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Take them out; without NAME all, and the line with them."),
    ] = False,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Make machines known to ssh, and so to rsync, scp, git and VS Code. Prints what ssh needs.

    With --install, each machine has a file of its own, which 'armvm delete' removes; one that is
    made later needs another --install. The line goes where ssh looks: into the home that the
    password database names, whatever HOME is. ssh then asks 'armvm proxy' for the way each time,
    so that addresses and ports may change, and takes no host key but the machine's own.
    """
    from armvm.base.errors import UsageError
    from armvm.base.paths import ssh_home
    from armvm.provision.access import ssh_config as config

    if install and remove:
        raise UsageError("--install and --remove exclude each other")
    connection, wanted = open_host(connect), names or []
    done = (config.install if install else config.remove if remove else config.show)(
        connection, wanted, ssh_home()
    )
    if json:
        print_json(done)
        return
    told = ", ".join(one.name for one in done.machines)
    if not done.machines:
        what = "ssh knew of none" if remove else "there is no machine yet: armvm create makes one"
        print(what, file=sys.stderr)
    elif install:
        print(f"ssh knows {told}{'' if names else ': all machines there are'}")
        print(f"  ssh {done.machines[0].name}")
    elif remove:
        print(f"ssh knows {told} no more")
    else:
        print("\n".join(one.ssh_config for one in done.machines), end="")
    if install and Path.home() != ssh_home():
        print(f"ssh reads {done.config}, whatever HOME is", file=sys.stderr)
    if done.changed:
        print(f"{done.config}: the Include line is {'in' if install else 'out'}", file=sys.stderr)
