"""``resize``: changes disk, memory or vCPUs of a machine."""

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
        typer.Option(
            "--disk",
            metavar="SIZE",
            help="New disk size: GiB, or with a suffix (20G); it cannot shrink.",
        ),
    ] = None,
    mem: Annotated[
        str | None,
        typer.Option("--mem", metavar="SIZE", help="New memory: MiB, or with a suffix (4G)."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", metavar="N", min=1, help="New number of vCPUs.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change a machine's disk size, memory or number of vCPUs.

    The disk grows at once, even if the machine runs. The guest agent then grows the root file
    system (ext4, xfs or btrfs on a partition); without an agent, cloud-init does so at the next
    boot. Memory below the amount at start changes at once. More memory, and vCPUs, take effect at
    the next start, because QEMU's ARM64 machine cannot hot-plug them.
    """
    from armvm.base.progress import size_text
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.resize import resize as resize_machine
    from armvm.settings.size import parse_disk, parse_memory

    connection = open_host(connect)
    done = resize_machine(
        pick(connection, name),
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
