"""``binfmt status|explain|conf|register|unregister|test``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from armvm.cli import complete
from armvm.cli.context import print_json, progress_for
from armvm.cli.options import Json, Quiet
from armvm.settings.user_path import given_path

app = typer.Typer(
    no_args_is_help=True,
    rich_help_panel="Without a machine",
    help="Handlers by which this host runs programs of other architectures (qemu-user).",
)

Arch = Annotated[
    str,
    typer.Argument(
        metavar="ARCH",
        help="aarch64, arm, armeb, riscv64, ppc64le or s390x; Debian's and docker's names too.",
        autocompletion=complete.architectures,
    ),
]
Arches = Annotated[
    list[str],
    typer.Argument(
        metavar="ARCH...",
        help="aarch64, arm, armeb, riscv64, ppc64le or s390x; Debian's and docker's names too.",
        autocompletion=complete.architectures,
    ),
]
SomeArches = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ARCH]...", help="Only these.", autocompletion=complete.architectures),
]
Interpreter = Annotated[
    Path | None,
    typer.Option(
        "--interpreter",
        metavar="FILE",
        help="The qemu-ARCH to run. Default: the static one that is installed.",
        parser=given_path,
    ),
]
Flags = Annotated[
    str | None,
    typer.Option(
        "--flags",
        metavar="FLAGS",
        help="Some of P (keep argv[0]), O (hand over an open file), F (open the interpreter now, "
        "for chroots and containers), C (setuid programs work, and make their owner root). "
        "Default: POF.",
    ),
]


@app.command(epilog="Examples:\n\n  armvm binfmt status\n\n  armvm binfmt status arm64 --json")
def status(arches: SomeArches = None, json: Json = False) -> None:
    """Show which handlers there are, who registered them, and whether they can work."""
    from armvm.cli.binfmt_text import print_status
    from armvm.provision.binfmt.status import status as look

    found = look(arches or [])
    print_json(found) if json else print_status(found)


@app.command(
    epilog="Examples:\n\n  armvm binfmt explain ./hello\n\n"
    "  armvm binfmt explain ./rootfs/bin/ls --sysroot ./rootfs"
)
def explain(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A program, or any file.", parser=given_path)
    ],
    sysroot: Annotated[
        Path | None,
        typer.Option(
            "--sysroot",
            "-L",
            metavar="DIR",
            help="Where its loader and libraries are looked for. Default: $QEMU_LD_PREFIX.",
            parser=given_path,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Explain what a program is, which handler takes it and why, and what happens when it runs."""
    from armvm.cli.binfmt_text import print_explanation
    from armvm.provision.binfmt.explain import explain as look

    found = look(file, sysroot, os.environ)
    print_json(found) if json else print_explanation(found)


@app.command(
    epilog="Examples:\n\n  armvm binfmt conf aarch64\n\n"
    "  armvm binfmt conf arm --interpreter /opt/qemu/bin/qemu-arm --flags F"
)
def conf(arch: Arch, flags: Flags = None, interpreter: Interpreter = None) -> None:
    """Print the line that registers a handler, for a file in /etc/binfmt.d (see binfmt.d(5)).

    Magic and mask are those of Debian and QEMU. Nothing is changed.
    """
    from armvm.provision.binfmt.status import conf as line

    program = str(interpreter) if interpreter else None
    print(
        line(arch, program=program) if flags is None else line(arch, flags=flags, program=program)
    )


@app.command(
    "register",
    epilog="Examples:\n\n  sudo armvm binfmt register aarch64 arm\n\n"
    "  sudo armvm binfmt register aarch64 --interpreter /opt/qemu-10/bin/qemu-aarch64 --replace",
)
def register_(
    arches: Arches,
    interpreter: Interpreter = None,
    flags: Flags = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Go before another tool's handler. That one stays, and is back in force when "
            "armvm's is unregistered.",
        ),
    ] = False,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic",
            help="Accept a dynamically linked interpreter with flag F: it works in roots alone "
            "that have its libraries.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Register handlers, now and at every boot (/etc/binfmt.d), as root.

    The latest handler that matches wins. Another tool's is never removed: where there is one,
    armvm's is registered only with --replace, and before it.
    """
    from armvm.provision.binfmt import register

    wanted = register.wish(
        arches, program=interpreter, flags=flags, replace=replace, dynamic=dynamic
    )
    for text in register.register(arches, wanted, progress_for(quiet)):
        print(text)


@app.command(epilog="Example: sudo armvm binfmt unregister aarch64")
def unregister(arches: Arches) -> None:
    """Take armvm's handlers back: the kernel's table and /etc/binfmt.d are as before them."""
    from armvm.provision.binfmt.register import unregister as change

    for text in change(arches):
        print(text)


@app.command(epilog="Examples:\n\n  armvm binfmt test\n\n  armvm binfmt test arm64 armhf --json")
def test(arches: SomeArches = None, json: Json = False) -> None:
    """Run a tiny program of each architecture directly, in a chroot and in a mount namespace.

    Each of them fails for reasons of its own, which are told with what mends them: no handler, or
    one that is disabled; an interpreter that is gone; no flag F. Without names, the architectures
    that have a handler. Nothing is changed, and no root is needed. The exit code is 12 where
    something fails.
    """
    from armvm.base.errors import CommandFailed
    from armvm.cli.binfmt_text import print_trials
    from armvm.provision.binfmt.trial import all_work
    from armvm.provision.binfmt.trial import test as try_them

    found = try_them(arches or [])
    print_json(found) if json else print_trials(found)
    if not all_work(found):
        raise typer.Exit(CommandFailed.exit_code)
