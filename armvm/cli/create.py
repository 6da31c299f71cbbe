"""``create``: one machine or several."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.errors import UsageError
from armvm.cli.context import (
    base_for,
    open_host,
    open_where,
    print_fields,
    print_json,
    progress_for,
    verify_policy,
    warm_for,
)
from armvm.cli.options import (
    Cold,
    Connect,
    FromGolden,
    Json,
    MachineOptions,
    PoolName,
    Quiet,
    Timeout,
    VerifyImage,
    with_machine_options,
)
from armvm.cli.request import check_seedless, machine_of, without_seed
from armvm.settings.clouds import Cloud
from armvm.settings.user_path import given_path

if TYPE_CHECKING:
    from armvm.base.progress import Progress
    from armvm.provision.golden.choose import Warm
    from armvm.provision.launch.launch import Created
    from armvm.provision.machine.create import Where
    from armvm.provision.machine.plan import CreatePlan, PlannedMachine
    from armvm.provision.manage.machines import CreatedMachine
    from armvm.settings.disks import ExtraDisk


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Machines", epilog=_CREATE_EXAMPLES)(create)


_CREATE_EXAMPLES = """Examples:

  armvm create --name arm64-01 --cpus 2 --mem 4096

  armvm create --image local:debian-12 --user alice --ssh-key ~/.ssh/work.pub

  armvm create --user-data my-setup.yaml --disk 40G --timeout 3600

  armvm create --from my-golden --name clone-01

  armvm create --from my-golden --count 5 --name-prefix ci

  armvm create --add-disk 20G --add-disk size=100G,name=data

  armvm create --name installed --cdrom debian-12-arm64-netinst.iso --disk 20G

  armvm create --dry-run --json"""


@with_machine_options()
def create(
    options: MachineOptions,
    connect: Connect = None,
    cloud: Cloud | None = None,
    pool: PoolName = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            min=1,
            max=1000,
            help="Create N machines, named PREFIX-NN; --json then prints a list.",
        ),
    ] = None,
    name_prefix: Annotated[
        str | None,
        typer.Option(
            "--name-prefix",
            metavar="PREFIX",
            help="Prefix for generated names. Default: arm64.",
        ),
    ] = None,
    start: Annotated[
        bool,
        typer.Option(
            "--start/--no-start", help="Start the machine. Default: start.", show_default=False
        ),
    ] = True,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--no-wait",
            help="Wait until you can log in. Default: wait, but not for an installer.",
        ),
    ] = None,
    timeout: Timeout = None,
    add_disk: Annotated[
        list[str] | None,
        typer.Option(
            "--add-disk",
            metavar="DISK",
            help="Add a new disk of a size, or an existing file: 20G, /srv/data.qcow2, "
            "size=20G,name=data,format=raw. Repeatable.",
        ),
    ] = None,
    cdrom: Annotated[
        Path | None,
        typer.Option(
            "--cdrom",
            metavar="FILE",
            help="Boot an installer from this ISO file, with an empty disk and no seed.",
            parser=given_path,
        ),
    ] = None,
    no_seed: Annotated[
        bool, typer.Option("--no-seed", help="Boot an image without cloud-init: no seed.")
    ] = False,
    ignition: Annotated[
        Path | None,
        typer.Option(
            "--ignition",
            metavar="FILE",
            help="Ignition configuration (JSON), for Fedora CoreOS and Flatcar; no seed.",
            parser=given_path,
        ),
    ] = None,
    golden: FromGolden = None,
    cold: Cold = False,
    verify: VerifyImage = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.")
    ] = False,
    print_xml: Annotated[
        bool, typer.Option("--print-xml", help="Print the domain XML and change nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create a machine, start it, and wait until you can log in.

    On failure or Ctrl-C nothing is left behind. A machine that is not ready in time (exit 11) or
    whose cloud-init failed (exit 12) is kept so that you can inspect it.

    If a golden of the same image and shape exists ('armvm golden'), the machine is cloned from it:
    you can log in within a second or two, and the clone has its own identity. --user-data then
    runs in the background; the machine is ready when it has finished.

    --cdrom, --no-seed and --ignition create a machine without a cloud-init seed: armvm adds no
    user or key there and cannot log in by itself. It waits for a login prompt on the serial
    console.

    With --count, machines that are ready stay if a later one fails or you press Ctrl-C. Machines
    that boot from the image do so in parallel, one per CPU of the host.
    """
    if cloud is not None:
        from armvm.cli import on_cloud

        unusable = [
            ("--pool", pool),
            ("--from", golden),
            ("--cold", cold),
            ("--print-xml", print_xml),
            ("--add-disk", add_disk),
            ("--cdrom", cdrom),
            ("--no-seed", no_seed),
            ("--ignition", ignition),
        ]
        on_cloud.create(
            cloud,
            options,
            count=count,
            name_prefix=name_prefix,
            start=start,
            wait=wait is not False,
            timeout=timeout,
            verify=verify,
            dry_run=dry_run,
            json=json,
            quiet=quiet,
            unusable=unusable,
        )
        return
    from armvm.provision.golden.pool import refill
    from armvm.provision.launch.launch import launch
    from armvm.provision.launch.many import free_names, launch_all, plans, tell_leftovers

    if print_xml and json:
        raise UsageError("--print-xml and --json cannot be used together", hint="leave out --json")
    if print_xml and (count or 1) > 1:
        raise UsageError("--print-xml works with one machine only", hint="leave out --count")
    if options.name is not None and (name_prefix is not None or (count or 1) > 1):
        raise UsageError(
            "--name cannot be used with --name-prefix or --count",
            hint="use a prefix: --count 3 --name-prefix ci creates ci-01, ci-02, ci-03",
        )
    warm = warm_for(golden, cold)
    progress = progress_for(quiet)
    base = base_for(
        open_where(connect, pool, verify_policy(verify)),
        golden,
        pool,
        progress,
        fetch=not (dry_run or print_xml),
    )
    where, warm = base.where, base.chosen(warm)
    if options.name is None:
        prefix = name_prefix or "arm64"
        names = free_names(where.connection, prefix, count or 1)
        tell_leftovers(where.connection, prefix, progress)
    else:
        names = [options.name]
    machine = machine_of(options, names[0], base.settings)
    if add_disk:
        machine = replace(machine, disks=_disks(add_disk, count or 1))
    if cdrom is not None or no_seed or ignition is not None:
        check_seedless(options, golden, cdrom, ignition)
        machine = without_seed(machine, cdrom, ignition)
    wait = cdrom is None if wait is None else wait
    planned = plans(where, machine, names, progress, base.golden)
    if print_xml:
        sys.stdout.write(next(planned).xml)
        return
    if dry_run:
        _show([plan.summary() for plan in planned], json, listed=count is not None)
        return
    if count is None:
        plan = next(planned)
        created = launch(
            where, plan, start=start, wait=wait, timeout=timeout, progress=progress, warm=warm,
            pooled=options.name is None and name_prefix is None,
        )  # fmt: skip
        _tell(created, connect, json, prompted=start and wait)
        if created.pool is not None:
            refill(where, created.pool, progress)
        _bake(where, plan, created, warm, progress)
        return
    made: list[tuple[CreatePlan, Created]] = []
    told: list[CreatedMachine] = []

    def tell(plan: CreatePlan, created: Created) -> None:
        made.append((plan, created))
        if json:
            told.append(_facts(created, connect))
        else:
            _tell(created, connect, json=False, prompted=start and wait)

    try:
        launch_all(
            where,
            planned,
            start=start,
            wait=wait,
            timeout=timeout,
            progress=progress,
            warm=warm,
            tell=tell,
        )
    finally:
        if json:  # also if a later one failed, because these machines exist
            print_json(told)
    _bake(where, *made[0], warm, progress)


