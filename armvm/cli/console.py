"""``console``: a machine's serial console on this terminal."""

from __future__ import annotations

import sys
from typing import Annotated, TextIO

import typer

from armvm.cli.options import Connect, OptionalName


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Login",
        epilog="Examples:\n\n  armvm console\n\n  armvm console arm64-01 --lines 200\n\n"
        "  echo 'uname -m' | armvm console arm64-01",
    )(console)


def console(
    name: OptionalName = None,
    connect: Connect = None,
    force: Annotated[
        bool, typer.Option("--force", help="Disconnect another user of the console.")
    ] = False,
    reattach: Annotated[
        bool,
        typer.Option(
            "--reattach/--no-reattach",
            help="When the machine stops, wait until it starts again, or exit. Default: reattach.",
            show_default=False,
        ),
    ] = True,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines",
            metavar="N",
            min=0,
            max=10_000,
            help="Show the last N lines of the serial log first; 0 shows none. "
            "Default: one screenful.",
        ),
    ] = None,
) -> None:
    """Open a machine's serial console. Ctrl-] leaves it; the machine keeps running.

    The guest agent sets the terminal size in the guest, also when you resize the window. If the
    guest has no agent, type 'stty rows R cols C' there.

    Input from a pipe is sent to the guest. At its end, armvm waits until the guest has been silent
    for two seconds, and exits. The exit code is 0 when you leave the console, 5 if another user has
    it or takes it over, and 10 if the machine is not running or stops before all input is sent.
    """
    from armvm.provision.access.console import Terms, open_console

    open_console(
        connect,
        name,
        Terms(force=force, reattach=reattach, lines=lines),
        stdin=_descriptor(sys.stdin),
        stdout=_descriptor(sys.stdout),
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )


def _descriptor(stream: TextIO | None) -> int | None:
    """Return a stream's file descriptor; None if it was closed when Python started."""
    return None if stream is None else stream.fileno()
