"""A machine's UEFI variables where libvirt keeps them: in no pool, in a file named by the domain.

libvirt makes the file at the first start, names it by the domain and does not rename it with it.
A pool that lives as long as it is needed shows it to us, over any connection.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import libvirt
from lxml import etree
from platformdirs import user_config_path

from armvm.base.poll import until
from armvm.base.signals import shielded
from armvm.host.connection import Connection, Pool, Volume, errors, is_local, is_session, uri_of
from armvm.host.storage import pools, volumes
from armvm.host.storage.volume_copy import duplicate
from armvm.host.xml import at, parse, to_text

SYSTEM = PurePosixPath("/var/lib/libvirt/qemu/nvram")
#: How the pools are called that show it.
_OURS = "armvm-nvram-"
#: Seconds after which such a pool is taken for a dead process's: a copy takes one or two.
_PATIENCE, _POLL, _TRIES = 30.0, 0.1, 3


def place(connection: Connection, document: etree._Element, name: str) -> PurePosixPath | None:
    """Return where a domain's UEFI variables are if it has any; None where it can have none.

    Newer libvirts say it in the definition. Otherwise it is their usual place, which of a remote
    user's own daemon is not known.
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
    """Copy UEFI variables into *pool* for the machine *name*, and put their place in *document*.

    Where there are none yet, libvirt makes some at the next start.
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
    """Remove UEFI variables; it is no error where there are none."""
    with _shown(connection, path) as volume:
        if volume is not None:
            volumes.delete_volume(volume)


@contextmanager
def _shown(connection: Connection, path: PurePosixPath) -> Iterator[Volume | None]:
    """Show the file at *path* as a volume; None where there is no such file."""
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
    """Return a pool that shows a directory; one that had to be made for it is in *made* too.

    None where there is no such directory: no machine with firmware was ever started there.
    libvirt has one pool for a directory at a time, so that of another armvm is waited for.
    """
    document = etree.Element("pool", type="dir")
    etree.SubElement(document, "name").text = f"{_OURS}{secrets.token_hex(4)}"
    etree.SubElement(etree.SubElement(document, "target"), "path").text = directory

    def pool_or_nothing() -> list[Pool] | None:
        try:
            with shielded():
                pool = connection.storagePoolCreateXML(to_text(document), 0)
                made.append(pool)
            return [pool]
        except libvirt.libvirtError as error:
            if "cannot open" in str(error) or "No such file" in str(error):
                return []
            if "conflict" not in str(error):
                raise
        other = _existing(connection, directory)
        if other is None or other.name().startswith(_OURS):
            return None
        pools.refresh(other)
        return [other]

    while (found := until(pool_or_nothing, timeout=_PATIENCE, interval=_POLL)) is None:
        if other := _existing(connection, directory):
            _drop(other)  # of a process that was killed
    return found[0] if found else None


def _existing(connection: Connection, directory: str) -> Pool | None:
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        with contextlib.suppress(libvirt.libvirtError):  # it has gone in between
            if parse(pool.XMLDesc(0)).findtext("target/path") == directory:
                return pool
    return None


def _drop(pool: Pool) -> None:
    """Forget a pool that was made for a moment; its files stay."""
    for _ in range(_TRIES):
        try:
            pool.destroy()
            return
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
                return
