"""Resource use of machines: memory of their QEMU processes, disk space of their files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from armvm.base.errors import DomainError

_PROC = Path("/proc")
_MIB = 1024 * 1024
#: Where the entries of smaps begin: a line with a range of addresses.
_MAPPING = re.compile(r"^(?=[0-9a-f]+-[0-9a-f]+ )", re.MULTILINE)
#: The size of a flash of the machine type virt in MiB (QEMU's hw/arm/virt.c).
_FLASH = 64


def pss_mib(name: str) -> float:
    """Return the proportional set size of a machine's QEMU in MiB, from its smaps_rollup.

    A page shared by n processes counts 1/n in each, so the sum over machines is their total use.
    Raises DomainError if the process is not found, PermissionError without root.
    """
    for line in (_PROC / str(_pid(name)) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise DomainError(f"{name}: line Pss not found in its QEMU's smaps_rollup")


def pss_parts(name: str) -> dict[str, float]:
    """Return the parts of a machine's `pss_mib`: guest memory, translated code, firmware, rest.

    The guest's memory is the largest mapping that can be written to and not executed; QEMU's
    translated code can be both. QEMU keeps each flash in memory of its size (64 MiB) and asks for
    huge pages there, as for the guest's memory (flag ``hg``); without huge pages in the host's
    kernel, the flash counts as rest.
    """
    return parts_of((_PROC / str(_pid(name)) / "smaps").read_text())


def parts_of(smaps: str) -> dict[str, float]:
    """Return the parts by the text of a process' smaps."""
    data: list[tuple[int, float, bool]] = []
    code = rest = 0.0
    for entry in _MAPPING.split(smaps)[1:]:
        head, *lines = entry.splitlines()
        fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
        size, pss = (int(fields[key].split()[0]) / 1024 for key in ("Size", "Pss"))
        rights = head.split()[1]
        if rights.startswith("rwx"):
            code += pss
        elif rights.startswith("rw"):
            data.append((int(size), pss, "hg" in fields.get("VmFlags", "").split()))
        else:
            rest += pss
    data.sort()
    memory = data.pop()[1] if data else 0.0
    flash = sum(pss for size, pss, huge in data if huge and size == _FLASH)
    rest += sum(pss for _, pss, _ in data) - flash
    return {"guest": memory, "code": code, "firmware": flash, "rest": rest}


def _pid(name: str) -> int:
    """Return the process with the arguments that libvirt gives a guest of that name."""
    for directory in _PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has exited
        if b"-name" in words[:-1]:
            value = words[words.index(b"-name") + 1].decode(errors="replace")
            if value.split(",")[0] == f"guest={name}":
                return int(directory.name)
    raise DomainError(f"{name}: QEMU process not found")


def cpu_seconds(name: str) -> float:
    """Return the CPU time of a machine's QEMU in seconds (proc(5), stat)."""
    fields = (_PROC / str(_pid(name)) / "stat").read_text().rpartition(")")[2].split()
    return float(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def available_mib() -> float:
    """Return the memory available to programs in MiB (MemAvailable)."""
    for line in (_PROC / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise DomainError("line MemAvailable not found in /proc/meminfo")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Disk space of a machine's files in MiB: allocated blocks, not lengths."""

    overlay: float
    seed: float
    nvram: float


def disk_of(xml: str) -> Disk:
    """Return the current disk space of the files in a domain's XML."""
    root = etree.fromstring(xml)
    sizes = {"vda": 0.0, "vdb": 0.0}
    for disk in root.iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None and target.get("dev") in sizes:
            sizes[str(target.get("dev"))] = _allocated(str(source.get("file")))
    nvram = root.findtext("os/nvram")
    return Disk(overlay=sizes["vda"], seed=sizes["vdb"], nvram=_allocated(nvram) if nvram else 0.0)


def _allocated(path: str) -> float:
    """Return a file's allocated MiB; st_blocks always counts blocks of 512 bytes."""
    return Path(path).stat().st_blocks * 512 / _MIB
