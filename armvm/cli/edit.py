"""``edit``: edits a machine's definition."""

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

    The result must match libvirt's schema and still be an armvm machine. If it does not, you can
    edit it again, and the file is kept. Changes take effect at the next start.
    """
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.edit import edit as edit_definition

    connection = open_host(connect)
    machine = pick(connection, name)
    changed = edit_definition(connection, machine.domain, edit_again)
    if not changed:
        print(f"{machine.name} not changed")
    elif machine.running:
        print(f"{machine.name} changed; stop and start it to apply the change")
    else:
        print(f"{machine.name} changed")
