"""``emulate``: one foreign program now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import progress_for
from armvm.cli.options import Quiet
from armvm.settings.user_path import given_path


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(
        rich_help_panel="Without a machine",
        options_metavar="[OPTIONS]",
        # What follows the program's name is the program's.
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
        epilog="Examples:\n\n  armvm emulate ./hello-arm64\n\n"
        "  armvm emulate --image debian:12 ./hello-dynamic input.txt\n\n"
        "  armvm emulate --sysroot bookworm --cpu cortex-a57 busybox arch",
    )(emulate)


def emulate(
    program: Annotated[
        str,
        typer.Argument(metavar="BINARY", help="A program: a file, or one in the sysroot."),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Its own arguments.")
    ] = None,
    sysroot: Annotated[
        Path | None,
        typer.Option(
            "--sysroot",
            metavar="DIR",
            help="Where its loader and libraries are.",
            parser=given_path,
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            metavar="REF",
            help="debian:12, ubuntu:24.04, local:debian-12+libcurl4: fetch the libraries of that, "
            "once.",
            autocompletion=complete.recipes,
        ),
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option(
            "--cpu",
            metavar="MODEL",
            help="QEMU's processor. Default: max, with pointer authentication that costs little.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run one program for another processor by QEMU's user mode: no machine, no root.

    Its architecture is read from its header, and the right qemu-ARCH is started for it. Options
    for armvm stand before BINARY, all after it is the program's. Input, output and exit code are
    its own (128 + n for signal n). A dynamic program needs libraries: --sysroot or --image. Other
    foreign programs that it starts need a binfmt handler.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.rootfs.emulate import emulate as run

    if sysroot is not None and image is not None:
        raise UsageError("--sysroot and --image both say where libraries are", hint="leave one out")
    code = run(
        program,
        arguments or [],
        sysroot=sysroot,
        image=image,
        cpu=cpu,
        progress=progress_for(quiet),
    )
    raise typer.Exit(code)
