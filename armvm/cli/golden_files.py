"""``golden export|import|push|pull``: goldens as files and in registries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from armvm.base.progress import size_text
from armvm.cli import complete
from armvm.cli.context import open_where, print_json, progress_for, standard_output
from armvm.cli.options import Connect, Json, PoolName, Quiet
from armvm.settings.user_path import given_path

_EXPORT_EXAMPLES = """Examples:

  armvm golden export ci ci.golden

  armvm golden export ci ci.golden --no-base --sign ~/.ssh/id_ed25519

  armvm golden export ci - | ssh lab armvm golden import -"""

_IMPORT_EXAMPLES = """Examples:

  armvm golden import ci.golden

  armvm golden import ci.golden --as ci-2 --signed-by release-key.pub"""


NoBase = Annotated[
    bool,
    typer.Option(
        "--no-base",
        help="Leave out the image below the golden's disk: smaller, but the other host needs "
        "the same image, or gets it from the image's source.",
    ),
]
Sign = Annotated[
    Path | None,
    typer.Option("--sign", metavar="KEY", help="Sign it with this ssh key.", parser=given_path),
]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Name. Default: the name it had.")
]
SignedBy = Annotated[
    Path | None,
    typer.Option(
        "--signed-by",
        metavar="FILE",
        help="Require a signature by this public ssh key, or by one of the allowed signers in "
        "this file (ssh-keygen(1)).",
        parser=given_path,
    ),
]


def export(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the golden.", autocompletion=complete.goldens),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File to write; - for standard output.", parser=given_path
        ),
    ],
    no_base: NoBase = False,
    sign: Sign = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a golden to a file that 'armvm golden import' reads on another host.

    Machines made from the golden can run meanwhile. The file is an OCI image layout in a tar
    archive. It contains the guest's memory and disk, including any secrets.
    """
    from armvm.provision.golden.export import export as export_golden

    stream = str(file) == "-"
    done = export_golden(
        open_where(connect, None),
        name,
        standard_output("a golden", json=json) if stream else file,
        base=not no_base,
        key=sign,
        force=force,
        progress=progress_for(quiet),
    )
    if json:
        print_json(done)
    elif not stream:
        print(f"golden {name}: {file} ({size_text(done.size)}, {done.digest[:19]}…)")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File to read; - for standard input.", parser=given_path
        ),
    ],
    name: As = None,
    signed_by: SignedBy = None,
    connect: Connect = None,
    pool: PoolName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a golden from a file that 'armvm golden export' wrote.

    This host needs the same QEMU, machine type and firmware, and the same or a newer libvirt; if
    not, armvm says what differs. Import only goldens of people you trust: a golden is a running
    system. Only 'armvm create --from' and 'armvm run --from' use it.
    """
    from armvm.provision.golden.goldens import describe
    from armvm.provision.golden.import_ import import_archive, opened

    where = open_where(connect, pool)
    stream = str(file) == "-"
    source = sys.stdin.buffer if stream else file
    with opened(source, "standard input" if stream else str(file)) as archive:
        made = import_archive(
            where, archive, name=name, trusted=signed_by, progress=progress_for(quiet)
        )
    if json:
        print_json(describe(where, made))
    else:
        print(f"golden {made.name} imported")
        print(f"  armvm create --from {made.name}")


def push(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the golden.", autocompletion=complete.goldens),
    ],
    reference: Annotated[
        str, typer.Argument(metavar="OCI", help="Place in a registry: oci://HOST/NAME:TAG.")
    ],
    no_base: NoBase = False,
    sign: Sign = None,
    connect: Connect = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Push a golden to an OCI registry, for 'golden pull' and 'run --from oci://…' elsewhere.

    Layers that the registry has are not sent again. Log in with 'docker login' or 'podman login'.
    The golden contains the guest's memory and disk, including any secrets.
    """
    from armvm.provision.golden.push import push as push_golden

    done = push_golden(
        open_where(connect, None),
        name,
        reference,
        base=not no_base,
        key=sign,
        progress=progress_for(quiet),
    )
    if json:
        print_json(done)
    else:
        print(f"golden {name}: {done.reference} ({size_text(done.sent)} sent, {done.digest})")


def pull(
    reference: Annotated[
        str, typer.Argument(metavar="OCI", help="Place in a registry: oci://HOST/NAME:TAG.")
    ],
    name: As = None,
    signed_by: SignedBy = None,
    connect: Connect = None,
    pool: PoolName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a golden from a registry, as 'golden import' does from a file.

    An interrupted download resumes. Layers that were downloaded before are taken from the cache.
    """
    from armvm.provision.golden.goldens import describe
    from armvm.provision.golden.pull import pull as pull_golden

    where = open_where(connect, pool)
    made = pull_golden(where, reference, name=name, trusted=signed_by, progress=progress_for(quiet))
    if json:
        print_json(describe(where, made))
    else:
        print(f"golden {made.name} pulled")
        print(f"  armvm create --from {made.name}")


def register(app: typer.Typer) -> None:
    """Add these commands to the group ``golden``."""
    app.command(epilog=_EXPORT_EXAMPLES)(export)
    app.command("import", epilog=_IMPORT_EXAMPLES)(import_)
    app.command(epilog="Example: armvm golden push ci oci://ghcr.io/me/goldens/ci:v1")(push)
    app.command(epilog="Example: armvm golden pull oci://ghcr.io/me/goldens/ci:v1 --as ci")(pull)
