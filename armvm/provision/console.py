"""Attaching to a machine's console, as a use case."""

from __future__ import annotations

from collections.abc import Callable

from armvm.host import connection as connecting
from armvm.host.console import attach, start_event_loop
from armvm.provision.pick import pick


def open_console(
    uri: str | None, name: str | None, *, force: bool, on_open: Callable[[str], None]
) -> None:
    """Connect standard input and output to a machine's console until the user leaves.

    *on_open* hears the machine's name before. Raises what picking and attaching raise.
    """
    start_event_loop()  # before the connection is opened
    domain, instance = pick(connecting.connect(uri), name)
    on_open(instance.name)
    attach(domain, force=force)
