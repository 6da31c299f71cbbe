"""``exec``: runs a command in a guest without ssh."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli import streams
from armvm.cli.context import open_host, print_json, progress_for
from armvm.cli.options import Connect, Json, OptionalName, seconds

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
            parser=seconds(0.1),
            help="End the command after this time. Default: no limit.",
        ),
    ] = None,
    tty: Annotated[
        bool,
        typer.Option("--tty", "-t", help="Give the command a terminal; only in a clone."),
    ] = False,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Run the command after --, without network, key or ssh server.

    The arguments are passed unchanged, without a shell. armvm returns the command's exit code
    (128 + n for signal n). Input and output are streamed, without a size limit; with --json, the
    output is limited to 64 MiB. Ctrl-C ends the command.

    In a clone of a golden, armvm's own channel carries the command until the machine is stopped or
    reboots. In other machines the guest agent runs it, which takes about a second longer, sends
    about 1 MB/s and receives about 0.1 MB/s; there, 'armvm ssh' and 'armvm cp' are faster.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.access.exec_ import execute, execute_and_keep, on_terminal
    from armvm.provision.machine.pick import pick

    command = context.obj or []
    if not command:
        raise UsageError("a command is required", hint="armvm exec NAME -- CMD…")
    machine = pick(open_host(connect), name)
    progress = progress_for(False)
    source = sys.stdin.fileno() if sys.stdin is not None else None
    if tty:
        if json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError(
                "--tty needs a terminal as standard input and output, and cannot be used with "
                "--json",
                hint="leave out --tty",
            )
        raise typer.Exit(
            on_terminal(machine, command, user=user, timeout=timeout, stdin=0, stdout=1)
        )
    if json:
        kept = execute_and_keep(
            machine, command, user=user, timeout=timeout, stdin=source, progress=progress
        )
        print_json(kept)
        raise typer.Exit(kept.exit_code)
    code = execute(
        machine,
        command,
        user=user,
        timeout=timeout,
        stdin=source,
        stdout=streams.output,
        stderr=streams.trouble,
        progress=progress,
    )
    raise typer.Exit(code)
