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
    help="Create ARM Linux root file systems in directories, enter them, make images from them.",
)

Root = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Directory with a root file system.", parser=given_path),
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
            metavar="DIR", help="Directory to create; may exist if empty.", parser=given_path
        ),
    ],
    image: Annotated[
        str,
        typer.Option(
            "--image",
            "-i",
            metavar="REF",
            help="Distribution: debian:12, debian:13 or ubuntu:24.04.",
            autocompletion=complete.recipes,
        ),
    ] = "debian:12",
    arch: Annotated[
        str, typer.Option("--arch", metavar="ARCH", help="Architecture: arm64, or armhf (32-bit).")
    ] = "arm64",
    packages: Packages = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            metavar="KIND",
            help="Package set. minbase: essential packages and apt; buildd: minbase and "
            "compilers; important: minbase and a small system. Default: minbase.",
        ),
    ] = None,
    bootable: Annotated[
        bool,
        typer.Option(
            "--bootable",
            help="Include the kernel, boot loader and cloud-init that 'rootfs to-image' needs.",
        ),
    ] = False,
    mirror: Archive = None,
    keyring: Annotated[
        Path | None,
        typer.Option(
            "--keyring",
            metavar="FILE",
            help="Keys of the archive. Default: those installed on this host.",
            parser=given_path,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create a root file system from signed packages.

    This takes a few minutes under emulation. Run as root, the files belong to root. Run as an
    ordinary user, armvm uses a user namespace, and the files belong to your ids in /etc/subuid;
    the other rootfs commands use the same ids. On failure nothing is left behind.
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
        print(f"its root is uid {made.owner} on this host; {removal(made.path)}")


@app.command(
    options_metavar="[OPTIONS]",
    epilog="Examples:\n\n  armvm rootfs enter bookworm\n\n"
    "  armvm rootfs enter bookworm -- uname -m\n\n"
    "  armvm rootfs enter bookworm -- apt-get install -y build-essential",
)
def enter(context: typer.Context, directory: Root) -> None:
    """Run the command after -- in a root file system as its root, or a login shell.

    The command gets /proc, /sys (read-only), /dev (without disks), /run and the host's
    resolv.conf, in its own mount, process, host name and IPC namespaces. When it ends, armvm ends
    its remaining processes and unmounts everything. It uses the host's network. armvm returns its
    exit code (128 + n for signal n). If you run this as root, the command is root on the host and
    not confined. An ordinary user is root only in a user namespace.
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
        str | None,
        typer.Option("--as", metavar="NAME", help="Store it in the cache as local:NAME."),
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
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Disk size of the image. Default: 3G, or more if the files need it.",
        ),
    ] = None,
    install_missing: Annotated[
        bool,
        typer.Option(
            "--install-missing", help="Install and set up in DIR the packages needed to boot."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file or name.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a bootable disk image from a root file system, for 'armvm create'.

    DIR needs everything that 'rootfs create --bootable' installs: kernel, initramfs, boot loader,
    systemd, cloud-init and ssh server. armvm lists any that are missing. Only --install-missing
    changes DIR.
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
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write. Default: - (standard output)."
        ),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a root file system as a tar archive, for 'docker import'.

    The archive has numeric owners, extended attributes and a stable file order. Sockets and device
    files are left out.
    """
    from armvm.provision.rootfs.to_tar import to_tar as archive

    if output == "-":
        standard_output("an archive")
    target = None if output == "-" else given_path(output)
    archive(directory, target, force=force, progress=progress_for(quiet))
    if target is not None:
        print(target)
