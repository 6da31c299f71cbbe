"""``image prune|verify|import|export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armvm.base.progress import size_text
from armvm.cli import complete
from armvm.cli.context import check_file, open_host, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, PoolName, Quiet, References
from armvm.settings.user_path import given_path

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
]


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Remove images not used for this long: 12h, 30d, 2w.",
        ),
    ] = None,
    unused: Annotated[
        bool,
        typer.Option("--unused", help="Remove images and base volumes that no machine uses."),
    ] = False,
    dry_run: DryRun = False,
    connect: Connect = None,
    pool: PoolName = None,
    json: Json = False,
) -> None:
    """Remove partial downloads and unusable files from the cache.

    Images are removed only with --older-than or --unused. With both, an image must match both.
    """
    from armvm.provision.connect import pool_name
    from armvm.provision.image.care import prune as prune_images
    from armvm.settings.age import parse_age

    age = None if older_than is None else parse_age(older_than, what="--older-than")
    connection = open_host(connect) if unused else None
    removed = prune_images(
        older_than=age,
        unused=unused,
        connection=connection,
        pool_name=pool_name(pool),
        dry=dry_run,
    )
    if json:
        print_json(removed)
        return
    verb = "would remove" if dry_run else "removed"
    for one in removed:
        told = " ".join(str(part) for part in (one.what, one.reference) if part)
        print(f"{verb} {one.path} ({told}, {size_text(one.size)})")
    print(f"{verb} {size_text(sum(one.size for one in removed))} in total")


def verify(references: References = None, json: Json = False, quiet: Quiet = False) -> None:
    """Compare cached images with the digests recorded when they were stored.

    The exit code is 8 if an image has changed.
    """
    from armvm.base.errors import DigestMismatch
    from armvm.provision.image.care import verify as verify_images

    found = verify_images(references or [], progress_for(quiet))
    if json:
        print_json(found)
    else:
        rows = [
            [one.reference or "?", one.status, size_text(one.size), str(one.path)] for one in found
        ]
        print_rows(["REFERENCE", "STATUS", "SIZE", "PATH"], rows)
    bad = [one for one in found if one.status != "ok"]
    if bad:
        raise DigestMismatch(
            f"{len(bad)} of {len(found)} images failed verification",
            detail="\n".join(f"{one.path}: {one.problem}" for one in bad),
            hint="check the disk, then remove and download again: armvm image rm PATH, "
            "armvm image pull REF",
        )


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="qcow2 or raw disk image.", parser=given_path)
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name it local:NAME.")],
    bootable: Annotated[
        bool,
        typer.Option(
            "--bootable",
            help="FILE is for a board (Raspberry Pi, …), also .xz, .gz or .zst: add the kernel, "
            "boot loader and cloud-init that a machine needs.",
        ),
    ] = False,
    partition: Annotated[
        int | None,
        typer.Option(
            "--partition",
            metavar="N",
            min=1,
            help="With --bootable: number of the root partition. Default: the only one.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="With --bootable: disk size of the image. Default: 3G, or more if the files "
            "need it.",
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="Expected digest of the file.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing image of that name.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy your own disk image into the cache as local:NAME.

    armvm treats the file as untrusted and rejects images that refer to other files. Then use it:
    armvm create --image local:NAME.

    With --bootable, armvm makes a new image from the root file system of a board's image (Debian,
    Ubuntu and derived systems, ext4, 64-bit). This can take half an hour. Packages, users and
    settings stay; GPIO, camera, Wi-Fi and the vendor's kernel do not work in a machine.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.image.care import import_image

    if bootable:
        from armvm.provision.rootfs.from_board import import_board

        made = import_board(
            file,
            name,
            sha256=sha256,
            partition=partition,
            size=size,
            force=force,
            progress=progress_for(quiet),
        )
        if json:
            print_json(made)
        else:
            print(f"{made.reference}: {made.path}   (armvm create --image {made.reference})")
        return
    if partition is not None or size is not None:
        raise UsageError("--partition and --size require --bootable")
    entry = import_image(file, name, sha256=sha256, force=force, progress=progress_for(quiet))
    if json:
        print_json(entry)
    else:
        print(f"{entry.reference}: {entry.path} ({size_text(entry.size)}, {entry.digest[:19]}…)")


def export(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="Image reference.", autocompletion=complete.images)
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="qcow2 file to write.", parser=given_path)
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: Json = False,
) -> None:
    """Copy a cached image to a qcow2 file."""
    from armvm.provision.image.care import export_image

    check_file(file)
    copy = export_image(reference, file, force=force)
    if json:
        print_json(copy)
    else:
        print(f"{reference}: {copy.path} ({size_text(copy.size)}, {copy.digest[:19]}…)")


def register(app: typer.Typer) -> None:
    """Add these commands to the group ``image``."""
    app.command(
        epilog="Examples:\n\n  armvm image prune --older-than 30d --unused --dry-run\n\n"
        "  armvm image prune    # only partial and unusable files"
    )(prune)
    app.command(epilog="Examples:\n\n  armvm image verify\n\n  armvm image verify ubuntu:24.04")(
        verify
    )
    app.command(
        "import",
        epilog="Examples:\n\n  armvm image import ./disk.qcow2 --as mine\n\n"
        "  armvm image import raspios-arm64-lite.img.xz --as pi --bootable",
    )(import_)
    app.command(epilog="Example: armvm image export ubuntu:24.04 ./ubuntu.qcow2")(export)
