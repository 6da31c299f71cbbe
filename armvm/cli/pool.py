"""``pool set|list|fill``: ready clones of goldens."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import open_where, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, MachineOptions, Quiet
from armvm.cli.request import machine_of

if TYPE_CHECKING:
    from armvm.base.progress import Progress
    from armvm.provision.machine.create import Where

app = typer.Typer(
    no_args_is_help=True,
    help="Pools: clones of goldens that are ready, for 'run' and 'create' to take.",
)

GoldenName = Annotated[
    str,
    typer.Argument(metavar="GOLDEN", help="Name of the golden.", autocompletion=complete.goldens),
]

_SET_EXAMPLES = """Examples:

  armvm pool set ci --size 2

  armvm run --from ci -- uname -m

  armvm pool set ci --size 0"""


@app.command("set", epilog=_SET_EXAMPLES)
def set_(
    golden: GoldenName,
    size: Annotated[
        int,
        typer.Option(
            "--size", metavar="N", min=0, max=100, help="Number of ready machines; 0: no pool."
        ),
    ],
    connect: Connect = None,
    quiet: Quiet = False,
) -> None:
    """Set how many clones of a golden to keep ready, and make or remove them now.

    A ready machine has its own identity and is suspended: it uses no CPU, and only the memory that
    it does not share with its golden. 'run' and 'create' take one if you give neither --name,
    --user-data nor other settings than the golden's. armvm then makes another one in the
    background.
    """
    from armvm.provision.golden.pool import set_size

    where, progress = open_where(connect, None), progress_for(quiet)
    set_size(where, golden, size)
    _fill(where, golden, progress)
    if size:
        print(f"golden {golden} has a pool of {size}: armvm run --from {golden}")
    else:
        print(f"golden {golden} has no pool")


@app.command("list", epilog="Example: armvm pool list --json")
def list_(connect: Connect = None, json: Json = False) -> None:
    """List the pools, and how many machines of each are ready."""
    from armvm.provision.golden.pool import states

    found = states(open_where(connect, None))
    if json:
        print_json(found)
        return
    if not found:
        print("no pools found: make one with armvm pool set GOLDEN --size N", file=sys.stderr)
        return
    rows = [
        [
            one.golden,
            str(one.size),
            str(one.ready),
            str(one.starting),
            str(one.memory_mib),
            "yes" if one.why_not is None else f"no: {one.why_not}",
        ]
        for one in found
    ]
    print_rows(["GOLDEN", "SIZE", "READY", "STARTING", "MIB", "FITS"], rows)


@app.command(epilog="Example: armvm pool fill ci")
def fill(golden: GoldenName, connect: Connect = None, quiet: Quiet = False) -> None:
    """Make the ready machines that a pool lacks, and remove old and surplus ones.

    armvm does this in the background after it has taken a machine.
    """
    made = _fill(open_where(connect, None), golden, progress_for(quiet))
    for name in made:
        print(f"{name} is ready")


def _fill(where: Where, golden: str, progress: Progress) -> list[str]:
    from dataclasses import replace

    from armvm.provision.golden.choose import find, settings_of
    from armvm.provision.launch.fill import fill as fill_pool

    found = find(where, golden)
    base = (f"golden {golden}", settings_of(found))
    where = replace(where, pool=found.mark.record.pool)
    return fill_pool(where, golden, lambda name: machine_of(MachineOptions(), name, base), progress)
