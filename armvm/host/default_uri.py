"""Choose the libvirt to use without ``--connect`` and ``--on``. Kept apart: it needs no libvirt."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from armvm.settings import hosts

SYSTEM, SESSION = "qemu:///system", "qemu:///session"

#: Why the system daemon is the default, as shown to the user.
BY_SOCKET = "its socket can be opened"

#: The sockets of the monolithic daemon and of the modular one.
SYSTEM_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))


def default_uri(
    environ: Mapping[str, str], sockets: tuple[Path, ...] = SYSTEM_SOCKETS
) -> tuple[str, str]:
    """Return the URI to use without ``--connect`` and ``--on``, and where it came from.

    Raises NotFound if ``ARMVM_ON`` names an unknown host, and ConfigError.
    """
    if name := environ.get(hosts.VARIABLE, "").strip():
        from armvm.base.paths import config_files

        return hosts.find_host(name, config_files()).uri, hosts.VARIABLE
    for variable in ("ARMVM_CONNECT", "LIBVIRT_DEFAULT_URI"):
        if chosen := environ.get(variable, "").strip():
            return chosen, variable
    if any(_opens(path) for path in sockets):
        return SYSTEM, BY_SOCKET
    return SESSION, "the system socket cannot be opened"


def _opens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True
