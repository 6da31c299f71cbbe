"""``golden create|list|show|verify|delete``; golden_files holds the others."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.base.errors import UsageError
from armvm.base.progress import size_text
from armvm.cli import complete, golden_files
from armvm.cli.context import (
    agreed,
    open_host,
    open_where,
    print_fields,
    print_json,
    print_rows,
    progress_for,
    short_reference,
    verify_policy,
)
from armvm.cli.options import (
    Connect,
    Json,
    MachineOptions,
    PoolName,
    Quiet,
    Timeout,
    VerifyImage,
    with_machine_options,
)
from armvm.cli.request import machine_of

app = typer.Typer(
    no_args_is_help=True,
    help="Goldens: booted and saved machines that clones start from in a second or two.",
)

GoldenName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the golden.", autocompletion=complete.goldens)
]

_CREATE_EXAMPLES = """Examples:

  armvm golden create ci --preset minimal

  armvm golden create --image local:debian-12 --cpus 4 --mem 4G --user alice

  armvm golden create cc --install gcc,make

  armvm golden create web --from web-01

  armvm create --from ci"""

_DELETE_EXAMPLES = """Examples:

  armvm golden delete ci --yes

  armvm golden delete ci --flatten"""


@app.command(epilog=_CREATE_EXAMPLES)
@with_machine_options(fast=False, name=None, ip=None, network_config=None)
def create(
    options: MachineOptions,
    golden: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Name. Default: the next free golden-NN."),
    ] = None,
    save_image: Annotated[
        bool,
        typer.Option(
            "--save-image",
            help="Store the memory in a libvirt save image: slower, and clones do not share "
            "memory. Always on with a remote libvirt. Default: off.",
        ),
    ] = False,
    machine_name: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MACHINE",
            help="Boot a copy of this machine's disk, with everything installed on it. The machine "
            "must be off. Settings that you do not give are the machine's.",
            autocompletion=complete.machines,
        ),
    ] = None,
    install: Annotated[
        list[str] | None,
        typer.Option(
            "--install",
            metavar="PACKAGES",
            help="Install these packages in the image before it boots: names separated by commas; "
            "repeatable.",
        ),
    ] = None,
    verify: VerifyImage = None,
    connect: Connect = None,
    pool: PoolName = None,
    timeout: Timeout = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Boot a machine and save it with its memory, as a source for clones.

    This takes one boot from the image. Clones inherit the image, vCPUs, memory, disk size, user
    and kind of network; they get their own host name, addresses, keys, ids and random seed. A
    golden needs the QEMU and firmware that made it, and the same or a newer libvirt. --network
    user gives the fastest clones.

    With --from or --install, only 'armvm create --from' and 'armvm run --from' use the golden.
    --from does not change the machine; every clone contains its files, including any secrets.

    With --install, the packages come from the image's own sources, with their dependencies and
    recommended packages. armvm keeps the image with the packages in its cache. If the image is not
    Debian, Ubuntu or a system derived from them, or this host cannot install in it, the guest
    installs them while it boots.
    """
    from armvm.provision.golden.goldens import describe, free_name
    from armvm.provision.image.recipe_input import check_packages
    from armvm.provision.launch.bake import create as create_golden

    packages = check_packages(install or ())
    if packages and machine_name is not None:
        raise UsageError(
            "--install and --from cannot be used together",
            hint=f"install them in {machine_name} first, and then stop it",
        )
    where = open_where(connect, pool, verify_policy(verify))
    progress = progress_for(quiet)
    name = golden or free_name(where.connection)
    if machine_name is not None:
        from armvm.provision.golden.from_machine import create_from, find_original, settings_of

        original = find_original(where, machine_name)
        machine = machine_of(options, name, (f"machine {machine_name}", settings_of(original)))
        made = create_from(
            where,
            machine,
            original,
            timeout=timeout,
            progress=progress,
            save_image=save_image,
        )
    else:
        machine = machine_of(options, name)
        made = create_golden(
            where,
            machine,
            timeout=timeout,
            progress=progress,
            save_image=save_image,
            packages=packages,
        )
    if json:
        print_json(describe(where, made))
    else:
        print(f"golden {made.name} created")
        print(f"  armvm create --from {made.name}")


@app.command("list", epilog="Example: armvm golden list --json")
def list_(connect: Connect = None, json: Json = False) -> None:
    """List goldens, and whether they can be used."""
    from armvm.provision.golden.goldens import descriptions

    found = descriptions(open_where(connect, None))
    if json:
        print_json(found)
        return
    if not found:
        print("no goldens found: create one with armvm golden create", file=sys.stderr)
        return
    rows = [
        [
            one.name,
            str(one.shape["cpus"]),
            str(one.shape["memory_mib"]),
            one.shape["user"],
            short_reference(one.image.get("reference", "?")),
            str(len(one.clones)),
            size_text(sum(size or 0 for size in one.volumes.values())),
            "yes" if one.fits else f"no: {one.why_not}",
        ]
        for one in found
    ]
    print_rows(["NAME", "CPUS", "MIB", "USER", "IMAGE", "CLONES", "SIZE", "FITS"], rows)


@app.command(epilog="Example: armvm golden show ci --json")
def show(name: GoldenName, connect: Connect = None, json: Json = False) -> None:
    """Show a golden: its image, shape, clones, and the QEMU and libvirt that made it."""
    from armvm.provision.golden.choose import find
    from armvm.provision.golden.goldens import describe

    where = open_where(connect, None)
    facts = describe(where, find(where, name))
    if json:
        print_json(facts)
    else:
        print_fields(facts)


@app.command(epilog="Example: armvm golden verify ci")
def verify(name: GoldenName, connect: Connect = None, json: Json = False) -> None:
    """Check that a golden is intact and can be used on this host."""
    from armvm.provision.golden.goldens import verify as verify_golden

    facts = verify_golden(open_where(connect, None), name)
    if json:
        print_json(facts)
    else:
        print(f"golden {name} is intact and can be used here")


@app.command(epilog=_DELETE_EXAMPLES)
def delete(
    name: GoldenName,
    connect: Connect = None,
    flatten: Annotated[
        bool,
        typer.Option(
            "--flatten",
            help="First copy the golden's data into each clone's disk; running clones keep "
            "running. Each copy takes the space of the golden's disk.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    quiet: Quiet = False,
) -> None:
    """Delete a golden. If it has clones, use --flatten.

    If copying fails or you press Ctrl-C, the golden is kept and every clone still works.
    """
    from armvm.provision.golden.flatten import flatten as flatten_clones
    from armvm.provision.golden.goldens import assert_there
    from armvm.provision.golden.goldens import delete as delete_golden

    connection = open_host(connect)
    assert_there(connection, name)
    if not agreed(yes, f"Delete golden {name}?", f"this permanently deletes golden {name}"):
        return
    if flatten:
        for clone in flatten_clones(connection, name, progress_for(quiet)):
            print(f"{clone} no longer needs {name}")
    delete_golden(connection, name)
    print(f"golden {name} deleted")


golden_files.register(app)
