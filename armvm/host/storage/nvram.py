"""A machine's UEFI variables in libvirt's own place: outside any pool, in a file per domain.

libvirt creates the file at the first start, names it after the domain and does not rename it.
A temporary pool makes it accessible over any connection.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import libvirt
from lxml import etree
from platformdirs import user_config_path

from armvm.base.signals import shielded
from armvm.host.connection import Connection, Pool, Volume, errors, is_local, is_session, uri_of
from armvm.host.storage import pools, volumes
from armvm.host.storage.volume_copy import duplicate
from armvm.host.xml import at, parse, to_text

SYSTEM = PurePosixPath("/var/lib/libvirt/qemu/nvram")
#: The name prefix of these temporary pools.
_OURS = "armvm-nvram-"
#: Seconds after which such a pool counts as left over: a copy takes one or two.
_PATIENCE, _POLL, _TRIES = 30.0, 0.1, 3


def place(connection: Connection, document: etree._Element, name: str) -> PurePosixPath | None:
    """Return the path of a domain's UEFI variables, existing or not; None if it cannot have any.

    Newer libvirts put it in the definition. Otherwise it is libvirt's default, which is unknown
    for a remote user's own daemon.
    """
    if at(document, "os").get("firmware") != "efi" and document.find("os/nvram") is None:
        return None
    told = document.findtext("os/nvram")
    if told:
        return PurePosixPath(told)
    uri = uri_of(connection)
    if not is_session(uri):
        return SYSTEM / f"{name}_VARS.fd"
    if not is_local(uri):
        return None
    return PurePosixPath(user_config_path()) / "libvirt/qemu/nvram" / f"{name}_VARS.fd"


def carry(
    connection: Connection, pool: Pool, document: etree._Element, path: PurePosixPath, name: str
) -> None:
    """Copy UEFI variables into *pool* for the machine *name*, and set their path in *document*.

    If there are none yet, libvirt creates them at the next start.
    """
    with _shown(connection, path) as volume:
        nvram = document.find("os/nvram")
        if volume is None:
            if nvram is not None:
                nvram.text = None
            return
        copied = duplicate(connection, pool, volumes.volume_names(name)["nvram"], volume)
        if nvram is None:
            nvram = etree.SubElement(at(document, "os"), "nvram")
        with errors(f"reading the volume {copied.name()}"):
            nvram.text = copied.path()


def forget(connection: Connection, path: PurePosixPath) -> None:
    """Remove UEFI variables; does nothing if there are none."""
    with _shown(connection, path) as volume:
        if volume is not None:
            volumes.delete_volume(volume)


@contextmanager
def _shown(connection: Connection, path: PurePosixPath) -> Iterator[Volume | None]:
    """Yield the file at *path* as a volume; None if it does not exist."""
    made: list[Pool] = []
    try:
        with errors(f"looking for {path.name}"):
            pool = _pool_at(connection, str(path.parent), made)
        yield None if pool is None else volumes.find_volume(pool, path.name)
    finally:
        with shielded():
            for one in made:
                _drop(one)


def _pool_at(connection: Connection, directory: str, made: list[Pool]) -> Pool | None:
    """Return a pool of a directory; if it had to be created, it is also added to *made*.

    None if the directory does not exist: no machine with firmware was ever started there.
    libvirt allows one pool per directory, so this waits for another armvm's pool to go.
    """
    document = etree.Element("pool", type="dir")
    etree.SubElement(document, "name").text = f"{_OURS}{secrets.token_hex(4)}"
    etree.SubElement(etree.SubElement(document, "target"), "path").text = directory
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with shielded():
                pool = connection.storagePoolCreateXML(to_text(document), 0)
                made.append(pool)
            return pool
        except libvirt.libvirtError as error:
            if "cannot open" in str(error) or "No such file" in str(error):
                return None
            if "conflict" not in str(error):
                raise
        other = _existing(connection, directory)
        if other is not None and not other.name().startswith(_OURS):
            pools.refresh(other)
            return other
        if other is not None and time.monotonic() > end:
            _drop(other)  # left over by a killed process
        time.sleep(_POLL)


def _existing(connection: Connection, directory: str) -> Pool | None:
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        with contextlib.suppress(libvirt.libvirtError):  # removed in between
            if parse(pool.XMLDesc(0)).findtext("target/path") == directory:
                return pool
    return None


def _drop(pool: Pool) -> None:
    """Undefine a temporary pool; its files stay."""
    for _ in range(_TRIES):
        try:
            pool.destroy()
            return
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
                return
