"""``run``: runs a command in a temporary machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.cli import complete, streams
from armvm.cli.context import (
    base_for,
    open_where,
    print_json,
    print_rows,
    progress_for,
    verify_policy,
    warm_for,
)
from armvm.cli.on import refuse_both, uri_on
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
    given_words,
    with_machine_options,
)
from armvm.cli.request import given_settings, machine_of
from armvm.settings.user_path import given_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from armvm.provision.fleet.queue import Job, QueuedTask
    from armvm.provision.launch.run_mount import Mount
    from armvm.settings.queues import Queue

_EXAMPLES = """Examples:

  armvm run --from ci -- uname -m

  tar c src | armvm run --from ci --env CC=gcc -- sh -c 'tar x && make -C src test'

  armvm run --from ci --mount . --exclude build/ --exclude '*.o' -- make test

  armvm run --image local:debian-12 --preset minimal --network user

  armvm run --on farm --from ci --each tests.txt -- sh -c 'make "$ARMVM_ITEM"'"""


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Machines", epilog=_EXAMPLES)(run)


@with_machine_options()
def run(
    options: MachineOptions,
    context: typer.Context,
    golden: FromGolden = None,
    cold: Cold = False,
    verify: VerifyImage = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="K=V", help="Set a variable; repeatable."),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            "--mount",
            "-v",
            metavar="DIR[:GUESTDIR][:ro]",
            help="Copy a directory into the machine (default: to ~/NAME), run the command in it, "
            "and copy changed files back; :ro copies nothing back. Repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Do not copy matching files in either direction (examples: '*.o', build/, "
            "docs/api). Repeatable.",
        ),
    ] = None,
    git: Annotated[
        bool, typer.Option("--git", help="Also copy .git there; it is never copied back.")
    ] = False,
    gitignore: Annotated[
        bool, typer.Option("--gitignore", help="Do not copy files that git ignores.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Do not remove the machine afterwards.")
    ] = False,
    rm: Annotated[bool, typer.Option("--rm", hidden=True)] = False,
    publish: Annotated[list[str] | None, typer.Option("--publish", "-p", hidden=True)] = None,
    connect: Connect = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="HOST|QUEUE",
            help="Host to connect to, or queue whose nodes run it: a name in [hosts] or [queues] "
            "of config.toml. Default: $ARMVM_ON.",
            autocompletion=complete.hosts_and_queues,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            min=1,
            max=100_000,
            help="Queue: run the command N times, each in its own machine.",
        ),
    ] = None,
    each: Annotated[
        Path | None,
        typer.Option(
            "--each",
            metavar="FILE",
            parser=given_path,
            help="Queue: run the command once for each line of a file (- is standard input).",
        ),
    ] = None,
    outputs: Annotated[
        Path | None,
        typer.Option(
            "--outputs",
            metavar="DIR",
            parser=given_path,
            help="Directory for the outputs of --count and --each. Default: a new one here.",
            show_default=False,
        ),
    ] = None,
    pool: PoolName = None,
    timeout: Timeout = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a command in a temporary machine. Put the command after --; the default is a shell.

    The exit code is the command's (128 + n for signal n). The command uses your input and output.
    In a clone of a golden it runs through armvm's own channel; in other machines by ssh, and 255
    then means that ssh failed. armvm exits when the command exits, and does not wait for processes
    that the command leaves in the background. It then removes the machine, also after Ctrl-C or
    SIGTERM. If armvm is killed, the next run removes the machine.

    --mount copies a directory as a tar archive before the command. After it, armvm copies new and
    changed files back, whatever the exit code. It copies files, directories and symbolic links,
    except .git and whatever --exclude matches. --git copies .git there, but never back, because git
    would run its hooks and settings here. armvm warns about files that it cannot copy. It replaces
    each file in one step and removes none here. If you changed a file here while the command ran,
    armvm keeps yours and writes the machine's beside it.

    With --on QUEUE, Slurm chooses a node, and armvm runs there with the same options. --count and
    --each run the command many times, as a job array: ARMVM_ITEM is the number or the line. Their
    exit code is the highest of all, or 12 if a task was killed or its node failed. On Ctrl-C,
    armvm cancels the jobs.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.launch.run import check_environment, fresh_name
    from armvm.provision.launch.run import run as run_once
    from armvm.provision.launch.run_mount import read_mounts

    if rm and keep:
        raise UsageError("--rm and --keep cannot be used together", hint="--rm is the default")
    if publish:
        raise UsageError(
            "--publish cannot be used with run: its machine is temporary",
            hint="use a machine that stays: armvm create --name NAME, then: armvm forward add "
            "NAME HOST:GUEST",
        )
    warm = warm_for(golden, cold)
    variables = check_environment(env or [])
    many = count is not None or each is not None
    if many and count is not None and each is not None:
        raise UsageError("--count and --each cannot be used together")
    if (json or outputs) and not many:
        raise UsageError("--json and --outputs require --count or --each")
    queue = _queue(on, connect)
    if queue is not None:
        if keep:
            raise UsageError(
                "--keep cannot be used with a queue: the machine would outlive its job",
                hint="to look at it, run a shell in the queue: leave out the command",
            )
        # The node reads .gitignore; here the option would only cost time.
        there = read_mounts(mount or [], exclude or [], git=git)
        job = _job(queue, options, context, golden, there, quiet)
        if many:
            raise typer.Exit(_many(job, options, count, each, outputs, json=json, quiet=quiet))
        from armvm.provision.fleet.queue import run_job

        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        raise typer.Exit(run_job(job, terminal=terminal))
    if on is not None:
        connect = uri_on(on, connect, "queues")
    if many:
        raise UsageError(
            "--count and --each require --on QUEUE",
            hint="for several machines here: armvm create --count N",
        )
    mounts = read_mounts(mount or [], exclude or [], git=git, gitignore=gitignore)
    progress = progress_for(quiet)
    base = base_for(open_where(connect, pool, verify_policy(verify)), golden, pool, progress)
    warm = base.chosen(warm)
    machine = machine_of(options, options.name or fresh_name(), base.settings)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    code = run_once(
        base.where,
        machine,
        base.golden,
        command=context.obj or [],
        variables=variables,
        mounts=mounts,
        outputs=None if terminal else (streams.output, streams.trouble),
        keep=keep,
        named=options.name is not None,
        warm=warm,
        timeout=timeout,
        progress=progress,
    )
    raise typer.Exit(code)


def _queue(on: str | None, connect: str | None) -> Queue | None:
    """Return the queue that ``--on`` or ARMVM_ON names; None for a host or neither."""
    from armvm.base.paths import config_files
    from armvm.settings.hosts import VARIABLE
    from armvm.settings.queues import queues_in

    if on is not None:
        refuse_both(connect)
    elif connect is None:
        on = os.environ.get(VARIABLE, "").strip()
    return queues_in(config_files()).get(on) if on else None


def _job(
    queue: Queue,
    options: MachineOptions,
    context: typer.Context,
    golden: str | None,
    mounts: Sequence[Mount],
    quiet: bool,
) -> Job:
    """Return the job: this command's options, with sizes and paths that mean the same there."""
    from armvm.provision.fleet.queue import Job, file_word, image_word, mount_word, size_of

    given = given_settings(options)
    size, image = size_of(queue, given, options.preset, golden, progress_for(quiet))
    words = given_words(
        context,
        leave="on connect count each outputs json mount image ssh_key user_data network_config "
        "cpus mem rm".split(),
    )
    if golden is None or options.cpus is not None:
        words.append(f"--cpus={size.cpus}")
    if golden is None or options.mem is not None:
        words.append(f"--mem={size.memory_mib}")
    word = image_word(queue, image)
    if options.image is not None or word != image:
        words.append(f"--image={word}")
    for one in options.ssh_key or []:
        words.append(f"--ssh-key={file_word(queue, one, 'ssh-key')}")
    for one in options.user_data or []:
        words.append(f"--user-data={file_word(queue, one, 'user-data')}")
    if options.network_config is not None:
        word = file_word(queue, options.network_config, "network-config")
        words.append(f"--network-config={word}")
    for mount in mounts:
        words.append(f"--mount={mount_word(queue, mount)}")
    return Job(queue=queue, size=size, words=tuple(words), command=tuple(context.obj or []))


