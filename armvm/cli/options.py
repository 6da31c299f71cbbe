"""Options that several commands share, and the machine that they describe together."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from armvm.cli import complete
from armvm.spec.machine import Machine

Connect = Annotated[
    str | None,
    typer.Option(
        "--connect",
        "-c",
        metavar="URI",
        help="The libvirt to use. Default: $ARMVM_CONNECT, $LIBVIRT_DEFAULT_URI, "
        "qemu:///system where you may open it, else qemu:///session.",
    ),
]
PoolName = Annotated[
    str | None,
    typer.Option(
        "--pool", metavar="NAME", envvar="ARMVM_POOL", help="An existing storage pool to use."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=1,
        help="How long to wait until it is ready. Default: 120, emulated 1200.",
    ),
]
Name = Annotated[
    str,
    typer.Argument(help="The machine's name.", autocompletion=complete.machines, metavar="NAME"),
]
OptionalName = Annotated[
    str | None,
    typer.Argument(
        help="The machine; not needed where there is only one.",
        autocompletion=complete.machines,
        metavar="[NAME]",
    ),
]


def _machine_options(
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", metavar="NAME", help="Default: the next free arm64-NN."),
    ] = None,
    cpus: Annotated[
        str | None, typer.Option("--cpus", metavar="N", help="vCPUs. Default: 2.")
    ] = None,
    mem: Annotated[
        str | None,
        typer.Option("--mem", metavar="SIZE", help="Memory in MiB, or like 4G. Default: 2048."),
    ] = None,
    disk: Annotated[
        str | None,
        typer.Option("--disk", metavar="SIZE", help="Disk in GiB, or like 20G. Default: 10G."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            metavar="REF",
            help="ubuntu:24.04, ubuntu:noble, ubuntu:24.04/SERIAL, local:debian-12, a file, or a "
            "URL with #sha256=…. Default: ubuntu:24.04.",
            autocompletion=complete.images,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", metavar="NAME", help="The guest's user. Default: ubuntu, debian, …."
        ),
    ] = None,
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--ssh-key",
            metavar="FILE",
            help="A public key that may log in; can be repeated. Default: your ~/.ssh/id_*.pub, "
            "or else a key that armvm makes for you.",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="NAME|user",
            help="A libvirt network, or QEMU's user networking. "
            "Default: armvm, a NAT network of its own; in qemu:///session: user.",
            autocompletion=complete.networks,
        ),
    ] = None,
    user_data: Annotated[
        Path | None,
        typer.Option("--user-data", metavar="FILE", help="Your own cloud-init user-data."),
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option(
            "--cpu",
            metavar="MODEL",
            help="A CPU model. Default: cortex-a57; with KVM: host-passthrough.",
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            envvar="ARMVM_PRESET",
            help="Settings to begin with: default, minimal.",
            autocompletion=complete.presets,
        ),
    ] = "default",
    headless: Annotated[
        bool | None,
        typer.Option(
            "--headless/--graphics", help="Without or with video and input.", show_default=False
        ),
    ] = None,
    autologin: Annotated[
        bool | None,
        typer.Option(
            "--autologin/--no-autologin",
            help="Whether the console logs in by itself. Default: autologin.",
            show_default=False,
        ),
    ] = None,
    fast: Annotated[
        bool | None,
        typer.Option(
            "--fast/--no-fast",
            help="Boot quicker, for machines that can be made again: the disk is not flushed "
            "(cache=unsafe: a crash of the host may ruin it), and the kernel is the image's, "
            "loaded from outside (one that the guest installs later is not booted). "
            "Default: no-fast.",
            show_default=False,
        ),
    ] = None,
    password: Annotated[
        bool,
        typer.Option(
            "--password",
            help="Give the user a password too: asked for, or read from standard input.",
        ),
    ] = False,
) -> None:
    """Declare the options: this function's parameters are theirs; it is never called."""


FromGolden = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="GOLDEN",
        help="The golden to make it from; what is not asked for is as in the golden.",
        autocompletion=complete.goldens,
    ),
]
Cold = Annotated[bool, typer.Option("--cold", help="Boot it, even where a golden would fit.")]

#: Makes a Machine; the default name is asked of the host, where there is one. A second argument
#: gives settings that only the command line beats, and what they are called.
Request = Callable[..., Machine]


def with_machine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that describe a machine, as its first parameter *request*."""
    theirs = inspect.signature(_machine_options, eval_str=True).parameters
    command_parameters = inspect.signature(command, eval_str=True).parameters
    own = {name: one for name, one in command_parameters.items() if name != "request"}

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in theirs}
        command(functools.partial(_machine, chosen), **values)

    everything = [*theirs.values(), *own.values()]
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in everything]
    wrapper.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in everything}
    return wrapper


def _machine(
    chosen: dict[str, Any],
    default_name: Callable[[], str],
    base: tuple[str, dict[str, Any]] | None = None,
) -> Machine:
    """Make the Machine from flags, environment, configuration files, preset and built-ins."""
    from armvm.paths import config_files
    from armvm.provision.credentials import login_keys
    from armvm.spec.layers import KEYS, Layer, environment_layer, resolve
    from armvm.spec.names import check_machine_name
    from armvm.spec.presets import file_layer, preset_layer

    if chosen["name"] is not None:
        check_machine_name(chosen["name"])
    flags = Layer(origin="the command line", values={key: chosen[key] for key in KEYS})
    bases = [Layer(origin=base[0], values=base[1])] if base else []
    files = [file_layer(path) for path in config_files()]
    preset = preset_layer(chosen["preset"])
    values = {
        key: setting.value
        for key, setting in resolve(
            [flags, *bases, environment_layer(os.environ), *files, preset]
        ).items()
    }
    keys, own_key = login_keys(chosen["ssh_key"] or [])
    return Machine(
        name=chosen["name"] or default_name(),
        cpus=values["cpus"],
        memory_mib=values["mem"],
        disk=values["disk"],
        image=values["image"],
        user=values["user"],
        network=values["network"],
        cpu_model=values["cpu"],
        headless=values["headless"],
        autologin=values["autologin"],
        fast=values["fast"],
        ssh_keys=keys,
        own_key=own_key,
        user_data=_read_user_data(chosen["user_data"]),
        password_hash=_ask_password() if chosen["password"] else None,
        preset=chosen["preset"],
    )


def _read_user_data(path: Path | None) -> str | None:
    from armvm.errors import ConfigError, NotFound, PermissionDenied
    from armvm.spec.names import shown

    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {shown(str(path))} for --user-data") from error
    except PermissionError as error:
        raise PermissionDenied(f"{path} cannot be read") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(str(path))} is no user-data: {error}") from error


def _ask_password() -> str:
    """Return the hash of a password from a prompt (asked twice), or of standard input's line."""
    import getpass

    from armvm.errors import ConfigError
    from armvm.provision.credentials import hash_password

    if not sys.stdin.isatty():
        try:
            return hash_password(sys.stdin.buffer.readline().decode().rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise ConfigError("the password on standard input is not UTF-8") from error
    first = getpass.getpass("password for the guest's user: ")
    if getpass.getpass("once more: ") != first:
        raise ConfigError("the two passwords differ", hint="try again")
    return hash_password(first)
