"""The command tree."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm import __version__
from armvm.cli.lazy import LazyGroup

app = typer.Typer(
    name="armvm",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: importing rich takes longer than the rest of --help.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    epilog="Start with: armvm create --name arm64-01 --cpus 2 --mem 4096 — then: armvm console",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"armvm {__version__}", file=sys.stdout)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
) -> None:
    """A real ARM64 Linux machine on any libvirt host, ready to log in to, from one command.

    The machines are ordinary libvirt domains: virsh and virt-manager can manage them too.
    """