def _many(
    job: Job,
    options: MachineOptions,
    count: int | None,
    each: Path | None,
    outputs: Path | None,
    *,
    json: bool,
    quiet: bool,
) -> int:
    """Run a job array, print how its tasks ended, and return the highest exit code."""
    from armvm.base.errors import UsageError
    from armvm.provision.fleet.queue import (
        MAX_EACH,
        check_ended,
        outputs_directory,
        read_each,
        read_items,
        run_array,
    )
    from armvm.provision.launch.run import fresh_name

    if not job.command:
        raise UsageError("--count and --each require a command", hint="put it after --")
    if options.name is not None:
        raise UsageError("--name cannot be used with --count and --each: it is one machine's")
    if options.ip is not None:
        raise UsageError("--ip cannot be used with --count and --each: it is one machine's")
    files = [*(options.user_data or []), options.network_config]
    if options.password or any(str(one) == "-" for one in files):
        raise UsageError("--count and --each leave no standard input for options")
    if each is None:
        items = [str(number) for number in range(1, (count or 0) + 1)]
    elif str(each) == "-":
        items = read_items(sys.stdin.buffer.read(MAX_EACH + 1))
    else:
        items = read_each(each)
    directory = outputs_directory(job.queue, outputs, fresh_name())
    tasks = run_array(job, items, directory, progress_for(quiet))
    if json:
        print_json(tasks)
    else:
        print_rows(["TASK", "EXIT", "ITEM"], [_cells(one) for one in tasks])
    sys.stdout.flush()
    return check_ended(tasks)


def _cells(one: QueuedTask) -> list[str]:
    code = "-" if one.exit_code is None else str(one.exit_code)
    return [str(one.task), code, one.item if one.item.isprintable() else ascii(one.item)]
