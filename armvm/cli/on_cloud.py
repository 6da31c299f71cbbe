"""What the commands do if ``--on`` names a cloud."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from armvm.base.progress import size_text
from armvm.cli.context import (
    agreed,
    left_running,
    print_fields,
    print_json,
    print_rows,
    progress_for,
    short_reference,
    verify_policy,
)

if TYPE_CHECKING:
    from armvm.base.progress import Progress
    from armvm.cli.options import MachineOptions
    from armvm.cloud.connection import Connection
    from armvm.cloud.create import Created
    from armvm.cloud.describe import CreatedServer
    from armvm.cloud.server import Server
    from armvm.settings.clouds import Cloud

#: Settings of a machine that a flavor and Nova decide, as options of `create`.
_DECIDED = ("cpus", "mem", "disk", "network", "cpu", "headless", "fast", "tuned")


def connect(cloud: Cloud) -> Connection:
    """Open a connection to a cloud."""
    from armvm.cloud.connection import connect as open_connection

    return open_connection(cloud)


def refuse(cloud: Cloud, option: str, given: object, why: str, hint: str | None = None) -> None:
    """Raise UsageError if an option that has no meaning on a cloud was given."""
    from armvm.base.errors import UsageError

    if given:
        raise UsageError(f"{option} cannot be used on {cloud.name}, a cloud: {why}", hint=hint)


def create(
    cloud: Cloud,
    options: MachineOptions,
    *,
    count: int | None,
    name_prefix: str | None,
    start: bool,
    wait: bool,
    timeout: float | None,
    verify: str | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
    unusable: Sequence[tuple[str, object]],
) -> None:
    """Create servers; *unusable* are given options that only libvirt hosts have."""
    from armvm.cli.request import machine_of
    from armvm.cloud import create as creating
    from armvm.provision.launch.launch import locate_image, obtain_image

    for key in _DECIDED:
        refuse(
            cloud, f"--{key}", getattr(options, key), "its flavor and network decide",
            f"change [clouds.{cloud.name}] with armvm config edit",
        )  # fmt: skip
    unusable = [*unusable, ("--ip", options.ip), ("--network-config", options.network_config)]
    for option, given in unusable:
        refuse(cloud, option, given, "it is for libvirt hosts")
    refuse(cloud, "--no-start", not start, "Nova starts a new server", "stop it with armvm stop")
    progress, connection = progress_for(quiet), connect(cloud)
    if options.name is None:
        names = creating.free_names(connection, name_prefix or "arm64", count or 1)
    else:
        names = [options.name]
    machine = machine_of(options, names[0])
    if options.name is not None:
        creating.check_free(connection, machine.name)
    source = locate_image(machine.image, progress, verify_policy(verify))
    planned = creating.plan(connection, machine, source, progress)
    if dry_run:
        summaries = [planned.summary(name) for name in names]
        if json:
            print_json(summaries if count is not None else summaries[0])
            return
        for number, summary in enumerate(summaries):
            if number:
                print()
            print_fields(summary)
        return
    told: list[CreatedServer] = []

    def tell(made: Created) -> None:
        if json:
            told.append(_facts(connection, made))
        else:
            _tell(cloud, made)

    try:
        creating.create_all(
            connection, planned, obtain_image(source, progress), names,
            wait=wait, timeout=timeout, progress=progress, tell=tell,
        )  # fmt: skip
    finally:
        if json and (told or count is not None):
            print_json(told if count is not None else told[0])


def list_(cloud: Cloud, json: bool) -> None:
    """List the servers."""
    from armvm.cloud.describe import listed
    from armvm.cloud.server import servers

    connection = connect(cloud)
    rows = [listed(connection, one) for one in servers(connection)]
    if json:
        print_json(rows)
    elif not rows:
        print(f"no machines found: create one with armvm create --on {cloud.name}", file=sys.stderr)
    else:
        cells = [
            [
                row.name, row.state, row.flavor, str(row.cpus or "-"), str(row.memory_mib or "-"),
                short_reference(row.image), row.ssh or "-",
            ]
            for row in rows
        ]  # fmt: skip
        print_rows(["NAME", "STATE", "FLAVOR", "CPUS", "MIB", "IMAGE", "SSH"], cells)


def show(cloud: Cloud, name: str | None, json: bool) -> None:
    """Show a server's details."""
    from armvm.cloud.describe import details
    from armvm.cloud.server import pick

    connection = connect(cloud)
    facts = details(connection, pick(connection, name))
    if json:
        print_json(facts)
        return
    print_fields({**vars(facts), "addresses": [one.address for one in facts.addresses]})


