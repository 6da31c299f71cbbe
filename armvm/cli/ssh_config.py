"""``ssh-config``: configures the user's ssh for machines."""

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
            help="Machine names. Default: all.",
            autocompletion=complete.machines,
        ),
    ] = None,
    install: Annotated[
        bool,
        typer.Option(
            "--install", help="Add them to ssh, with one Include line at the top of ~/.ssh/config."
        ),
    ] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove them; without NAME, all and the Include line."),
    ] = False,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Print or install ssh configuration for machines, also for rsync, scp, git and VS Code.

    With --install, each machine has its own file, which 'armvm delete' removes. Run --install
    again for machines that you create later. The Include line goes where ssh reads it: in the home
    directory of the password database, whatever $HOME is. ssh connects through 'armvm proxy', so
    addresses and ports may change, and accepts only the machine's own host key. It uses the
    machine's shared connection, like 'armvm ssh', unless it forwards something.
    """
    from armvm.base.errors import UsageError
    from armvm.base.paths import ssh_home
    from armvm.provision.access import ssh_config as config

    if install and remove:
        raise UsageError("--install and --remove cannot be used together")
    connection, wanted = open_host(connect), names or []
    done = (config.install if install else config.remove if remove else config.show)(
        connection, wanted, ssh_home()
    )
    if json:
        print_json(done)
        return
    told = ", ".join(one.name for one in done.machines)
    if not done.machines:
        what = (
            "no machine is configured in ssh"
            if remove
            else "no machines found: create one with armvm create"
        )
        print(what, file=sys.stderr)
    elif install:
        print(f"ssh configured for {told}{'' if names else ' (all machines)'}")
        print(f"  ssh {done.machines[0].name}")
    elif remove:
        print(f"ssh configuration removed for {told}")
    else:
        print("\n".join(one.ssh_config for one in done.machines), end="")
    if install and Path.home() != ssh_home():
        print(f"note: ssh reads {done.config} and ignores $HOME", file=sys.stderr)
    if done.changed:
        print(f"{done.config}: Include line {'added' if install else 'removed'}", file=sys.stderr)
