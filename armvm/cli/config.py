"""``config show|path|check|edit``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import edit_again, print_json, print_rows
from armvm.cli.options import Json
from armvm.settings.user_path import given_path

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Host",
    help="Show, check and edit the configuration.",
)


@app.command(epilog="Example: armvm config show --json")
def show(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Show the settings with this preset. Default: $ARMVM_PRESET, else default.",
            autocompletion=complete.presets,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show every setting and its source.

    The order of precedence is: command-line option, ARMVM_* variable, your config.toml,
    /etc/armvm/config.toml, preset, built-in default.
    """
    from armvm.base.paths import config_files
    from armvm.provision.inspect.config import MEANING, values

    found = values(os.environ, config_files(), preset)
    if json:
        print_json(found)
        return
    rows = []
    for one in found:
        text = _text(one.key, one.value) if one.value is not None else f"({MEANING[one.key]})"
        rows.append([one.key, text, one.origin])
    print_rows(["SETTING", "VALUE", "FROM"], rows)


@app.command(epilog="Examples:\n\n  armvm config path\n\n  armvm config path --all --json")
def path(
    everything: Annotated[
        bool,
        typer.Option("--all", help="Print all files that armvm reads, in order of precedence."),
    ] = False,
    json: Json = False,
) -> None:
    """Print the path of your configuration file, even if it does not exist."""
    from armvm.base.paths import ConfigPath, config_files

    files = config_files() if everything else config_files()[:1]
    if json:
        print_json([ConfigPath(path=one, exists=one.exists()) for one in files])
        return
    for one in files:
        print(one)


@app.command(epilog="Example: armvm config check")
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="File to check. Default: all existing configuration files.",
            parser=given_path,
        ),
    ] = None,
) -> None:
    """Check every key and value of a configuration file, including overridden ones."""
    from armvm.base.paths import config_files
    from armvm.provision.inspect.config import check as check_file

    files = [one for one in config_files() if one.exists()] if file is None else [file]
    if not files:
        print("no configuration file found: create one with armvm config edit", file=sys.stderr)
    for one in files:
        check_file(one)
        print(f"{one} is valid")


@app.command(epilog="Example: EDITOR=nano armvm config edit")
def edit() -> None:
    """Edit your configuration file with $VISUAL or $EDITOR.

    You edit a draft, which replaces the file when it is valid. If it is invalid, armvm shows the
    error and its line and asks whether to edit again; the draft is kept if you stop.
    """
    from armvm.base.paths import config_files
    from armvm.provision.inspect.config_edit import edit as edit_file

    mine = config_files()[0]
    print(f"{mine} changed" if edit_file(mine, edit_again) else f"{mine} not changed")


def _text(key: str, value: object) -> str:
    from armvm.settings.size import size_label

    if key == "disk" and isinstance(value, int):
        return size_label(value)
    if key == "mem":
        return f"{value} MiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
