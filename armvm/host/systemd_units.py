"""The systemd units that start libvirt on this host: one daemon, or several modular ones.

Source: systemd.unit(5), and libvirt's daemons.html: if both kinds are installed, the enabled one
is in use. ``scripts/setup`` starts the units that `sockets` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: The directories of units; the first one that has a unit counts.
DIRECTORIES = tuple(
    Path(directory, "systemd/system")
    for directory in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
#: Exists while systemd is the first process.
RUNNING = Path("/run/systemd/system")
#: The modular daemons' sockets: machines, networks, storage.
_MODULAR = ("virtqemud.socket", "virtnetworkd.socket", "virtstoraged.socket")
_MONOLITHIC = ("libvirtd.socket",)


def sockets(directories: Sequence[Path] = DIRECTORIES) -> tuple[str, ...]:
    """Return the sockets behind qemu:///system; () if libvirt's units are missing."""
    kinds = [
        found
        for kind in (_MODULAR, _MONOLITHIC)
        if kind[0] in (found := tuple(unit for unit in kind if _is_there(unit, directories)))
    ]
    enabled = [kind for kind in kinds if _is_enabled(kind[0], directories)]
    return next(iter(enabled + kinds), ())


def start_command(directories: Sequence[Path] = DIRECTORIES, running: Path = RUNNING) -> str:
    """Return the command that starts libvirt on this host."""
    if not running.is_dir():
        return "libvirtd -d && virtlogd -d"
    found = sockets(directories)
    if not found:
        return "apt-get install libvirt-daemon-system (or: dnf install libvirt-daemon-kvm)"
    return f"systemctl start {' '.join(found)}"


def _is_there(unit: str, directories: Sequence[Path]) -> bool:
    """Return whether a unit exists and is not masked: by a link to /dev/null, or as empty."""
    found = [path for one in directories if (path := one / unit).is_symlink() or path.exists()]
    return bool(found) and found[0].is_file() and found[0].stat().st_size > 0


def _is_enabled(unit: str, directories: Sequence[Path]) -> bool:
    return any(list(one.glob(f"*.wants/{unit}")) for one in directories)