def ip(cloud: Cloud, name: str | None, json: bool) -> None:
    """Print a server's addresses, the one for ssh first."""
    from armvm.cloud.describe import addresses
    from armvm.cloud.server import pick

    connection = connect(cloud)
    server = pick(connection, name)
    if json:
        print_json(addresses(connection, server))
        return
    for address in dict.fromkeys([server.address, *(one.address for one in server.addresses)]):
        if address is not None:
            print(address)


def start(
    cloud: Cloud,
    names: Sequence[str],
    *,
    every: bool,
    wait: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Start servers."""
    from armvm.cloud import power
    from armvm.cloud.server import pick_many
    from armvm.cloud.wait import wait_ready

    connection, progress = connect(cloud), progress_for(quiet)

    def again(server: Server) -> None:
        begun = power.start(connection, server)
        if not wait:
            print(f"{server.name} is starting\n  armvm wait {server.name} --on {cloud.name}")
            return
        with left_running([server.name]):
            wait_ready(connection, begun, timeout=timeout, progress=progress)
        _is_ready(cloud, server)

    _each(
        pick_many(connection, names, every=every, keep=lambda one: not one.running),
        again,
        progress,
    )


def stop(
    cloud: Cloud, names: Sequence[str], *, every: bool, timeout: float | None, quiet: bool
) -> None:
    """Shut servers down."""
    from armvm.cloud import power
    from armvm.cloud.server import pick_many

    connection, progress = connect(cloud), progress_for(quiet)

    def end(server: Server) -> None:
        with progress.task(f"stopping {server.name}"):
            power.stop(connection, server, timeout=timeout)
        print(f"{server.name} is off")

    _each(pick_many(connection, names, every=every), end, progress)


def restart(
    cloud: Cloud,
    names: Sequence[str],
    *,
    every: bool,
    force: bool,
    power_cycle: bool,
    wait: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Restart servers."""
    from armvm.cloud import power
    from armvm.cloud.server import pick_many
    from armvm.cloud.wait import wait_ready

    connection, progress = connect(cloud), progress_for(quiet)

    def again(server: Server) -> None:
        with progress.task(f"restarting {server.name}"):
            if power_cycle and not force:
                begun = power.power_cycle(connection, server, timeout=timeout)
            else:  # Nova's hard reboot is a new QEMU process
                begun = power.restart(connection, server, force=force, timeout=timeout)
        if wait:
            with left_running([server.name]):
                wait_ready(connection, begun, timeout=None, progress=progress)
            _is_ready(cloud, server)
        else:
            print(f"{server.name} restarted")

    _each(pick_many(connection, names, every=every, keep=lambda one: one.running), again, progress)


def delete(cloud: Cloud, names: Sequence[str], *, every: bool, yes: bool) -> None:
    """Delete servers with their disks and ports."""
    from armvm.base.errors import UsageError
    from armvm.cloud import power
    from armvm.cloud.server import pick_many

    if not names and not every:
        raise UsageError("NAME is required", hint="name the machines to delete, or use --all")
    connection = connect(cloud)
    found = pick_many(connection, names, every=every)
    if not found:
        print("no machines found", file=sys.stderr)
        return
    listed = ", ".join(one.name for one in found)
    if not agreed(
        yes, f"Delete {listed} on {cloud.name} with all data?", f"this permanently deletes {listed}"
    ):
        return
    for one in found:
        power.delete(connection, one)
    for one in found:
        power.wait_gone(connection, one)
        print(f"{one.name} deleted")


def wait(cloud: Cloud, name: str | None, *, timeout: float | None, quiet: bool) -> None:
    """Wait until a server is ready."""
    from armvm.cloud.server import pick
    from armvm.cloud.wait import wait_ready

    connection = connect(cloud)
    server = pick(connection, name)
    wait_ready(connection, server, timeout=timeout, progress=progress_for(quiet))
    _is_ready(cloud, server)


def logs(
    cloud: Cloud, name: str | None, *, lines: int | None, follow: bool, older: bool, raw: bool
) -> None:
    """Print a server's serial console output."""
    from armvm.cloud.logs import read_log
    from armvm.cloud.server import pick

    refuse(cloud, "--all", older, "Nova keeps the last 100 KiB only")
    connection = connect(cloud)
    colours = sys.stdout.isatty() and not raw
    for data in read_log(
        connection, pick(connection, name), lines=lines, follow=follow, raw=raw, colours=colours
    ):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def ssh(cloud: Cloud, name: str | None, command: Sequence[str]) -> None:
    """Log in to a server, or run a command."""
    from armvm.cloud.login import ssh as log_in
    from armvm.cloud.server import pick

    connection = connect(cloud)
    code, advice = log_in(connection, pick(connection, name), command)
    if advice is not None:
        print(f"hint: {advice}", file=sys.stderr)
    raise typer.Exit(code)


def cp(cloud: Cloud, paths: Sequence[str], *, recursive: bool, quiet: bool) -> None:
    """Copy files to or from a server."""
    from armvm.cloud.login import copy
    from armvm.cloud.server import pick
    from armvm.provision.access.cp import read_copy

    wanted = read_copy(paths)
    connection = connect(cloud)
    server = pick(connection, wanted.machine)
    raise typer.Exit(copy(connection, server, wanted, recursive=recursive, quiet=quiet))


def snapshot_create(
    cloud: Cloud, name: str, snapshot: str | None, *, json: bool, quiet: bool
) -> None:
    """Take a snapshot of a server's disk."""
    from armvm.cloud import snapshot as snapshots
    from armvm.cloud.server import pick

    connection = connect(cloud)
    made = snapshots.create(connection, pick(connection, name), snapshot, progress_for(quiet))
    if json:
        print_json(made)
    else:
        print(f"snapshot {made.name} of {name} created (machine {made.state})")


def snapshot_list(cloud: Cloud, name: str | None, *, json: bool) -> None:
    """List a server's snapshots."""
    from armvm.cloud import snapshot as snapshots
    from armvm.cloud.server import pick

    connection = connect(cloud)
    server = pick(connection, name)
    found = snapshots.snapshots(connection, server)
    if json:
        print_json(found)
    elif not found:
        print(
            f"no snapshots found: take one with armvm snapshot create {server.name} "
            f"--on {cloud.name}",
            file=sys.stderr,
        )
    else:
        rows = [
            [one.name, one.created, one.state, one.status, size_text(one.size or 0)]
            for one in found
        ]
        print_rows(["NAME", "TAKEN", "MACHINE", "STATUS", "SIZE"], rows)


def snapshot_revert(cloud: Cloud, name: str, snapshot: str, *, yes: bool, quiet: bool) -> None:
    """Revert a server's disk to a snapshot."""
    from armvm.cloud import snapshot as snapshots
    from armvm.cloud.server import pick

    connection = connect(cloud)
    server = pick(connection, name)
    snapshots.find(connection, server, snapshot)
    loss = "this permanently deletes data"
    if agreed(yes, f"Discard everything {name} wrote since {snapshot}?", loss):
        snapshots.revert(connection, server, snapshot, progress_for(quiet))
        print(f"{name} reverted to {snapshot}")


def snapshot_delete(cloud: Cloud, name: str, snapshot: str, *, yes: bool) -> None:
    """Delete a snapshot."""
    from armvm.cloud import snapshot as snapshots
    from armvm.cloud.server import pick

    connection = connect(cloud)
    server = pick(connection, name)
    snapshots.find(connection, server, snapshot)
    if agreed(yes, f"Delete snapshot {snapshot} of {name}?", "this permanently deletes data"):
        snapshots.delete(connection, server, snapshot)
        print(f"snapshot {snapshot} deleted")


def _each(servers: Sequence[Any], work: Callable[[Any], None], progress: Progress) -> None:
    from armvm.cli.context import each

    each(servers, work, progress)


def _is_ready(cloud: Cloud, server: Server) -> None:
    print(f"{server.name} is ready: armvm ssh {server.name} --on {cloud.name}", flush=True)


def _facts(connection: Connection, made: Created) -> CreatedServer:
    from armvm.cloud.describe import created

    return created(connection, made.server, made.ready.boot.seen if made.ready else None)


def _tell(cloud: Cloud, made: Created) -> None:
    name, ready = made.server.name, made.ready
    if ready is None:
        print(f"{name} created\n  armvm wait {name} --on {cloud.name}", flush=True)
        return
    print(f"{name} is ready after {ready.boot.seconds:.0f} s: {made.server.user}@{ready.address}")
    print(f"  armvm ssh {name} --on {cloud.name}", flush=True)
