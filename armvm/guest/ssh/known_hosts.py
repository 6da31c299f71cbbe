"""Known-hosts files with the ssh host key of each machine, by the machine's UUID."""

from __future__ import annotations

from pathlib import Path

from armvm.base.paths import cache_dir, private_dir, write_atomic


def file_of(uuid: str) -> Path:
    """Return the path of a machine's known-hosts file, which may not exist."""
    return cache_dir() / "known_hosts" / uuid


def alias_of(uuid: str) -> str:
    """Return the name that ssh looks the key up by: addresses change, UUIDs do not."""
    return f"armvm-{uuid}"


def write(uuid: str, host_key: str) -> Path:
    """Write a machine's known-hosts file and return its path.

    If *host_key* is empty, the file stays as it is: ssh keeps the key there that it accepted first.
    """
    path = file_of(uuid)
    private_dir(path.parent)
    if not host_key:
        return path
    write_atomic(path, f"{alias_of(uuid)} {host_key}\n".encode())
    return path
