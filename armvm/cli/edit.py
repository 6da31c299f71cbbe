"""``edit``: a machine's definition in the user's editor."""

from __future__ import annotations

import typer

from armvm.cli.context import edit_again, open_host
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
    from armvm.provision.manage.edit import edit as edit_definition

    connection = open_host(connect)
    machine = pick(connection, name)
    changed = edit_definition(connection, machine.domain, edit_again)
    if not changed:
        print(f"{machine.name} is as it was")
    elif machine.running:
        print(f"{machine.name} is changed from its next start on: stop it, then start it")
    else:
        print(f"{machine.name} is changed")
