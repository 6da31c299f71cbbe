"""``emulate``: runs a program for another architecture."""

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
        # Options after the program's name belong to the program.
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
        epilog="Examples:\n\n  armvm emulate ./hello-arm64\n\n"
        "  armvm emulate --image debian:12 ./hello-dynamic input.txt\n\n"
        "  armvm emulate --sysroot bookworm --cpu cortex-a57 busybox arch",
    )(emulate)


def emulate(
    program: Annotated[
        str,
        typer.Argument(metavar="BINARY", help="Program to run: a file, or one in the sysroot."),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Arguments of the program.")
    ] = None,
    sysroot: Annotated[
        Path | None,
        typer.Option(
            "--sysroot",
            metavar="DIR",
            help="Directory with its loader and libraries.",
            parser=given_path,
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            metavar="REF",
            help="Download libraries of this image once and use them (examples: debian:12, "
            "ubuntu:24.04, local:debian-12+libcurl4).",
            autocompletion=complete.recipes,
        ),
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option(
            "--cpu",
            metavar="MODEL",
            help="QEMU's CPU model. Default: max, with fast pointer authentication.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run one program for another architecture in QEMU user mode, without a machine or root.

    armvm reads the architecture from the program's header and starts the matching qemu-ARCH. Put
    armvm's options before BINARY; everything after it goes to the program. Input, output and exit
    code are the program's (128 + n for signal n). A dynamically linked program needs libraries:
    --sysroot or --image. Other foreign programs that it starts need a binfmt handler.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.rootfs.emulate import emulate as run

    if sysroot is not None and image is not None:
        raise UsageError(
            "--sysroot and --image cannot be used together",
            hint="leave one out: both choose the libraries",
        )
    code = run(
        program,
        arguments or [],
        sysroot=sysroot,
        image=image,
        cpu=cpu,
        progress=progress_for(quiet),
    )
    raise typer.Exit(code)
