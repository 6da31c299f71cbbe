"""Storage pools: armvm's own and others, and their free space."""

from __future__ import annotations

import libvirt
from lxml import etree

from armvm.base.errors import NotFound, StorageError
from armvm.base.paths import data_dir
from armvm.base.poll import until
from armvm.base.progress import size_text
from armvm.host.connection import Connection, Pool, errors, is_code
from armvm.host.facts import HostFacts
from armvm.host.xml import at, parse, to_text
from armvm.settings.names import shown

DEFAULT_POOL = "armvm"
#: Seconds to wait while another process creates a volume: a large one takes a while.
REFRESH_PATIENCE = 60.0
SYSTEM_POOL_PATH = "/var/lib/libvirt/images/armvm"


def default_pool_path(facts: HostFacts) -> str:
    """Return the path of armvm's own pool on a host. Raises StorageError if it is unknown."""
    if not facts.session:
        return SYSTEM_POOL_PATH
    if not facts.local:
        raise StorageError(
            "the home directory of the remote user is unknown",
            hint="create a pool there (virsh pool-define-as …), and use it with --pool NAME",
        )
    return str(data_dir() / "pool")


def find_pool(connection: Connection, name: str) -> Pool | None:
    """Return a pool, and start it if necessary; None if it does not exist."""
    with errors(f"looking for the pool {shown(name)}"):
        try:
            pool = connection.storagePoolLookupByName(name)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
                return None
            raise
        if not pool.isActive():
            try:
                pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
            except libvirt.libvirtError:
                if not pool.isActive():  # another process may have started it
                    raise
        return pool


def need_pool(connection: Connection, name: str, machine: str) -> Pool:
    """Return the pool of *machine*. Raises StorageError if it does not exist."""
    pool = find_pool(connection, name)
    if pool is None:
        raise StorageError(f"pool {name} of {machine} not found")
    return pool


def ensure_pool(connection: Connection, name: str, facts: HostFacts) -> Pool:
    """Return the pool *name*; creates armvm's own pool. Raises NotFound for others."""
    pool = find_pool(connection, name)
    if pool is not None:
        return pool
    if name != DEFAULT_POOL:
        raise NotFound(
            f"storage pool {shown(name)} not found",
            hint="list the pools: virsh pool-list --all; without --pool armvm creates its own",
        )
    document = etree.Element("pool", type="dir")
    etree.SubElement(document, "name").text = name
    target = etree.SubElement(document, "target")
    etree.SubElement(target, "path").text = default_pool_path(facts)
    etree.SubElement(etree.SubElement(target, "permissions"), "mode").text = "0711"
    with errors("creating the storage pool"):
        try:
            made = connection.storagePoolDefineXML(to_text(document), 0)
            made.setAutostart(1)
        except libvirt.libvirtError as error:
            if "already exists" not in str(error) and "already defined" not in str(error):
                raise
    pool = find_pool(connection, name)
    if pool is None:
        raise StorageError("the storage pool was removed while it was being created")
    return pool


def pool_path(pool: Pool) -> str:
    """Return the directory of a pool, on the connected host."""
    with errors("reading the storage pool"):
        return at(parse(pool.XMLDesc(0)), "target/path").text or ""


def refresh(pool: Pool) -> None:
    """Make libvirt rescan a pool; waits for a volume that is being created there.

    Raises libvirtError, which the caller translates.
    """
    busy: libvirt.libvirtError | None = None

    def refreshed() -> bool:
        nonlocal busy
        try:
            pool.refresh(0)
        except libvirt.libvirtError as error:
            if "asynchronous jobs running" not in str(error):
                raise
            busy = error
            return False
        return True

    if not until(refreshed, timeout=REFRESH_PATIENCE, interval=0.1) and busy is not None:
        raise busy


def free_space(pool: Pool) -> int:
    """Return the bytes that a pool has left."""
    with errors("reading the storage pool"):
        refresh(pool)
        return int(pool.info()[3])


def check_space(pool: Pool, needed: int) -> None:
    """Raise StorageError if a pool has less than *needed* bytes left."""
    available = free_space(pool)
    if available < needed:
        raise StorageError(
            f"the pool {pool.name()} is full: {size_text(needed)} needed, "
            f"{size_text(available)} available",
            hint="delete machines or bases ('armvm list', 'armvm image list'), or use --pool NAME",
        )
