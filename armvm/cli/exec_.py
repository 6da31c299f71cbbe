"""``exec``: runs a command in a guest through its agent."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli import streams
from armvm.cli.context import open_host, print_json
from armvm.cli.options import Connect, Json, OptionalName

_EXAMPLES = """Examples:

  armvm exec arm64-01 -- systemctl is-system-running

  echo hello | armvm exec arm64-01 --user debian -- tee greeting

  armvm exec arm64-01 --timeout 60 --json -- sh -c 'ip addr; ip route'"""


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command("exec", rich_help_panel="Login", options_metavar="[OPTIONS]", epilog=_EXAMPLES)(
        exec_
    )


def exec_(
    context: typer.Context,
    name: OptionalName = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", "-u", metavar="NAME", help="Guest user that runs it. Default: root."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.1,
            help="End the command after this time. Default: no limit.",
        ),
    ] = None,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Run the command after -- through the guest agent, without network, key or ssh server.

    The arguments are passed unchanged, without a shell. armvm returns the command's exit code
    (128 + n for signal n). Input and output are streamed, without a size limit but slowly: an
    emulated guest sends about 1 MB/s and receives about 0.1 MB/s. 'armvm ssh' and 'armvm cp' are
    faster. Ctrl-C ends the command. It runs without a terminal; for one, use 'armvm console'.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.access.exec_ import execute, execute_and_keep
    from armvm.provision.machine.pick import pick

    command = context.obj or []
    if not command:
        raise UsageError("a command is required", hint="armvm exec NAME -- CMD…")
    domain = pick(open_host(connect), name).domain
    source = sys.stdin.fileno() if sys.stdin is not None else None
    if json:
        kept = execute_and_keep(domain, command, user=user, timeout=timeout, stdin=source)
        print_json(kept)
        raise typer.Exit(kept.exit_code)
    code = execute(
        domain,
        command,
        user=user,
        timeout=timeout,
        stdin=source,
        stdout=streams.output,
        stderr=streams.trouble,
    )
    raise typer.Exit(code)
