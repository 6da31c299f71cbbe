"""``docker-context``: the host's docker client runs containers in a machine."""

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
        bool, typer.Option("--use", help="Make it docker's current context too.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove it; the machine may be gone already.")
    ] = False,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Give this host's docker client a context that runs containers in a machine.

    The machine needs docker (--preset docker). docker connects by ssh, by what 'armvm ssh-config
    --install' writes for the machine, so that addresses and ports may change.
    """
    from armvm.base.errors import UsageError
    from armvm.base.paths import ssh_home
    from armvm.provision.access import docker_context as contexts
    from armvm.provision.machine.pick import pick
    from armvm.settings.names import check_machine_name

    if remove:
        if use or name is None:
            raise UsageError("--remove takes the name of a machine, and no --use")
        done = contexts.remove(check_machine_name(name))
    else:
        connection = open_host(connect)
        domain, instance = pick(connection, name)
        done = contexts.make(connection, instance, ssh_home(), use=use)
        if instance.running and contexts.lacks_docker(domain):
            progress_for(False).warn(
                f"{instance.name} has no docker yet: install docker.io in it, or make it with "
                "--preset docker"
            )
    if json:
        print_json(done)
    elif remove:
        print(f"the docker context {done.context} is removed")
    else:
        print(f"docker --context {done.context} run --rm IMAGE uname -m")
