"""The command tree."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm import __version__
from armvm.cli import create, doctor, golden, image, login, machines, throwaway

app = typer.Typer(
    name="armvm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    """A real ARM64 Linux machine on any libvirt host, ready to log in to, from one command.

    What it leaves behind is plain libvirt: virsh and virt-manager own it as well as armvm does.
    """


create.register(app)
machines.register(app)
throwaway.register(app)
login.register(app)
doctor.register(app)
app.add_typer(image.app, name="image")
app.add_typer(golden.app, name="golden")
