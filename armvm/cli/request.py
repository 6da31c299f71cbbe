"""Build a Machine from command-line options and the configuration."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from armvm.cli.options import MachineOptions
    from armvm.settings.machine import Machine


def machine_of(
    options: MachineOptions,
    name: str,
    base: tuple[str, dict[str, Any]] | None = None,
) -> Machine:
    """Return the Machine *name* from flags, environment, configuration files, preset and defaults.

    *base* is the name and the settings of a golden or a machine. Only the command line overrides
    them.
    """
    from armvm.provision.machine.request import requested
    from armvm.settings.layers import Layer

    chosen = vars(options)
    _check_standard_input(
        {"--user-data": chosen["user_data"], "--network-config": chosen["network_config"]},
        chosen["password"],
    )
    flags = Layer(origin="the command line", values=given_settings(options))
    machine = requested(
        name,
        [flags],
        base=base,
        preset=chosen["preset"],
        ssh_keys=chosen["ssh_key"] or (),
        user_data=chosen["user_data"] or (),
        network_config=chosen["network_config"],
    )
    return replace(machine, password_hash=_ask_password()) if chosen["password"] else machine


#: Options whose values only a seed or an image with cloud-init can take.
_NEED_SEED = (
    "ssh_key", "user_data", "password", "preset", "network_config", "autologin", "motd", "fast",
    "tuned",
)  # fmt: skip


def check_seedless(
    options: MachineOptions, golden: str | None, cdrom: Path | None, ignition: Path | None
) -> None:
    """Raise UsageError for options that a machine without a seed cannot have."""
    from armvm.base.errors import UsageError

    asked = "--no-seed" if cdrom is None else "--cdrom"
    asked = asked if ignition is None else "--ignition"
    wrong = [
        f"--{name.replace('_', '-')}"
        for name in _NEED_SEED
        if getattr(options, name) is not None and getattr(options, name) is not False
    ]
    wrong += ["--from"] if golden is not None else []
    wrong += ["--image"] if cdrom is not None and options.image is not None else []
    wrong += ["--cdrom"] if cdrom is not None and ignition is not None else []
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)} cannot be used with {asked}: there is no cloud-init seed",
            hint="set up the machine in its installer, or by its image's own means",
        )


def without_seed(machine: Machine, cdrom: Path | None, ignition: Path | None) -> Machine:
    """Return the machine without a seed, with an installer's ISO or an Ignition configuration."""
    from armvm.provision.machine.seedless import read_ignition

    return replace(
        machine,
        seeded=False,
        cdrom=cdrom,
        ignition=None if ignition is None else read_ignition(ignition),
        own_key=False,
        ssh_keys=(),
        fast=False,
        tuned=False,
        autologin=False,
    )


def given_settings(options: MachineOptions) -> dict[str, Any]:
    """Return the settings on the command line by key, unparsed; None for one that was not given."""
    from armvm.settings.table import SETTINGS

    # An option that may be repeated is an empty list if it is not given.
    return {key: None if (value := vars(options)[key]) == [] else value for key in SETTINGS}


def _check_standard_input(
    files: Mapping[str, Path | Sequence[Path] | None], password: bool
) -> None:
    """Raise UsageError if more than one option reads standard input."""
    from armvm.base.errors import UsageError

    asked = [
        option
        for option, given in files.items()
        for path in (given if isinstance(given, list) else [given])
        if str(path) == "-"
    ]
    if len(asked) > 1:
        raise UsageError(
            "standard input cannot be used twice: " + ", ".join(f"{one} -" for one in asked),
            hint="write one of them to a file",
        )
    if asked and password:
        raise UsageError(
            f"cannot read both {asked[0]} and --password from standard input",
            hint=f"write the {asked[0].removeprefix('--')} to a file",
        )


def _ask_password() -> str:
    """Return the hash of a password from a prompt (twice) or a line of standard input."""
    import getpass

    from armvm.base.errors import ConfigError
    from armvm.provision.machine.credentials import hash_password

    if not sys.stdin.isatty():
        try:
            return hash_password(sys.stdin.buffer.readline().decode("utf-8-sig").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise ConfigError("invalid password on standard input: not UTF-8") from error
    first = getpass.getpass("password for the guest's user: ")
    if getpass.getpass("repeat the password: ") != first:
        raise ConfigError("the passwords do not match", hint="try again")
    return hash_password(first)
