"""``docker-context``: creates a docker context that runs containers in a machine."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli.context import open_host, print_json, progress_for
from armvm.cli.options import Connect, Json, OptionalName


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command(
        "docker-context",
        rich_help_panel="Login",
        epilog="Examples:\n\n  armvm create --name arm64-01 --preset docker\n\n"
        "  armvm docker-context arm64-01\n\n"
        "  docker --context arm64-01 run --rm debian uname -m\n\n"
        "  armvm docker-context arm64-01 --remove",
    )(docker_context)


def docker_context(
    name: OptionalName = None,
    use: Annotated[
        bool, typer.Option("--use", help="Also make it docker's current context.")
    ] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove the context, even if the machine no longer exists."),
    ] = False,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Create a docker context that runs containers in a machine.

    The machine needs docker (--preset docker). The docker client connects by ssh, with the
    configuration that 'armvm ssh-config --install' writes, so addresses and ports may change.
    """
    from armvm.base.errors import UsageError
    from armvm.base.paths import ssh_home
    from armvm.provision.access import docker_context as contexts
    from armvm.provision.machine.pick import pick
    from armvm.settings.names import check_machine_name

    if remove:
        if use or name is None:
            raise UsageError(
                "--remove requires NAME and cannot be used with --use",
                hint="armvm docker-context NAME --remove",
            )
        done = contexts.remove(check_machine_name(name))
    else:
        connection = open_host(connect)
        machine = pick(connection, name)
        done = contexts.make(connection, machine.instance, ssh_home(), use=use)
        if machine.running and contexts.lacks_docker(machine.domain):
            progress_for(False).warn(
                f"docker not found in {machine.name}: install docker.io in it, or create the "
                "machine with --preset docker"
            )
    if json:
        print_json(done)
    elif remove:
        print(f"docker context {done.context} removed")
    else:
        print(f"docker --context {done.context} run --rm IMAGE uname -m")