def _bake(where: Where, plan: CreatePlan, created: Created, warm: Warm, progress: Progress) -> None:
    """Bake a golden in the background if that is wanted and missing."""
    if warm.bake and created.instance.record.golden is None:
        from armvm.provision.launch.auto_golden import bake_after  # a clone does not need it

        bake_after(where, plan, created, warm, progress)


def _show(summaries: list[PlannedMachine], json: bool, *, listed: bool) -> None:
    """Print plans as JSON (a list if *listed*) or as text."""
    if json:
        print_json(summaries if listed else summaries[0])
        return
    for number, summary in enumerate(summaries):
        if number:
            print()
        print_fields(summary)


def _facts(created: Created, connect: str | None) -> CreatedMachine:
    """Return the details of a new machine, including the seconds until it was ready."""
    from armvm.provision.machine.pick import pick
    from armvm.provision.manage.machines import describe_created

    boot = created.ready.boot if created.ready else None
    machine = pick(open_host(connect), created.instance.name)
    if boot is None:
        return describe_created(machine, None, None)
    return describe_created(machine, boot.seconds, boot.seen)


def _disks(texts: list[str], count: int) -> tuple[ExtraDisk, ...]:
    """Return the disks of --add-disk. Raises UsageError for a file for several machines."""
    from armvm.settings.disks import named, read_disk

    disks = named([read_disk(text) for text in texts])
    if count > 1 and any(one.file is not None for one in disks):
        raise UsageError("--add-disk FILE works with one machine only: two cannot share a disk")
    return disks


def _tell(created: Created, connect: str | None, json: bool, *, prompted: bool) -> None:
    """Print a new machine: its details as JSON, or the next commands as text.

    *prompted*: armvm waited, so a machine without a seed shows its login prompt.
    """
    if json:
        print_json(_facts(created, connect))
        return
    name, ready = created.instance.name, created.ready
    if ready is None and created.instance.seed is None and created.instance.running:
        print(f"{name} shows a login prompt" if prompted else f"{name} created, starting")
        print(f"  armvm console {name}    (Ctrl-] leaves)")
        print(f"  armvm wait {name}       (until it shows a login prompt)", flush=True)
        return
    if ready is None:
        print(f"{name} created" + (", starting" if created.instance.running else ""))
        verb = "wait" if created.instance.running else "start"
        print(f"  armvm {verb} {name}", flush=True)
        return
    seconds = f"{ready.boot.seconds:.{1 if ready.boot.seconds < 20 else 0}f}"
    print(
        f"{name} is ready after {seconds} s: {created.instance.record.user}@"
        f"{ready.endpoint.host}, port {ready.endpoint.port}"
        + (f", via {ready.endpoint.via}" if ready.endpoint.via else "")
    )
    print(f"  armvm ssh {name}")
    print(f"  armvm console {name}    (Ctrl-] leaves)", flush=True)
