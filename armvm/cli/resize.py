"""``resize``: another size for a machine that exists."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.cli.context import open_host, print_json, progress_for
from armvm.cli.options import Connect, Json, Name, Quiet


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Machines",
        epilog="Examples:\n\n  armvm resize arm64-01 --disk 20G\n\n"
        "  armvm resize arm64-01 --mem 4G --cpus 4",
    )(resize)


def resize(
    name: Name,
    connect: Connect = None,
    disk: Annotated[
        str | None,
        typer.Option("--disk", metavar="SIZE", help="Disk in GiB, or like 20G; it only grows."),
    ] = None,
    mem: Annotated[
        str | None, typer.Option("--mem", metavar="SIZE", help="Memory in MiB, or like 4G.")
    ] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", metavar="N", min=1, help="vCPUs.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a machine a larger disk, other memory, other vCPUs.

    The disk grows at once, also while the machine runs, and with it its root file system (ext4,
    xfs, btrfs on a partition): by the guest agent, else by cloud-init at the next boot. Memory
    changes at once where the guest has it (less than it was started with); more memory, and
    vCPUs, take effect at the next start: QEMU's ARM64 machine has no slots for either.
    """
    from armvm.base.progress import size_text
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.resize import resize as resize_machine
    from armvm.settings.size import parse_disk, parse_memory

    connection = open_host(connect)
    done = resize_machine(
        connection,
        *pick(connection, name),
        disk=None if disk is None else parse_disk(disk),
        memory_mib=None if mem is None else parse_memory(mem),
        cpus=cpus,
        progress=progress_for(quiet),
    )
    if json:
        print_json(done)
        return
    words = {
        "disk": lambda value: f"a disk of {size_text(value)}",
        "memory_mib": lambda value: f"{value} MiB of memory",
        "cpus": lambda value: f"{value} vCPU{'' if value == 1 else 's'}",
    }
    for one in done:
        print(f"{name} has {words[one.what](one.after)}: {one.note}")
