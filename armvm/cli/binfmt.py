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
    help="Manage the handlers that run programs of other architectures (qemu-user).",
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
    typer.Argument(
        metavar="[ARCH]...",
        help="Limit to these architectures.",
        autocompletion=complete.architectures,
    ),
]
Interpreter = Annotated[
    Path | None,
    typer.Option(
        "--interpreter",
        metavar="FILE",
        help="Path of the qemu-ARCH program. Default: the installed static one.",
        parser=given_path,
    ),
]
Flags = Annotated[
    str | None,
    typer.Option(
        "--flags",
        metavar="FLAGS",
        help="Any of P (keep argv[0]), O (pass an open file), F (open the interpreter now, for "
        "chroots and containers) and C (setuid programs run with their owner's rights, even "
        "root's). Default: POF.",
    ),
]


@app.command(epilog="Examples:\n\n  armvm binfmt status\n\n  armvm binfmt status arm64 --json")
def status(arches: SomeArches = None, json: Json = False) -> None:
    """Show the registered handlers, who registered them, and whether they work."""
    from armvm.cli.binfmt_text import print_status
    from armvm.provision.binfmt.status import status as look

    found = look(arches or [])
    print_json(found) if json else print_status(found)


@app.command(
    epilog="Examples:\n\n  armvm binfmt explain ./hello\n\n"
    "  armvm binfmt explain ./rootfs/bin/ls --sysroot ./rootfs\n\n"
    "  armvm binfmt explain --docker arm64v8/debian:12"
)
def explain(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Program, or any other file.", parser=given_path),
    ] = None,
    docker: Annotated[
        str | None,
        typer.Option(
            "--docker",
            metavar="IMAGE",
            help="Explain an image that docker has, instead of a file.",
            autocompletion=complete.docker_images,
        ),
    ] = None,
    podman: Annotated[
        str | None,
        typer.Option(
            "--podman",
            metavar="IMAGE",
            help="Explain an image that podman has.",
            autocompletion=complete.podman_images,
        ),
    ] = None,
    sysroot: Annotated[
        Path | None,
        typer.Option(
            "--sysroot",
            "-L",
            metavar="DIR",
            help="Directory to search for its loader and libraries. Default: $QEMU_LD_PREFIX.",
            parser=given_path,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Explain what a program is, which handler runs it and why, and whether it works.

    With --docker or --podman, explain a container image: its platform, the handler that its
    programs need, and whether that handler works in a container.
    """
    from armvm.base.errors import UsageError
    from armvm.cli import binfmt_text

    if sum(one is not None for one in (file, docker, podman)) != 1:
        raise UsageError("expected one of FILE, --docker IMAGE and --podman IMAGE")
    if file is not None:
        from armvm.provision.binfmt.explain import explain as look

        found = look(file, sysroot, os.environ)
        print_json(found) if json else binfmt_text.print_explanation(found)
        return
    if sysroot is not None:
        raise UsageError("--sysroot cannot be used with an image: it has its own libraries")
    from armvm.provision.binfmt import explain_image

    engine = explain_image.Engine.PODMAN if docker is None else explain_image.Engine.DOCKER
    image = explain_image.explain(engine, docker or podman or "")
    print_json(image) if json else binfmt_text.print_image(image)


@app.command(
    epilog="Examples:\n\n  armvm binfmt conf aarch64\n\n"
    "  armvm binfmt conf arm --interpreter /opt/qemu/bin/qemu-arm --flags F"
)
def conf(arch: Arch, flags: Flags = None, interpreter: Interpreter = None) -> None:
    """Print the line that registers a handler, for a file in /etc/binfmt.d (see binfmt.d(5)).

    Magic and mask are the ones of Debian and QEMU. This changes nothing on the host.
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
            help="Take precedence over another tool's handler, which stays registered and takes "
            "effect again when armvm's is unregistered.",
        ),
    ] = False,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic",
            help="Accept a dynamically linked interpreter with flag F. It works only in root "
            "file systems that have its libraries.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Register handlers, now and at every boot (/etc/binfmt.d). Requires root.

    If several handlers match, the kernel uses the latest. armvm never removes another tool's
    handler; if there is one, --replace is required.
    """
    from armvm.provision.binfmt import register

    wanted = register.request(
        arches, program=interpreter, flags=flags, replace=replace, dynamic=dynamic
    )
    for text in register.register(arches, wanted, progress_for(quiet)):
        print(text)


@app.command(epilog="Example: sudo armvm binfmt unregister aarch64")
def unregister(arches: Arches) -> None:
    """Remove armvm's handlers from the kernel and from /etc/binfmt.d. Requires root."""
    from armvm.provision.binfmt.register import unregister as change

    for text in change(arches):
        print(text)


@app.command(epilog="Examples:\n\n  armvm binfmt test\n\n  armvm binfmt test arm64 armhf --json")
def test(arches: SomeArches = None, json: Json = False) -> None:
    """Run a small program of each architecture directly, in a chroot and in a mount namespace.

    For each failure armvm prints the reason and a fix: no handler, a disabled handler, a missing
    interpreter, or no flag F. Without names, armvm tests the architectures that have a handler.
    This works without root and changes nothing on the host. The exit code is 12 if a test fails.
    """
    from armvm.base.errors import CommandFailed
    from armvm.cli.binfmt_text import print_trials
    from armvm.provision.binfmt.trial import all_work
    from armvm.provision.binfmt.trial import test as try_them

    found = try_them(arches or [])
    print_json(found) if json else print_trials(found)
    if not all_work(found):
        raise typer.Exit(CommandFailed.exit_code)
