"""The command tree."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from armvm import __version__
from armvm.cli import (
    create,
    doctor,
    files,
    golden,
    image,
    image_care,
    login,
    machines,
    throwaway,
)


class Headed(TyperGroup):
    """A group whose help lists its commands under the headings they were registered with."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading, in the order of the commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands:
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                heading = panel if isinstance(panel, str) else "Commands"
                summary = (command.help or "").split("\n\n")[0].replace("\n", " ")
                sections.setdefault(heading, []).append((name, summary))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    name="armvm",
    cls=Headed,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: rich takes longer to import than everything else that --help needs.
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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    """A real ARM64 Linux machine on any libvirt host, ready to log in to, from one command.

    What it leaves behind is plain libvirt: virsh and virt-manager own it as well as armvm does.
    """


create.register(app)
files.register(app)
machines.register(app)
throwaway.register(app)
login.register(app)
doctor.register(app)
image_care.register(image.app)
app.add_typer(image.app, name="image")
app.add_typer(golden.app, name="golden")
