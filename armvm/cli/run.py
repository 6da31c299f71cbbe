"""``run``: one command in a machine that exists for it alone."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from armvm.cli import streams
from armvm.cli.context import base_for, open_where, progress_for, verify_policy, wish_for
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
            "and copy what was changed back; with :ro, nothing comes back. Can be repeated.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Copy nothing that matches, neither there nor back: '*.o', build/, docs/api. "
            "Can be repeated.",
        ),
    ] = None,
    git: Annotated[bool, typer.Option("--git", help="Copy .git there too (never back).")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the machine afterwards.")] = False,
    rm: Annotated[bool, typer.Option("--rm", hidden=True)] = False,
    publish: Annotated[list[str] | None, typer.Option("--publish", "-p", hidden=True)] = None,
    connect: Connect = None,
    pool: PoolName = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Run a command (what follows --; without one, a shell) in a machine made for it alone.

    The exit code is the command's (128 + n for signal n; 255: ssh itself failed); its input and
    output are yours. When the command ends, run does: processes that it leaves behind are not
    waited for. The machine is removed afterwards, also after Ctrl-C or SIGTERM; one whose armvm was
    killed is removed by the next run.

    --mount copies by tar over ssh: before the command, and the new and changed files back after
    it, whatever its exit code. Copied are files, folders and symbolic links, but for what
    --exclude names and .git: with --git it goes there, and never comes back, since git runs what
    its hooks and settings say. What cannot be copied is named. Files are replaced one by one, each
    whole; nothing is removed here, and a file that was changed here meanwhile stays, with the
    machine's beside it.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.launch.run import check_environment, fresh_name
    from armvm.provision.launch.run import run as run_once
    from armvm.provision.launch.run_mount import read_mounts

    if rm and keep:
        raise UsageError("--rm and --keep exclude each other", hint="--rm is what run does anyway")
    if publish:
        raise UsageError(
            "run has no -p: no port leads to a machine that lives for one command",
            hint="armvm create --name NAME, then: armvm forward add NAME HOST:GUEST",
        )
    wish = wish_for(golden, cold)
    variables, mounts = (
        check_environment(env or []),
        read_mounts(mount or [], exclude or [], git=git),
    )
    base = base_for(open_where(connect, pool, verify_policy(verify)), golden, pool)
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
        wish=wish,
        timeout=timeout,
        progress=progress_for(quiet),
    )
    raise typer.Exit(code)
