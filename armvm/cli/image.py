"""``image pull|rm``; image_list, image_build and image_care hold the other commands."""

from __future__ import annotations

from typing import Annotated

import typer

from armvm.base.progress import size_text
from armvm.cli import complete, image_build, image_care, image_list
from armvm.cli.context import open_host, print_json, progress_for, verify_policy
from armvm.cli.options import Connect, Json, PoolName, Quiet, References, VerifyImage

app = typer.Typer(
    no_args_is_help=True,
    help="Download, build, list and remove images.",
)

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="Image reference.", autocompletion=complete.images)
]


image_list.register(app)


@app.command(
    epilog="Examples:\n\n  armvm image pull ubuntu:24.04\n\n"
    "  armvm image pull --all-lts    # before going offline"
)
def pull(
    references: References = None,
    all_lts: Annotated[
        bool, typer.Option("--all-lts", help="Download all supported Ubuntu LTS releases.")
    ] = False,
    verify: VerifyImage = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download and verify images, so that you can create machines offline.

    An interrupted download resumes.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.image.find import describe_pulled, locate, obtain

    progress, policy = progress_for(quiet), verify_policy(verify)
    wanted = list(references or [])
    if all_lts:
        from armvm.provision.image.care import lts_references

        wanted += [one for one in lts_references(progress) if one not in wanted]
    if not wanted:
        raise UsageError("an image is required", hint="armvm image pull ubuntu:24.04, or --all-lts")
    facts = []
    for reference in wanted:
        image = obtain(locate(reference, progress, policy), progress)
        facts.append(one := describe_pulled(image))
        if not json:
            print(f"{reference}: {image.path} ({size_text(image.size)}, {image.digest[:19]}…)")
            print(f"  verified by {one.provenance}")
    if json:
        print_json(facts[0] if len(references or []) == 1 and not all_lts else facts)


image_build.register(app)


@app.command(epilog="Example: armvm image rm local:debian-12")
def rm(
    reference: Reference,
    connect: Connect = None,
    pool: PoolName = None,
    json: Json = False,
) -> None:
    """Remove an image from the cache, and its base volume if no machine uses it."""
    from armvm.base.errors import ConnectFailed, PermissionDenied
    from armvm.provision.connect import pool_name
    from armvm.provision.image.find import remove

    try:
        connection = open_host(connect)
    except (ConnectFailed, PermissionDenied):
        if connect is not None:
            raise
        connection = None  # without libvirt, only the cache is cleaned
    removed = remove(reference, connection, pool_name(pool))
    if json:
        print_json(removed)
    else:
        for one in removed:
            print(f"removed {one}")


image_care.register(app)
