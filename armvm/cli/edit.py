"""``edit``: a machine's definition in the user's editor."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from armvm.base.errors import ArmvmError
from armvm.cli.context import open_host
from armvm.cli.options import Connect, OptionalName


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm edit arm64-01\n\n  VISUAL='code --wait' armvm edit arm64-01",
    )(edit)


def edit(name: OptionalName = None, connect: Connect = None) -> None:
    """Edit a machine's domain XML in $VISUAL or $EDITOR.

    What is written is held against libvirt's schema, and must still be a machine to armvm. If it
    is not taken, it can be edited again; the file is kept until it is taken. What is changed takes
    effect at the next start.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.edit import begin, run_editor, take

    connection = open_host(connect)
    machine = pick(connection, name)
    path = begin(machine.domain)
    before = path.read_text()
    while True:
        try:
            run_editor(path)
            changed = take(connection, machine.domain, before, path)
            break
        except ArmvmError as error:
            if not _again(error, path):
                if path.read_text() == before:
                    path.unlink()
                else:
                    error.hint = f"what you wrote is in {path}" + (
                        f"; {error.hint}" if error.hint else ""
                    )
                raise
    path.unlink()
    if not changed:
        print(f"{machine.name} is as it was")
    elif machine.running:
        print(f"{machine.name} is changed from its next start on: stop it, then start it")
    else:
        print(f"{machine.name} is changed")


def _again(error: ArmvmError, path: Path) -> bool:
    """Show an error, and ask whether to go back to the editor; not where nobody can answer."""
    from armvm.cli.main import report

    if not sys.stdin.isatty():
        return False
    report(error, as_json=False)
    return typer.confirm(f"Edit {path} again?", default=True, err=True)
