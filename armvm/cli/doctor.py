"""``doctor``: checks the host."""

from __future__ import annotations

import typer

from armvm.base.printable import printable
from armvm.cli.context import print_json
from armvm.cli.options import Connect, Json, PoolName


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Host", epilog="Example: armvm doctor --json")(doctor)


def doctor(connect: Connect = None, pool: PoolName = None, json: Json = False) -> None:
    """Check that this host has what armvm needs, and print a fix for each missing part.

    The exit code is 6 if a required part is missing.
    """
    from armvm.base.errors import HostError
    from armvm.provision.inspect.doctor import diagnose

    checks = diagnose(connect, pool)
    if json:
        print_json(checks)
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mark = "ok" if check.ok else ("MISSING" if check.needed else "absent")
            print(f"{check.name:<{width}}  {mark:<7}  {printable(check.found)}")
            if check.fix and not check.ok:
                print(f"{'':<{width}}           {printable(check.fix)}")
    if any(check.needed and not check.ok for check in checks):
        raise typer.Exit(HostError.exit_code)
