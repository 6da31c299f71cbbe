"""Storage pools: armvm's own, those of others, and what is left in them."""

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
#: Seconds to wait for another process's volume to be made: a large one takes a while.
REFRESH_PATIENCE = 60.0
SYSTEM_POOL_PATH = "/var/lib/libvirt/images/armvm"


def default_pool_path(facts: HostFacts) -> str:
    """Return where armvm's own pool is made on a host. Raises StorageError where it is unknown."""
    if not facts.session:
        return SYSTEM_POOL_PATH
    if not facts.local:
        raise StorageError(
            "armvm cannot know a remote user's home directory",
            hint="make a pool there (virsh pool-define-as …) and name it with --pool",
        )
    return str(data_dir() / "pool")


def find_pool(connection: Connection, name: str) -> Pool | None:
    """Return a pool, started if it was not; None where there is none of that name."""
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
                if not pool.isActive():  # another process may have been faster
                    raise
        return pool


def need_pool(connection: Connection, name: str, machine: str) -> Pool:
    """Return the pool that *machine* lies in. Raises StorageError where it is gone."""
    pool = find_pool(connection, name)
    if pool is None:
        raise StorageError(f"the pool {name} of {machine} is gone")
    return pool


def ensure_pool(connection: Connection, name: str, facts: HostFacts) -> Pool:
    """Return the pool *name*; armvm's own is made if need be. Raises NotFound for others."""
    pool = find_pool(connection, name)
    if pool is not None:
        return pool
    if name != DEFAULT_POOL:
        raise NotFound(
            f"there is no storage pool {shown(name)}",
            hint="'virsh pool-list --all' shows them; without --pool armvm makes its own",
        )
    document = etree.Element("pool", type="dir")
    etree.SubElement(document, "name").text = name
    target = etree.SubElement(document, "target")
    etree.SubElement(target, "path").text = default_pool_path(facts)
    etree.SubElement(etree.SubElement(target, "permissions"), "mode").text = "0711"
    with errors("making the storage pool"):
        try:
            made = connection.storagePoolDefineXML(to_text(document), 0)
            made.setAutostart(1)
        except libvirt.libvirtError as error:
            if "already exists" not in str(error) and "already defined" not in str(error):
                raise
    pool = find_pool(connection, name)
    if pool is None:
        raise StorageError("the storage pool went away while it was made")
    return pool


def pool_path(pool: Pool) -> str:
    """Return the directory of a pool, on the connected host."""
    with errors("reading the storage pool"):
        return at(parse(pool.XMLDesc(0)), "target/path").text or ""


def refresh(pool: Pool) -> None:
    """Let libvirt look at a pool again; a volume that is being made there is waited for.

    Raises libvirtError, as what it is part of expects.
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


def check_space(pool: Pool, needed: int) -> None:
    """Raise StorageError when a pool has less than *needed* bytes left."""
    with errors("reading the storage pool"):
        refresh(pool)
        available = int(pool.info()[3])
    if available < needed:
        raise StorageError(
            f"the pool {pool.name()} is full: {size_text(needed)} are needed, "
            f"{size_text(available)} are left",
            hint="remove machines or bases ('armvm list', 'armvm image list'), or use --pool NAME",
        )
