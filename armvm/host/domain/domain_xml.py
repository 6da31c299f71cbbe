"""The domain XML: ``templates/domain.xml`` filled in for one machine.

Nothing is decided here: the caller (provision's plan) passes a DomainSpec.
Strings are never formatted into XML, so a value cannot inject elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from lxml import etree

from armvm.base.paths import resources
from armvm.host.agent.channel import add_channels
from armvm.host.domain import disks
from armvm.host.domain.disks import DiskSpec
from armvm.host.domain.metadata import Record, to_element
from armvm.host.facts import Accelerator
from armvm.host.memory import route
from armvm.host.network.card import Card, Cards, connect
from armvm.host.xml import at, parse, remove, select, to_text

#: PCIe slots, of which the machine's own devices take six to nine: the rest is for devices that are
#: plugged in while it runs. virt-install adds as many; 15 or more trigger a QEMU bug.
PCIE_ROOT_PORTS = 14
#: The slots of a headless machine, which has six devices: one is left, or two in a clone.
HEADLESS_ROOT_PORTS = 7
#: The limit of translated code in MiB: a minimum, and a share for each vCPU. QEMU divides the
#: buffer into regions, gives each vCPU its own, and discards all code when none is left
#: (tcg/region.c). More code makes reboots slower and costs memory: see docs/benchmarks.md,
#: "Translated code". A machine without firmware gets more: nothing but the new kernel is in the
#: way of its reboots, and its user has chosen speed.
TB_CACHE_MIB, TB_CACHE_KERNEL_MIB, TB_CACHE_PER_CPU = 64, 256, 8

_OSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"


@dataclass(frozen=True, kw_only=True)
class DirectKernel:
    """A kernel that QEMU loads without firmware: two paths, and its command line."""

    kernel: str
    initrd: str
    command_line: str


@dataclass(frozen=True, kw_only=True)
class DomainSpec(Cards):
    """Everything a domain XML needs.

    ``overlay``, ``seed`` and ``serial_log`` are paths on the connected host; so is
    ``memory_file``, for a machine that becomes a golden by the route ``memory_route``.
    ``cache`` is the root disk's cache mode, None for QEMU's default; ``kernel`` None means
    that firmware boots the machine; ``nvram`` is the path of its UEFI variables, None for
    libvirt's default. ``tb_cache`` limits the translated code that QEMU keeps
    (only without KVM). Without a ``seed``, cloud-init gets no data. ``disks`` are those beside the
    root disk, ``cdrom`` is an installer's ISO, and ``ignition`` a configuration for Ignition.
    """

    name: str
    uuid: str
    cards: tuple[Card, ...]
    cpus: int
    memory_mib: int
    accelerator: Accelerator
    cpu_model: str
    headless: bool
    libosinfo_id: str | None
    overlay: str
    seed: str | None
    serial_log: str
    memory_file: str | None = None
    memory_route: str = route.COW
    cache: str | None = None
    kernel: DirectKernel | None = None
    nvram: str | None = None
    tb_cache: bool = False
    disks: tuple[DiskSpec, ...] = ()
    cdrom: str | None = None
    ignition: str | None = None


def build(spec: DomainSpec, record: Record) -> etree._Element:
    """Return the domain element of one machine."""
    domain = _template()
    domain.set("type", spec.accelerator.value)
    _set(domain, "name", spec.name)
    _set(domain, "uuid", spec.uuid)
    _set(domain, "memory", str(spec.memory_mib))
    _set(domain, "vcpu", str(spec.cpus))
    _metadata(domain, spec, record)
    _cpu(domain, spec.cpu_model)
    if spec.tb_cache:
        least = TB_CACHE_MIB if spec.kernel is None else TB_CACHE_KERNEL_MIB
        size = max(least, TB_CACHE_PER_CPU * spec.cpus)
        _set(domain, "features/tcg/tb-cache", str(size))
    else:
        remove(at(domain, "features/tcg"))
    devices = at(domain, "devices")
    at(devices, "disk[1]/source").set("file", spec.overlay)
    if spec.seed is not None:
        at(devices, "disk[2]/source").set("file", spec.seed)
    at(devices, "serial/log").set("file", spec.serial_log)
    _interfaces(at(devices, "interface"), spec.cards)
    root = at(devices, "controller[@model='pcie-root']")
    ports = HEADLESS_ROOT_PORTS + len(spec.cards) - 1 if spec.headless else PCIE_ROOT_PORTS
    for _ in range(ports + len(spec.disks) + (spec.cdrom is not None)):
        root.addnext(etree.Element("controller", type="pci", model="pcie-root-port"))
    if spec.headless:
        for element in select(devices, "input | graphics | video | controller[@type='usb']"):
            remove(element)
    if spec.cache is not None:
        at(devices, "disk[1]/driver").set("cache", spec.cache)
    if spec.kernel is not None:
        _boot_kernel(domain, spec.kernel)
    elif spec.nvram is not None:
        etree.SubElement(at(domain, "os"), "nvram").text = spec.nvram
    if spec.seed is None:
        _without_seed(domain)
    disks.add_elements(domain, spec.disks)
    if spec.cdrom is not None:
        disks.add_cdrom(domain, spec.cdrom)
    if spec.ignition is not None:
        # Source: Ignition's docs/supported-platforms.md, QEMU.
        passed = etree.Element("sysinfo", type="fwcfg")
        etree.SubElement(passed, "entry", name="opt/com.coreos/config", file=spec.ignition)
        at(domain, "os").addprevious(passed)
    if spec.memory_file is not None:
        add_channels(domain)
        route.route(spec.memory_route).prepare(domain, spec.memory_file)
    return domain


def portable(text: str) -> str:
    """Return a domain's inactive XML without the parts that are specific to this host.

    libvirt resolves the emulator, the firmware's files and the machine type's version when a
    domain is defined; without them, the XML can be defined on another host.
    """
    domain = parse(text)
    os_element = at(domain, "os")
    if os_element.get("firmware") == "efi":
        for element in select(os_element, "loader | nvram"):
            remove(element)
    machine = at(os_element, "type")
    if machine.get("machine", "").startswith("virt-"):
        machine.set("machine", "virt")
    for element in select(domain, "devices/emulator | devices/channel/source"):
        remove(element)
    return to_text(domain)


def _template() -> etree._Element:
    parser = etree.XMLParser(remove_comments=True, remove_blank_text=True)
    path = resources("templates") / "domain.xml"
    return etree.fromstring(path.read_bytes(), parser)


def _set(element: etree._Element, path: str, text: str) -> None:
    at(element, path).text = text


def _metadata(domain: etree._Element, spec: DomainSpec, record: Record) -> None:
    metadata = at(domain, "metadata")
    osinfo = at(metadata, f"{{{_OSINFO}}}libosinfo")
    if spec.libosinfo_id is None:
        metadata.remove(osinfo)
    else:
        at(osinfo, f"{{{_OSINFO}}}os").set("id", spec.libosinfo_id)
    metadata.append(deepcopy(to_element(record)))


def _cpu(domain: etree._Element, model: str) -> None:
    """Fill in the CPU: a libvirt mode, or a named model."""
    cpu = at(domain, "cpu")
    modes = {"host-passthrough": "host-passthrough", "max": "maximum", "maximum": "maximum"}
    if model in modes:
        cpu.clear()
        cpu.set("mode", modes[model])
        cpu.set("check", "none")
    else:
        _set(cpu, "model", model)


def _without_seed(domain: etree._Element) -> None:
    """Remove the seed's disk, and what makes cloud-init look for it."""
    for element in select(domain, "devices/disk[2] | sysinfo | os/smbios"):
        remove(element)


def _boot_kernel(domain: etree._Element, files: DirectKernel) -> None:
    """Remove the firmware and its devices, and let QEMU load the kernel.

    Without firmware ACPI is missing: the kernel reads QEMU's device tree. It does not see the
    SMBIOS tables either, so cloud-init gets its data source on the command line.
    """
    system = at(domain, "os")
    del system.attrib["firmware"]
    firmware = "os/firmware | os/bootmenu | os/smbios | sysinfo | features/acpi"
    for element in select(domain, f"{firmware} | devices/disk/boot"):
        remove(element)
    words = f"{files.command_line} ds=nocloud"
    for tag, text in (("kernel", files.kernel), ("initrd", files.initrd), ("cmdline", words)):
        etree.SubElement(system, tag).text = text


def _interfaces(template: etree._Element, cards: Sequence[Card]) -> None:
    """Make an interface of the template for each card."""
    last = template
    for card in cards[1:]:
        another = deepcopy(template)
        connect(another, card)
        last.addnext(another)
        last = another
    connect(template, cards[0])
