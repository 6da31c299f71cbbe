"""Define, start, stop and undefine a domain."""

from __future__ import annotations

import time
from collections.abc import Callable

import libvirt

from armvm.base.errors import Conflict, DomainError, NotReady
from armvm.host.connection import Connection, Domain, errors, is_code


def define(connection: Connection, xml: str, name: str) -> Domain:
    """Define a domain, which claims its name. Raises Conflict if the name is in use."""
    with errors(f"defining {name}"):
        try:
            return connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        except libvirt.libvirtError as error:
            # The same name with another UUID. libvirt reports "operation failed".
            if "already exists with uuid" in str(error) or is_code(
                error, libvirt.VIR_ERR_DOM_EXIST
            ):
                raise taken(name) from error
            raise


def taken(name: str) -> Conflict:
    """Return the error for a name that is in use."""
    return Conflict(
        f"{name} already exists",
        hint=f"choose another --name, or delete it: armvm delete {name}",
    )


def start(domain: Domain) -> None:
    """Start a domain. Raises DomainError (with QEMU's message) if it fails."""
    try:
        domain.create()
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID) and domain.isActive():
            raise Conflict(f"{domain.name()} is already running") from error
        raise DomainError(
            f"{domain.name()} cannot be started",
            detail=str(error.get_error_message()).strip(),
            hint="check this host: armvm doctor",
        ) from error


def suspend(domain: Domain) -> None:
    """Pause a running domain's CPUs."""
    with errors(f"suspending {domain.name()}"):
        domain.suspend()


def resume(domain: Domain) -> None:
    """Resume a suspended domain's CPUs."""
    with errors(f"resuming {domain.name()}"):
        domain.resume()


def shutdown(
    domain: Domain,
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask the guest to shut down, by ACPI and by its agent, and wait until it is off.

    *timeout* is in seconds. Raises NotReady if it is still running then.
    """
    end = clock() + timeout
    asked = 0.0
    while True:
        try:
            if not domain.isActive():
                return
            # A guest that has just booted misses the first request, so ask again.
            if clock() >= asked:
                domain.shutdownFlags(0)
                asked = clock() + 15
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                return
            if not is_code(
                error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_AGENT_UNRESPONSIVE
            ):
                with errors(f"shutting down {domain.name()}"):
                    raise
        if clock() >= end:
            raise NotReady(
                f"timed out after {timeout:g} s: {domain.name()} did not shut down",
                hint=f"force it off: armvm stop --force {domain.name()}",
            )
        sleep(0.5)


def destroy(domain: Domain) -> None:
    """Force a domain off; does nothing if it is off already."""
    with errors(f"destroying {domain.name()}"):
        try:
            domain.destroy()
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
                raise


def rename(domain: Domain, name: str) -> None:
    """Rename a domain that is off; the rest of its definition stays.

    Raises Conflict if the name is in use.
    """
    with errors(f"renaming {domain.name()}"):
        try:
            domain.rename(name, 0)
        except libvirt.libvirtError as error:
            if "already exists" in str(error):
                raise taken(name) from error
            raise


def undefine(domain: Domain) -> None:
    """Undefine a domain, with its NVRAM, managed save image and snapshot metadata."""
    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )
    with errors(f"undefining {domain.name()}"):
        try:
            domain.undefineFlags(flags)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise
