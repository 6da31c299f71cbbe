"""``rootfs create|enter|to-image|to-tar``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import check_file, print_json, progress_for, standard_output
from armvm.cli.options import Archive, Json, Packages, Quiet
from armvm.settings.user_path import given_path

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Without a machine",
    help="Root file systems of ARM Linux in a directory: to enter, or to make an image of.",
)

Root = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="A directory with a root file system.", parser=given_path),
]


@app.command(
    epilog="Examples:\n\n  armvm rootfs create bookworm --image debian:12\n\n"
    "  armvm rootfs create pi --image debian:13 --arch armhf --package build-essential\n\n"
    "  armvm rootfs create disk --image debian:12 --bootable"
)
def create(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Where to make it: empty, or not there yet.", parser=given_path
        ),
    ],
    image: Annotated[
        str,
        typer.Option(
            "--image",
            "-i",
            metavar="REF",
            help="debian:12, debian:13 or ubuntu:24.04.",
            autocompletion=complete.recipes,
        ),
    ] = "debian:12",
    arch: Annotated[
        str, typer.Option("--arch", metavar="ARCH", help="arm64, or armhf (32 bits).")
    ] = "arm64",
    packages: Packages = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            metavar="KIND",
            help="minbase: the essential packages and apt (the default); buildd: and compilers; "
            "important: and what a small system has.",
        ),
    ] = None,
    bootable: Annotated[
        bool,
        typer.Option(
            "--bootable",
            help="With kernel, boot loader and cloud-init, as 'rootfs to-image' needs.",
        ),
    ] = False,
    mirror: Archive = None,
    keyring: Annotated[
        Path | None,
        typer.Option(
            "--keyring",
            metavar="FILE",
            help="The keys of that archive, where not installed.",
            parser=given_path,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a root file system from signed packages; it takes some minutes under emulation.

    As root its files belong to root. An ordinary user makes it in a user namespace: they belong
    to the ids that /etc/subuid lends him, which 'rootfs enter' and the others use too. A failure
    leaves nothing behind.
    """
    from armvm.provision.rootfs import create as rootfs_create
    from armvm.provision.rootfs.place import removal

    asked = rootfs_create.wanted(
        image,
        arch=arch,
        variant=variant,
        packages=tuple(packages or ()),
        mirror=mirror,
        bootable=bootable,
    )
    made = rootfs_create.create(directory, asked, keyring=keyring, progress=progress_for(quiet))
    if json:
        print_json(made.described())
        return
    print(f"{made.path}: armvm rootfs enter {shlex.quote(str(directory))}")
    if made.owner != 0:
        print(f"root in there is uid {made.owner} here; {removal(made.path)}")


@app.command(
    options_metavar="[OPTIONS]",
    epilog="Examples:\n\n  armvm rootfs enter bookworm\n\n"
    "  armvm rootfs enter bookworm -- uname -m\n\n"
    "  armvm rootfs enter bookworm -- apt-get install -y build-essential",
)
def enter(context: typer.Context, directory: Root) -> None:
    """Run a command (what follows --) in a root file system as its root; or a login shell.

    It has /proc, /sys (read-only), /dev (no disks), /run and the host's resolv.conf, in mount,
    process, host name and IPC namespaces of its own: when the command ends, what it left running
    ends too, and nothing stays mounted. The network is the host's. Its exit code is passed on
    (128 + n for signal n). As root it is no jail: what runs in there is root. An ordinary user is
    root in a user namespace only.
    """
    from armvm.provision.rootfs.enter import enter as enter_rootfs

    raise typer.Exit(enter_rootfs(directory, context.obj or []))


@app.command(
    "to-image",
    epilog="Examples:\n\n  armvm rootfs to-image disk --as mine\n\n"
    "  armvm create --image local:mine\n\n"
    "  armvm rootfs to-image bookworm --install-missing --output bookworm.qcow2",
)
def to_image(
    directory: Root,
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Keep it as local:NAME.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write it to a file, not to the cache.",
            parser=given_path,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="The image's own disk. Default: 3G, or as much as its files need.",
        ),
    ] = None,
    install_missing: Annotated[
        bool,
        typer.Option(
            "--install-missing", help="Install in DIR what it lacks to boot, and set it up."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file or a name that is taken.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a bootable disk image of a root file system, for 'armvm create'.

    DIR stays as it is. It needs what 'rootfs create --bootable' installs: kernel, initramfs, boot
    loader, systemd, cloud-init, ssh server; what is missing is said.
    """
    from armvm.provision.rootfs import to_image as rootfs_image

    check_file(output)
    made = rootfs_image.to_image(
        directory,
        as_name=as_name,
        output=output,
        size=size,
        install_missing=install_missing,
        force=force,
        progress=progress_for(quiet),
    )
    if json:
        print_json(made)
    elif made.reference:
        print(f"{made.reference}: {made.path}   (armvm create --image {made.reference})")
    else:
        print(made.path)


@app.command(
    "to-tar",
    epilog="Examples:\n\n  armvm rootfs to-tar bookworm | docker import --platform linux/arm64 - "
    "bookworm:1\n\n  armvm rootfs to-tar bookworm --output bookworm.tar",
)
def to_tar(
    directory: Root,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Default: -, standard output."),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a root file system as a tar archive, as 'docker import' takes it.

    With owners as numbers, extended attributes, and the files always in the same order; without
    sockets and device files.
    """
    from armvm.provision.rootfs.to_tar import to_tar as archive

    if output == "-":
        standard_output("an archive")
    target = None if output == "-" else given_path(output)
    archive(directory, target, force=force, progress=progress_for(quiet))
    if target is not None:
        print(target)
