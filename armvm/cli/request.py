"""From a command line's options to the Machine that they, and the configuration, describe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from armvm.spec.machine import Machine


def machine_of(
    chosen: dict[str, Any],
    default_name: Callable[[], str],
    base: tuple[str, dict[str, Any]] | None = None,
) -> Machine:
    """Make the Machine from flags, environment, configuration files, preset and built-ins."""
    from armvm.paths import config_files
    from armvm.provision.credentials import login_keys
    from armvm.spec.configfile import file_layer
    from armvm.spec.layers import KEYS, Layer, environment_layer, resolve
    from armvm.spec.names import check_new_name
    from armvm.spec.presets import preset_layer

    if chosen["name"] is not None:
        check_new_name(chosen["name"])
    flags = Layer(origin="the command line", values={key: chosen[key] for key in KEYS})
    below = dict(base[1]) if base else {}
    # What the preset of a golden installs is in the machine, whatever is asked for besides.
    its_preset = below.pop("preset", None)
    preset_name = chosen["preset"] or its_preset or "default"
    bases = [Layer(origin=base[0], values=below)] if base else []
    files = [file_layer(path) for path in config_files()]
    preset = preset_layer(preset_name)
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
        motd=values["motd"],
        fast=values["fast"],
        tuned=values["tuned"],
        ssh_keys=keys,
        own_key=own_key,
        user_data=_read_user_data(chosen["user_data"]),
        password_hash=_ask_password() if chosen["password"] else None,
        preset=preset_name,
    )


def _read_user_data(path: Path | None) -> str | None:
    from armvm.errors import ConfigError, NotFound, PermissionDenied
    from armvm.spec.names import shown

    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no file {shown(str(path))} for --user-data",
            hint="name one that is there; it begins with #cloud-config",
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"{path} cannot be read", hint="let this user read it, or name another file"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{shown(str(path))} is no user-data: {error}",
            hint="cloud-init's user-data is UTF-8 text that begins with #cloud-config",
        ) from error


def _ask_password() -> str:
    """Return the hash of a password from a prompt (asked twice), or of standard input's line."""
    import getpass

    from armvm.errors import ConfigError
    from armvm.provision.credentials import hash_password

    if not sys.stdin.isatty():
        try:
            return hash_password(sys.stdin.buffer.readline().decode("utf-8-sig").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise ConfigError("the password on standard input is not UTF-8") from error
    first = getpass.getpass("password for the guest's user: ")
    if getpass.getpass("once more: ") != first:
        raise ConfigError("the two passwords differ", hint="try again")
    return hash_password(first)
