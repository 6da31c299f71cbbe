"""Options that several commands share, and the machine that they describe."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from armvm.cli import complete
from armvm.cli.on import cloud_on, no_cloud, uri_on
from armvm.settings.names import shown
from armvm.settings.table import SETTINGS
from armvm.settings.user_path import given_path

#: Maximum of times, in seconds: poll(2) takes less than 25 days.
MAX_SECONDS = 1_000_000

Connect = Annotated[
    str | None,
    typer.Option(
        "--connect",
        "-c",
        metavar="URI",
        help="libvirt URI to connect to. Default: $ARMVM_CONNECT, $LIBVIRT_DEFAULT_URI, "
        "qemu:///system if you may open it, else qemu:///session.",
    ),
]
#: Every command with Connect has this option too: `with_on` adds it.
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="HOST",
        help="Host to connect to: a name in [hosts] of config.toml. Default: $ARMVM_ON.",
        autocompletion=complete.hosts,
    ),
]
#: The same for commands that have a parameter *cloud*: they can work on a cloud.
OnCloud = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="HOST",
        help="Host or cloud to use: a name in [hosts] or [clouds] of config.toml. "
        "Default: $ARMVM_ON.",
        autocompletion=complete.hosts_and_clouds,
    ),
]
PoolName = Annotated[
    str | None,
    typer.Option(
        "--pool",
        metavar="NAME",
        envvar="ARMVM_POOL",
        help="Use this existing storage pool. Default: armvm, created if missing.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress on standard error.")]


def seconds(least: float) -> Callable[[str | float], float]:
    """Return a parser for times in seconds, from *least* to MAX_SECONDS."""

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= MAX_SECONDS:
            raise typer.BadParameter(
                f"{shown(str(text))} is not a number of seconds from {least:g} to {MAX_SECONDS}"
            )
        return value

    return parse


Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds(1),
        help="Time to wait until the machine is ready. Default: 120; emulated: 1200.",
    ),
]
AnswerTimeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds(1),
        help="Time for each host to answer. Default: 10.",
        show_default=False,
    ),
]
ShutdownTimeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=seconds(1),
        help="Time to wait for the shutdown. Default: 60; emulated: 600.",
    ),
]
VerifyImage = Annotated[
    str | None,
    typer.Option(
        "--verify",
        metavar="WHAT",
        help="Minimum verification for downloaded images: signature, digest or none. "
        "Default: the strongest that the source offers.",
        autocompletion=complete.verify,
    ),
]
Share = Annotated[
    bool,
    typer.Option(
        "--share/--no-share",
        help="Use the machine's shared connection, or open one. Default: share.",
        show_default=False,
    ),
]
Name = Annotated[
    str,
    typer.Argument(help="Name of the machine.", autocompletion=complete.machines, metavar="NAME"),
]
OptionalName = Annotated[
    str | None,
    typer.Argument(
        help="Name of the machine; optional if there is only one.",
        autocompletion=complete.machines,
        metavar="[NAME]",
    ),
]


OptionalNames = Annotated[
    list[str] | None,
    typer.Argument(
        help="Names or patterns ('job-*'); optional if there is only one machine.",
        autocompletion=complete.machines,
        metavar="[NAME]...",
    ),
]
All = Annotated[bool, typer.Option("--all", "-a", help="Select all machines.")]


def _key_file(text: str) -> Path:
    return given_path(text, "ssh public key")


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """The values of the options that describe a machine, unparsed: one field per option."""

    name: Annotated[
        str | None,
        typer.Option(
            "--name", "-n", metavar="NAME", help="Machine name. Default: the next free arm64-NN."
        ),
    ] = None
    cpus: Annotated[
        str | None, typer.Option("--cpus", metavar="N", help=SETTINGS["cpus"].option_help)
    ] = None
    mem: Annotated[
        str | None,
        typer.Option("--mem", metavar="SIZE", help=SETTINGS["mem"].option_help),
    ] = None
    disk: Annotated[
        str | None,
        typer.Option("--disk", metavar="SIZE", help=SETTINGS["disk"].option_help),
    ] = None
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            "-i",
            metavar="REF",
            help=SETTINGS["image"].option_help,
            autocompletion=complete.images,
        ),
    ] = None
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", help=SETTINGS["user"].option_help),
    ] = None
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--ssh-key",
            metavar="FILE",
            help="Public key allowed to log in; repeatable. Default: your ~/.ssh/id_*.pub, or "
            "else a key that armvm creates for you.",
            parser=_key_file,
        ),
    ] = None
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            metavar="NETWORK",
            help=SETTINGS["network"].option_help,
            autocompletion=complete.networks,
        ),
    ] = None
    ip: Annotated[
        str | None,
        typer.Option("--ip", metavar="ADDRESS", help=SETTINGS["ip"].option_help),
    ] = None
    network_config: Annotated[
        Path | None,
        typer.Option(
            "--network-config",
            metavar="FILE",
            help="cloud-init network configuration, version 2 (netplan), in place of armvm's; - "
            "reads standard input.",
            parser=given_path,
        ),
    ] = None
    user_data: Annotated[
        list[Path] | None,
        typer.Option(
            "--user-data",
            metavar="FILE",
            help="Your own cloud-init user-data, plain or compressed; - reads standard input. "
            "Repeatable: cloud-configs are merged in order.",
            parser=given_path,
        ),
    ] = None
    cpu: Annotated[
        str | None,
        typer.Option(
            "--cpu",
            metavar="MODEL",
            help=SETTINGS["cpu"].option_help,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            envvar="ARMVM_PRESET",
            help="Preset to start from: default, minimal, desktop, builder (compilers) or docker.",
            show_default=False,
            autocompletion=complete.presets,
        ),
    ] = None
    headless: Annotated[
        bool | None,
        typer.Option(
            SETTINGS["headless"].flags, help=SETTINGS["headless"].option_help, show_default=False
        ),
    ] = None
    autologin: Annotated[
        bool | None,
        typer.Option(
            SETTINGS["autologin"].flags,
            help=SETTINGS["autologin"].option_help,
            show_default=False,
        ),
    ] = None
    motd: Annotated[
        bool | None,
        typer.Option(
            SETTINGS["motd"].flags,
            help=SETTINGS["motd"].option_help,
            show_default=False,
        ),
    ] = None
    fast: Annotated[
        bool | None,
        typer.Option(
            SETTINGS["fast"].flags,
            help=SETTINGS["fast"].option_help,
            show_default=False,
        ),
    ] = None
    tuned: Annotated[
        bool | None,
        typer.Option(
            SETTINGS["tuned"].flags,
            help=SETTINGS["tuned"].option_help,
            show_default=False,
        ),
    ] = None
    password: Annotated[
        bool,
        typer.Option(
            "--password",
            help="Set a password for the user: armvm prompts, or reads it from standard input.",
        ),
    ] = False


FromGolden = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="GOLDEN",
        help="Create the machine from this golden, or from the one at oci://HOST/NAME:TAG, which "
        "is pulled once. Settings that you do not give are the golden's.",
        autocompletion=complete.goldens,
    ),
]
Cold = Annotated[
    bool, typer.Option("--cold", help="Boot from the image, even if a golden matches.")
]


def with_machine_options(**fixed: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that describe a machine, as its first parameter *options*.

    Options in *fixed* are not offered and have the given values.
    """
    hints = get_type_hints(MachineOptions, include_extras=True)
    offered = {
        field.name: inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(MachineOptions)
        if field.name not in fixed
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            given = {name: values.pop(name) for name in offered}
            command(MachineOptions(**fixed, **given), **values)

        every = [*offered.values(), *own.values()]
        keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in every]
        wrapper.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {one.name: one.annotation for one in every}
        return wrapper

    return decorate


