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

from armvm.host import storage
from armvm.host.connection import Connection, Pool, Volume, errors, is_local, is_session, uri_of
from armvm.host.duplicate import duplicate
from armvm.host.xml import at, to_text

SYSTEM = PurePosixPath("/var/lib/libvirt/qemu/nvram")


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
        copied = duplicate(connection, pool, storage.volume_names(name)["nvram"], volume)
        if nvram is None:
            nvram = etree.SubElement(at(document, "os"), "nvram")
        nvram.text = copied.path()


def forget(connection: Connection, path: PurePosixPath) -> None:
    """Remove UEFI variables; it is no error where there are none."""
    with _shown(connection, path) as volume:
        if volume is not None:
            storage.delete_volume(volume)


@contextmanager
def _shown(connection: Connection, path: PurePosixPath) -> Iterator[Volume | None]:
    """Show the file at *path* as a volume; None where there is no such file."""
    with errors(f"looking for {path.name}"):
        try:
            yield connection.storageVolLookupByPath(str(path))
            return
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise
        pool = _pool_at(connection, path.parent)
    if pool is None:
        yield None
        return
    try:
        yield storage.find_volume(pool, path.name)
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            pool.destroy()


def _pool_at(connection: Connection, directory: PurePosixPath) -> Pool | None:
    document = etree.Element("pool", type="dir")
    etree.SubElement(document, "name").text = f"armvm-nvram-{secrets.token_hex(4)}"
    etree.SubElement(etree.SubElement(document, "target"), "path").text = str(directory)
    try:
        return connection.storagePoolCreateXML(to_text(document), 0)
    except libvirt.libvirtError as error:
        if "cannot open" in str(error) or "No such file" in str(error):
            return None  # no machine with firmware was ever started here
        raise
