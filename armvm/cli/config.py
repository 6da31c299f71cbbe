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
    help="Settings: what is in force, where it comes from, and changing it.",
)


@app.command(epilog="Example: armvm config show --json")
def show(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="As if this preset were asked for. Default: $ARMVM_PRESET, else default.",
            autocompletion=complete.presets,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show every setting, and where it comes from.

    The strongest first: a command's own flag, an ARMVM_* variable, your config.toml,
    /etc/armvm/config.toml, the preset, what is built in.
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
        bool, typer.Option("--all", help="All files that are read, the strongest first.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the path of your configuration file, whether it exists or not."""
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
            help="Default: all configuration files that there are.",
            parser=given_path,
        ),
    ] = None,
) -> None:
    """Check a configuration file: every key and value, also those that something overrides."""
    from armvm.base.paths import config_files
    from armvm.provision.inspect.config import check as check_file

    files = [one for one in config_files() if one.exists()] if file is None else [file]
    if not files:
        print("there is no configuration file: armvm config edit makes one", file=sys.stderr)
    for one in files:
        check_file(one)
        print(f"{one} is sound")


@app.command(epilog="Example: EDITOR=nano armvm config edit")
def edit() -> None:
    """Edit your configuration file with $VISUAL or $EDITOR.

    You edit a draft, which takes the file's place once it is sound. While it is not, you are told
    what is wrong and where, and can edit on; the draft is kept if you do not.
    """
    from armvm.base.paths import config_files
    from armvm.provision.inspect.config_edit import edit as edit_file

    mine = config_files()[0]
    print(f"{mine} is changed" if edit_file(mine, edit_again) else f"{mine} is as it was")


def _text(key: str, value: object) -> str:
    from armvm.settings.size import size_label

    if key == "disk" and isinstance(value, int):
        return size_label(value)
    if key == "mem":
        return f"{value} MiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
