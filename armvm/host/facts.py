"""The connected host's support for ARM64 machines, from libvirt's capabilities."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

import libvirt
from lxml import etree

from armvm.base.errors import MissingCapability
from armvm.host.connection import Connection, errors, is_local, is_session, uri_of
from armvm.host.xml import at, parse, select

#: libvirt 11.2.0 cannot start an ARM guest with a custom CPU; fixed in 11.3.0.
_BROKEN_CUSTOM_CPU = 11_002_000
#: The first libvirt with ``<tcg><tb-cache>``; older ones reject a domain that has it.
_TB_CACHE = (8, 0)
#: QEMU's arm CPUs without a 64-bit mode. Matches whole names: cortex-a7 has none, cortex-a710 has.
_32_BIT = re.compile(
    r"arm\d.*|cortex-a(?:5|7|8|9|15|17|32)|cortex-m\d+|cortex-r[4578]f?|cortex-r52"
    r"|pxa\d.*|sa1\d+|ti925t"
)


class Accelerator(enum.Enum):
    """How the guest's instructions are run; the value is libvirt's domain type."""

    KVM = "kvm"
    TCG = "qemu"

    @property
    def default_cpu(self) -> str:
        """The best default CPU: the host's own, or the fastest one to emulate.

        Under TCG ``max`` and newer cores spend their time in pointer authentication.
        """
        return "host-passthrough" if self is Accelerator.KVM else "cortex-a57"

    @property
    def patience(self) -> float:
        """The factor for time limits: emulation is about ten times slower."""
        return 1.0 if self is Accelerator.KVM else 10.0


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """Facts about the connected host: ``memory_mib`` is its RAM in MiB, ``online_cpus`` how
    many CPUs it runs on, ``max_cpus`` how many a machine may have.
    """

    uri: str
    arch: str
    libvirt_version: str
    accelerator: Accelerator
    emulator: str
    machine_type: str
    max_cpus: int
    online_cpus: int
    memory_mib: int
    cpu_models: frozenset[str]
    efi: bool
    #: User and group ids that QEMU runs as; None if it runs as the connected user.
    qemu_owner: tuple[int, int] | None = None
    #: libvirt's names for the security modules that confine QEMU: ``apparmor``, ``selinux``.
    security: frozenset[str] = frozenset()
    #: The host's own CPU in libvirt's words, such as ``ARM Neoverse-N1``; empty if it is unknown.
    cpu: str = ""

    @property
    def session(self) -> bool:
        """Whether this is an ordinary user's own daemon, without NAT networks."""
        return is_session(self.uri)

    @property
    def local(self) -> bool:
        """Whether the host is this one."""
        return is_local(self.uri)

    @property
    def tb_cache(self) -> bool:
        """Whether libvirt can limit the translated code of an emulated machine."""
        version = tuple(int(part) for part in self.libvirt_version.split(".")[:2])
        return self.accelerator is Accelerator.TCG and version >= _TB_CACHE


def observe(connection: Connection) -> HostFacts:
    """Query the host's facts. Raises MissingCapability if it cannot run ARM64 machines at all."""
    with errors("reading the host's capabilities"):
        uri = uri_of(connection)
        capabilities = parse(connection.getCapabilities())
        arch = capabilities.findtext("host/cpu/arch") or "unknown"
        accelerator = _accelerator(capabilities, arch)
        domain = _domain_capabilities(connection, accelerator)
        version = connection.getLibVersion()
        node = connection.getInfo()
        facts = HostFacts(
            uri=uri,
            arch=arch,
            libvirt_version=f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}",
            accelerator=accelerator,
            emulator=domain.findtext("path") or "",
            machine_type=domain.findtext("machine") or "virt",
            max_cpus=int(at(domain, "vcpu").get("max", "512")),
            online_cpus=max(1, int(node[2])),
            memory_mib=node[1],
            cpu_models=frozenset(
                model.text or "" for model in domain.iterfind("cpu/mode[@name='custom']/model")
            ),
            efi=any(
                value.text == "efi" for value in select(domain, "os/enum[@name='firmware']/value")
            ),
            qemu_owner=_qemu_owner(capabilities),
            security=frozenset(
                model.text or "" for model in capabilities.iterfind("host/secmodel/model")
            ),
            cpu=" ".join(
                text
                for tag in ("vendor", "model")
                if (text := capabilities.findtext(f"host/cpu/{tag}"))
            ),
        )
    if accelerator is Accelerator.TCG and version == _BROKEN_CUSTOM_CPU:
        raise MissingCapability(
            "libvirt 11.2.0 cannot start ARM guests with a named CPU",
            hint="update libvirt to 11.3.0 or newer",
        )
    return facts


def cpu_is_64_bit(model: str) -> bool:
    """Return whether a QEMU CPU model can run an ARM64 guest."""
    return _32_BIT.fullmatch(model) is None


def _accelerator(capabilities: etree._Element, arch: str) -> Accelerator:
    guest = capabilities.find("guest/arch[@name='aarch64']")
    if guest is None:
        raise MissingCapability(
            "emulator for ARM64 machines not found on this host (qemu-system-aarch64)",
            hint="on the host: apt-get install qemu-system-arm qemu-efi-aarch64   "
            "(or: dnf install qemu-system-aarch64-core edk2-aarch64)",
        )
    types = {domain.get("type") for domain in guest.iterfind("domain")}
    return Accelerator.KVM if arch == "aarch64" and "kvm" in types else Accelerator.TCG


def _qemu_owner(capabilities: etree._Element) -> tuple[int, int] | None:
    """Return the ids that libvirt runs QEMU as, from its DAC security model's ``+UID:+GID``."""
    for label in select(capabilities, "host/secmodel[model='dac']/baselabel"):
        match = re.fullmatch(r"\+(\d+):\+(\d+)", (label.text or "").strip())
        if match:
            return int(match[1]), int(match[2])
    return None


def _domain_capabilities(connection: Connection, accelerator: Accelerator) -> etree._Element:
    try:
        text = connection.getDomainCapabilities(None, "aarch64", "virt", accelerator.value)
    except libvirt.libvirtError as error:
        raise MissingCapability(
            "libvirt does not support ARM64 'virt' machines on this host",
            detail=str(error),
            hint="check the host: armvm doctor",
        ) from error
    return parse(text)
