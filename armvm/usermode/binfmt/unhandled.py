"""Say why no handler takes an architecture's programs, and how to change that."""

from __future__ import annotations

from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt import handlers
from armvm.usermode.binfmt.handlers import Table


def reason(architecture: Architecture, table: Table) -> str:
    """Return why no handler takes the architecture's programs."""
    if not table.mounted:
        return "binfmt_misc is not mounted"
    if not table.on:
        return "binfmt_misc is disabled"
    off = [one.name for one in table.takers(architecture.magic)]
    if off:
        return f"the handler {off[0]} is disabled"
    return f"no handler is registered for {architecture.name} programs"


def fix(architecture: Architecture, table: Table) -> str:
    """Return the command that gives the architecture a handler."""
    if table.mounted and not table.on:
        return f"sudo sh -c 'echo 1 > {handlers.ROOT / 'status'}'"
    off = [one.name for one in table.takers(architecture.magic)]
    if off:
        return f"sudo sh -c 'echo 1 > {handlers.ROOT / off[0]}'"
    return f"sudo armvm binfmt register {architecture.name}"
