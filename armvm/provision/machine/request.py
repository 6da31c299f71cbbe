"""A Machine from layers of settings: the command line's or a fleet file's, and those below it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armvm.base.paths import config_files
from armvm.guest.cloudinit.network_config import read_network_config as parsed
from armvm.guest.cloudinit.network_config import static_address
from armvm.provision.machine.credentials import login_keys
from armvm.provision.machine.user_data import read_files, read_network_config
from armvm.settings.config_file import file_layer
from armvm.settings.disks import ExtraDisk, named
from armvm.settings.layers import Layer, environment_layer, resolve
from armvm.settings.machine import Machine
from armvm.settings.presets import preset_layer
from armvm.settings.table import SETTINGS


def requested(
    name: str,
    layers: Sequence[Layer],
    *,
    base: tuple[str, dict[str, Any]] | None = None,
    preset: str | None = None,
    ssh_keys: Sequence[Path] = (),
    user_data: Sequence[Path] = (),
    disks: Sequence[ExtraDisk] = (),
    network_config: Path | None = None,
) -> Machine:
    """Return the Machine *name* from *layers*, *base*, the environment and configuration files.

    *base* is the name and the settings of a golden or a machine; only *layers* override them.
    *preset* overrides the base's preset. Raises what reading settings, keys and user-data raises.
    """
    below = dict(base[1]) if base else {}
    # The machine contains the packages of its golden's preset, so that preset applies.
    its_preset = below.pop("preset", None)
    preset_name = preset or its_preset or "default"
    bases = [Layer(origin=base[0], values=below)] if base else []
    files = [file_layer(path) for path in config_files()]
    environment = environment_layer(os.environ)
    found = resolve([*layers, *bases, environment, *files, preset_layer(preset_name)])
    keys, own_key = login_keys(ssh_keys)
    network = None if network_config is None else read_network_config(network_config)
    return Machine(
        name=name,
        **{one.field: found[key].value for key, one in SETTINGS.items()},
        ssh_keys=keys,
        own_key=own_key,
        user_data=read_files(user_data),
        network_config=network,
        address=None if network is None else static_address(parsed(network)),
        preset=preset_name,
        disks=named(disks),
    )
