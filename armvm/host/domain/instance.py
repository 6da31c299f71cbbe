"""Machines in libvirt: find, list and describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import libvirt
from lxml import etree

from armvm.base.errors import ConfigError, NotFound
from armvm.host.connection import Connection, Domain, errors, is_code
from armvm.host.domain.metadata import GOLDEN, NAMESPACE, PREFIX, Record, from_domain, to_bare_text
from armvm.host.network.card import Card, Cards, cards_in
from armvm.host.xml import at, parse
from armvm.settings.names import shown

#: virDomainState, in virsh's words.
STATES: Mapping[int, str] = {
    libvirt.VIR_DOMAIN_NOSTATE: "no state",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "blocked",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "in shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}
_OFF = STATES[libvirt.VIR_DOMAIN_SHUTOFF]


@dataclass(frozen=True, kw_only=True)
class Instance(Cards):
    """An observed domain. ``memory_mib`` is in MiB.

    Values come from the persistent definition, so changes by virt-manager are included.
    """

    name: str
    uuid: str
    state: str
    cpus: int
    memory_mib: int
    cards: tuple[Card, ...]
    cpu: str
    accelerator: str
    overlay: str | None
    seed: str | None
    serial_log: str | None
    autostart: bool
    record: Record

    @property
    def suspended(self) -> bool:
        """Whether its vCPUs are paused."""
        return self.state == STATES[libvirt.VIR_DOMAIN_PAUSED]

    @property
    def running(self) -> bool:
        """Whether its QEMU process exists."""
        return self.state not in ("shut off", "crashed", "no state")


def find_domain(connection: Connection, name: str) -> Domain:
    """Return a domain by name. Raises NotFound."""
    with errors(f"looking for {shown(name)}"):
        try:
            return connection.lookupByName(name)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise NotFound(
                    f"machine {shown(name)} not found",
                    hint="list the machines: armvm list; for another libvirt, use --connect "
                    "or --on",
                ) from error
            raise


def find_by_uuid(connection: Connection, uuid: str) -> Domain:
    """Return a domain by its UUID. Raises NotFound."""
    with errors(f"looking for {shown(uuid)}"):
        try:
            return connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError as error:
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                raise NotFound(f"machine with UUID {shown(uuid)} not found") from error
            raise


def domain_exists(connection: Connection, name: str) -> bool:
    """Return whether any domain has this name."""
    try:
        find_domain(connection, name)
    except NotFound:
        return False
    return True


def observe(domain: Domain) -> Instance:
    """Return an armvm machine. Raises NotFound for a domain that armvm did not create."""
    with errors(f"reading {domain.name()}"):
        document = _inactive(domain)
        record = from_domain(document)
        if record is None:
            if document.find(f"metadata/{GOLDEN}") is not None:
                raise NotFound(
                    f"{domain.name()} is a golden, not a machine",
                    hint=f"create a machine from it: armvm create --from {domain.name()}; manage "
                    "it with armvm golden",
                )
            raise NotFound(
                f"{shown(domain.name())} was not created by armvm",
                hint="manage it with virsh or virt-manager",
            )
        return _instance(domain, document, record, _state(domain), bool(domain.autostart()))


def instances(connection: Connection) -> list[Instance]:
    """Return all armvm machines, sorted by name."""
    found = []
    with errors("listing the machines"):
        # One query for all: a query for each of 100 machines takes as long as reading their XML.
        off, autostarted = (
            {domain.UUIDString() for domain in connection.listAllDomains(flag)}
            for flag in (
                libvirt.VIR_CONNECT_LIST_DOMAINS_SHUTOFF,
                libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART,
            )
        )
        for domain in connection.listAllDomains(0):
            try:
                document = _inactive(domain)
                record = from_domain(document)
                if record is not None:
                    uuid = domain.UUIDString()
                    state = _OFF if uuid in off else _state(domain)
                    found.append(_instance(domain, document, record, state, uuid in autostarted))
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):  # deleted in between
                    raise
    return sorted(found, key=lambda instance: instance.name)


def machines(connection: Connection) -> list[Instance]:
    """Return armvm's machines, sorted by name, without those of goldens' pools."""
    return [one for one in instances(connection) if one.record.member is None]


def suspended(connection: Connection) -> list[Domain]:
    """Return all domains whose vCPUs are paused, armvm's or not."""
    with errors("listing the suspended machines"):
        return list(connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED))


def domain_names(connection: Connection) -> list[str]:
    """Return the names of all domains, armvm's or not."""
    with errors("listing the machines"):
        return [domain.name() for domain in connection.listAllDomains(0)]


def set_record(domain: Domain, record: Record) -> None:
    """Replace armvm's record in a domain's metadata, in the definition and while it runs."""
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    with errors(f"writing the metadata of {domain.name()}"):
        if domain.isActive():
            flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, to_bare_text(record), PREFIX, NAMESPACE, flags)


def reading(document: etree._Element) -> Record:
    """Return armvm's record in a machine's edited definition.

    Raises ConfigError for a definition that armvm cannot manage: it needs a valid record in the
    metadata, memory, and a file for the root disk.
    """
    record = from_domain(document)
    if record is None:
        raise ConfigError(
            "armvm's record in <metadata> is missing or invalid",
            hint="leave <armvm:machine> unchanged: armvm recognizes its machines by it",
        )
    count = (document.findtext("vcpu") or "").strip()
    for what, found in (
        ("memory in <memory>", document.findtext("memory")),
        ("a number of vCPUs in <vcpu>", count if count.isdigit() else None),
        ("a root disk (the first <disk>)", _file(document, "devices/disk[1]/source", "file")),
    ):
        if not found:
            raise ConfigError(f"the definition must have {what}")
    return record


def inactive_xml(domain: Domain) -> str:
    """Return the persistent definition as libvirt keeps it, secrets included."""
    with errors(f"reading {domain.name()}"):
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(domain.XMLDesc(flags))


def _inactive(domain: Domain) -> etree._Element:
    return parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))


def _state(domain: Domain) -> str:
    return STATES.get(domain.state(0)[0], "unknown")


def _instance(
    domain: Domain, document: etree._Element, record: Record, state: str, autostart: bool
) -> Instance:
    cpu = document.find("cpu")
    memory = at(document, "memory")  # libvirt always writes KiB
    return Instance(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=state,
        cpus=int(document.findtext("vcpu") or 0),
        memory_mib=int(memory.text or 0) // 1024,
        cards=cards_in(document),
        cpu="" if cpu is None else (cpu.findtext("model") or cpu.get("mode") or ""),
        accelerator=document.get("type", ""),
        overlay=_file(document, "devices/disk[1]/source", "file"),
        seed=_file(document, "devices/disk[2][readonly][@device='disk']/source", "file"),
        serial_log=_file(document, "devices/serial/log", "file"),
        autostart=autostart,
        record=record,
    )


def _file(document: etree._Element, path: str, attribute: str) -> str | None:
    element = document.find(path)
    return None if element is None else element.get(attribute)
