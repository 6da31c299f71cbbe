"""Known-hosts files with the ssh host key of each machine.

armvm generates the host key and stores its public half in the domain's metadata, so that ssh
verifies it from the first connection on. The files can be recreated at any time.
"""

from __future__ import annotations

from pathlib import Path

from armvm.base.paths import data_dir
from armvm.guest.ssh import known_hosts
from armvm.host.domain.instance import Instance
from armvm.provision.machine import shared_connection


def host_alias(instance: Instance) -> str:
    """Return the name that ssh looks the key up by: addresses change, UUIDs do not."""
    return known_hosts.alias_of(instance.uuid)


def write_known_host(instance: Instance) -> Path:
    """Write a machine's known-hosts file and return its path."""
    return known_hosts.write(instance.uuid, instance.record.host_key)


def ssh_config_dir() -> Path:
    """Return the directory of the files that the user's ssh configuration can include."""
    return data_dir() / "ssh"


def ssh_config_file(uuid: str) -> Path:
    """Return the path of a machine's part of the user's ssh configuration, which may not exist."""
    return ssh_config_dir() / f"{uuid}.conf"


def forget_host(uuid: str) -> None:
    """Remove a machine's known-hosts file and its part of the user's ssh configuration.

    Also ends the shared connections to it.
    """
    shared_connection.close(uuid, forget=True)
    known_hosts.file_of(uuid).unlink(missing_ok=True)
    ssh_config_file(uuid).unlink(missing_ok=True)
