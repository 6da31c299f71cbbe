"""Build a Machine from command-line options and the configuration."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from armvm.settings.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from armvm.cli.options import MachineOptions


def machine_of(
    options: MachineOptions,
    name: str,
    base: tuple[str, dict[str, Any]] | None = None,
) -> Machine:
    """Return the Machine *name* from flags, environment, configuration files, preset and defaults.

    *base* is the name and the settings of a golden or a machine. Only the command line overrides
    them.
    """
    from armvm.base.paths import config_files
    from armvm.provision.machine.credentials import login_keys
    from armvm.provision.machine.user_data import read_files
    from armvm.settings.config_file import file_layer
    from armvm.settings.layers import Layer, environment_layer, resolve
    from armvm.settings.presets import preset_layer
    from armvm.settings.table import SETTINGS

    chosen = vars(options)
    _check_standard_input(chosen["user_data"] or (), chosen["password"])
    flags = Layer(origin="the command line", values={key: chosen[key] for key in SETTINGS})
    below = dict(base[1]) if base else {}
    # The machine contains the packages of its golden's preset, so that preset applies.
    its_preset = below.pop("preset", None)
    preset_name = chosen["preset"] or its_preset or "default"
    bases = [Layer(origin=base[0], values=below)] if base else []
    files = [file_layer(path) for path in config_files()]
    preset = preset_layer(preset_name)
    found = resolve([flags, *bases, environment_layer(os.environ), *files, preset])
    keys, own_key = login_keys(chosen["ssh_key"] or [])
    return Machine(
        name=name,
        **{one.field: found[key].value for key, one in SETTINGS.items()},
        ssh_keys=keys,
        own_key=own_key,
        user_data=read_files(chosen["user_data"] or ()),
        password_hash=_ask_password() if chosen["password"] else None,
        preset=preset_name,
    )


def _check_standard_input(user_data: Sequence[Path], password: bool) -> None:
    from armvm.base.errors import UsageError

    asked = [path for path in user_data if str(path) == "-"]
    if len(asked) > 1:
        raise UsageError(
            "standard input cannot be used twice: --user-data -", hint="write one of them to a file"
        )
    if asked and password:
        raise UsageError(
            "cannot read both --user-data and --password from standard input",
            hint="write the user-data to a file",
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
