"""The parts of a machine that its guest sees, as lines of text that two hosts can compare.

The saved state of a golden can only be loaded into the devices that it was saved from. QEMU itself
checks most of that, but its errors name internal sections.
"""

from __future__ import annotations

from lxml import etree

from armvm.host.memory.cow import memory_bytes
from armvm.host.xml import at, select

#: Elements of ``<devices>`` that only the host sees.
_HOST_SIDE = ("emulator", "graphics", "audio")
#: The kind of a network device's other end, which only the host sees.
_OTHER_END = ("interface",)


def hardware(domain: etree._Element) -> list[str]:
    """Return a domain's machine type, CPUs, memory and devices, one a line, in their order."""
    kind = at(domain, "os/type")
    cpu = at(domain, "cpu")
    gic = domain.find("features/gic")
    lines = [
        f"machine {kind.get('arch', '')} {kind.get('machine', '')}",
        f"memory {memory_bytes(domain)}",
        f"vcpus {domain.findtext('vcpu', '').strip()}",
        f"cpu {cpu.get('mode', '')} {cpu.findtext('model', '').strip()}".strip(),
        f"gic {'' if gic is None else gic.get('version', '')}",
        f"acpi {'no' if domain.find('features/acpi') is None else 'yes'}",
    ]
    devices = [
        one
        for one in at(domain, "devices")
        if isinstance(one.tag, str) and one.tag not in _HOST_SIDE
    ]
    return lines + [_device(one) for one in devices]


def first_difference(here: list[str], there: list[str]) -> str | None:
    """Return the first difference between two machines' hardware, in words; None if there is none.

    The order counts, because it decides the order of the devices in the saved state.
    """
    for number in range(max(len(here), len(there))):
        pair = [lines[number] if number < len(lines) else "nothing" for lines in (here, there)]
        if pair[0] != pair[1]:
            return f"{pair[0]!r} here, {pair[1]!r} where it was made"
    return None


def _device(device: etree._Element) -> str:
    words = [str(device.tag)]
    own = ("type", "device", "model", "index", "bus")
    skipped = ("type",) if device.tag in _OTHER_END else ()
    words += [f"{key}={device.get(key)}" for key in own if device.get(key) and key not in skipped]
    if device.get("ports"):
        words.append(f"ports={device.get('ports')}")
    for path, keys in (
        ("target", ("type", "dev", "bus", "name", "port", "chassis")),
        ("target/model", ("name",)),
        ("model", ("type", "name", "heads")),
        ("rom", ("enabled",)),
    ):
        for element in select(device, path):
            if path == "target" and device.tag in _OTHER_END:
                continue
            found = [f"{key}={element.get(key)}" for key in keys if element.get(key)]
            words += [f"{path}({' '.join(found)})"] if found else []
    for address in device.findall("address"):
        words.append(
            "at "
            + " ".join(f"{key}={address.get(key)}" for key in sorted(map(str, address.keys())))
        )
    return " ".join(words)
