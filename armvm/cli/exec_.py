"""``exec``: a command in a guest, by its agent."""

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
            "--user", "-u", metavar="NAME", help="Who runs it in the guest. Default: root."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.1, help="End it after that time. Default: never."
        ),
    ] = None,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Run a command (what follows --) by the guest agent: no network, no key, no ssh server.

    The words are the command's as they are, without a shell in between. Its exit code is passed
    on (128 + n for signal n). Input and output are passed while it runs, without a limit but
    slowly: from an emulated guest comes about 1 MB a second, a tenth of it goes there. 'armvm ssh'
    and 'armvm cp' are quicker. Ctrl-C ends the command. There is no terminal for it: 'armvm
    console' is one.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.access.exec_ import execute, execute_and_keep
    from armvm.provision.machine.pick import pick

    command = context.obj or []
    if not command:
        raise UsageError("what is to be run?", hint="armvm exec NAME -- CMD…")
    domain, _ = pick(open_host(connect), name)
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
