"""``image pull|push|rm``; image_list, image_build and image_care hold the other commands."""

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
    "  armvm image pull --all-lts    # before going offline\n\n"
    "  armvm image pull oci://ghcr.io/me/images/tools:v1 --as tools"
)
def pull(
    references: References = None,
    all_lts: Annotated[
        bool, typer.Option("--all-lts", help="Download all supported Ubuntu LTS releases.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Name an image from a registry local:NAME. Default: the last part of its place.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an existing image of that name (with oci://)."),
    ] = False,
    verify: VerifyImage = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Download and verify images, so that you can create machines offline.

    An interrupted download resumes. An image from a registry, oci://HOST/NAME:TAG, becomes
    local:NAME; with @sha256:HEX instead of a tag, it counts as verified by that digest.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.image import registry
    from armvm.provision.image.find import describe_pulled, locate, obtain

    progress, policy = progress_for(quiet), verify_policy(verify)
    wanted = list(references or [])
    if all_lts:
        from armvm.provision.image.care import lts_references

        wanted += [one for one in lts_references(progress) if one not in wanted]
    if not wanted:
        raise UsageError("an image is required", hint="armvm image pull ubuntu:24.04, or --all-lts")
    if (name is not None or force) and not (len(wanted) == 1 and registry.in_registry(wanted[0])):
        raise UsageError("--as and --force require exactly one image, from a registry (oci://…)")
    facts = []
    for reference in wanted:
        if registry.in_registry(reference):
            image = registry.pull(reference, name, force=force, policy=policy, progress=progress)
        else:
            image = obtain(locate(reference, progress, policy), progress)
        facts.append(one := describe_pulled(image))
        if not json:
            print(f"{reference}: {image.path} ({size_text(image.size)}, {image.digest[:19]}…)")
            print(f"  verified by {one.provenance}")
    if json:
        print_json(facts[0] if len(references or []) == 1 and not all_lts else facts)


@app.command(epilog="Example: armvm image push local:tools oci://ghcr.io/me/images/tools:v1")
def push(
    reference: Reference,
    place: Annotated[
        str, typer.Argument(metavar="OCI", help="Place in a registry: oci://HOST/NAME:TAG.")
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Push a cached image to an OCI registry, for 'image pull oci://…' elsewhere.

    Log in with 'docker login' or 'podman login'.
    """
    from armvm.provision.image.registry import push as push_image

    done = push_image(reference, place, progress_for(quiet))
    if json:
        print_json(done)
    else:
        told = f"{size_text(done.size)} sent" if done.sent else "already there"
        print(f"{done.reference}: {done.place} ({told}, {done.digest})")


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
