"""``console``: a machine's serial line on this terminal."""

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
        bool, typer.Option("--force", help="Take the console over from somebody else.")
    ] = False,
    reattach: Annotated[
        bool,
        typer.Option(
            "--reattach/--no-reattach",
            help="When the machine stops, wait until it starts again, or end. Default: reattach.",
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
            help="How much of what it said before to show, from its serial log; 0 for nothing. "
            "Default: the last screenful.",
        ),
    ] = None,
) -> None:
    """Open a machine's serial console. Ctrl-] leaves; it goes on running.

    The guest is told this terminal's size, and each new one, by its guest agent; without one,
    type 'stty rows R cols C' there.

    A pipe is passed through: after its end, the console is left once the guest has been silent
    for two seconds. The exit code is 0 when you leave, 5 when somebody else has the console or
    takes it over, 10 when the machine does not run or stops before a pipe was sent to its end.
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
    """Return a stream's file descriptor; None where Python found it closed at its start."""
    return None if stream is None else stream.fileno()
