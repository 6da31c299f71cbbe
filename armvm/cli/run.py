"""``run``: runs a command in a temporary machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli import streams
from armvm.cli.context import base_for, open_where, progress_for, verify_policy, warm_for
from armvm.cli.options import (
    Cold,
    Connect,
    FromGolden,
    MachineOptions,
    PoolName,
    Quiet,
    Timeout,
    VerifyImage,
    with_machine_options,
)
from armvm.cli.request import machine_of

_EXAMPLES = """Examples:

  armvm run --from ci -- uname -m

  tar c src | armvm run --from ci --env CC=gcc -- sh -c 'tar x && make -C src test'

  armvm run --from ci --mount . --exclude build/ --exclude '*.o' -- make test

  armvm run --image local:debian-12 --preset minimal --network user"""


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
        typer.Option("--env", "-e", metavar="K=V", help="Set a variable; can be repeated."),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            "--mount",
            "-v",
            metavar="DIR[:GUESTDIR][:ro]",
            help="Copy a directory into the machine (default: to ~/NAME), run the command in it, "
            "and copy changed files back; :ro copies nothing back. Can be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Do not copy matching files in either direction (examples: '*.o', build/, "
            "docs/api). Can be repeated.",
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
    pool: PoolName = None,
    timeout: Timeout = None,
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
    variables, mounts = (
        check_environment(env or []),
        read_mounts(mount or [], exclude or [], git=git, gitignore=gitignore),
    )
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
        warm=warm,
        timeout=timeout,
        progress=progress,
    )
    raise typer.Exit(code)
