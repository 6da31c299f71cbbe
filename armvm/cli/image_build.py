"""``image build``: making an image on this host from a distribution's packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import check_file, print_json, progress_for
from armvm.cli.options import Archive, Json, Packages, Quiet
from armvm.settings.user_path import given_path


def build(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Distribution: debian:12 (or debian-12), debian:13 or ubuntu:24.04.",
            autocompletion=complete.recipes,
        ),
    ] = "debian-12",
    packages: Packages = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel",
            metavar="KIND",
            help="cloud: drivers for virtual machines; generic: all drivers. Default: cloud.",
            autocompletion=complete.kernels,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Disk size of the image; a machine's disk can be larger. Default: 3G.",
        ),
    ] = None,
    as_name: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Name it local:NAME. Default: a name made from the options.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the image to a file instead of the cache.",
            parser=given_path,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Build even if cached; replace an existing file or name."),
    ] = False,
    mirror: Archive = None,
    keyring: Annotated[
        Path | None,
        typer.Option(
            "--keyring",
            metavar="FILE",
            help="Keys of Ubuntu's archive. Default: those installed on this host.",
            parser=given_path,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build an arm64 cloud image from signed packages, without downloading an image.

    This takes a few minutes on an x86-64 host, where maintainer scripts run under qemu-user. An
    ordinary user builds in a user namespace; armvm first checks that this is possible.

    The name contains the options, for example local:debian-13-generic+docker.io. --image with
    such a name uses the cached image, or builds it.
    """
    from armvm.provision.image.local import build_local
    from armvm.provision.image.recipe import made

    check_file(output)
    wanted = made(name, packages=tuple(packages or ()), kernel=kernel, size=size, mirror=mirror)
    built = build_local(
        wanted,
        name=as_name,
        output=output,
        keyring=keyring,
        force=force,
        progress=progress_for(quiet),
    )
    if json:
        print_json(built.described())
    else:
        shown = f"{built.reference}: {built.path}" if built.reference else str(built.path)
        print(shown + (f", built in {built.seconds:.0f} s" if built.seconds else ", cached"))


def register(app: typer.Typer) -> None:
    """Add the command to ``armvm image``."""
    app.command(
        epilog="Examples:\n\n  armvm image build debian:13\n\n"
        "  armvm image build debian:13 --package docker.io --size 8G\n\n"
        "  armvm create --image local:debian-13-8g+docker.io\n\n"
        "  armvm image build debian:12 --kernel generic --output debian.qcow2\n\n"
        "  armvm image build ubuntu:24.04 --mirror http://mirror.example.org/ubuntu-ports"
    )(build)