def with_on(command: Callable[..., None], verb: str) -> Callable[..., None]:
    """Give a command that has the parameter *connect* the option ``--on``, which sets it too.

    If ``--on`` or the environment names a cloud, a command with a parameter *cloud* gets it there;
    others raise UsageError, which names the command: *verb*. A command without *connect*, or with a
    parameter *on* of its own, is returned unchanged.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    if "connect" not in own or "on" in own:
        return command

    @functools.wraps(command)
    def wrapper(on: str | None = None, **values: Any) -> None:
        cloud = cloud_on(on, values["connect"])
        if cloud is not None:
            if not takes_cloud:
                raise no_cloud(verb, cloud.name)
            values["cloud"] = cloud
        elif on is not None:
            other = "clouds" if takes_cloud else None
            values["connect"] = uri_on(on, values["connect"], other)
        command(**values)

    takes_cloud = own.pop("cloud", None) is not None
    added = inspect.Parameter(
        "on",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=OnCloud if takes_cloud else On,
    )
    every: list[inspect.Parameter] = []
    for one in own.values():
        every.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if one.name == "connect":
            every.append(added)
    wrapper.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in every}
    return wrapper


def given_words(context: typer.Context, leave: Sequence[str]) -> list[str]:
    """Return the options of a command line, except those in *leave*, for another command line.

    Values cannot be mistaken for options: ``--name=VALUE``.
    """
    words = []
    for one in context.command.params:
        name = one.name or ""
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE"
        if not given or name in leave or one.param_type_name != "option":
            continue
        value = context.params[name]
        option = one.opts[0]
        if isinstance(value, bool):
            words.append(option if value else one.secondary_opts[0])
        else:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"{option}={each}" for each in values]
    return words


def default_words(context: typer.Context) -> tuple[str, ...]:
    """Return the words of a command line that choose the connection: ``--on lab1``, or none."""
    given = {key: context.params.get(key) for key in ("on", "connect")}
    return tuple(word for key, value in given.items() if value for word in (f"--{key}", value))


References = Annotated[
    list[str] | None,
    typer.Argument(metavar="[REF]...", help="Image references.", autocompletion=complete.images),
]

#: Options of the commands that install packages: images and root file systems.
Packages = Annotated[
    list[str] | None,
    typer.Option(
        "--package", "-p", metavar="PACKAGE", help="Additional package to install; repeatable."
    ),
]
Archive = Annotated[
    str | None,
    typer.Option("--mirror", metavar="URL", help="Package archive. Default: the distribution's."),
]
