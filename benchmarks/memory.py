"""Resource use of machines: memory of their QEMU processes, disk space of their files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from armvm.base.errors import DomainError

_PROC = Path("/proc")
_MIB = 1024 * 1024


def pss_mib(name: str) -> float:
    """Return the proportional set size of a machine's QEMU in MiB, from its smaps_rollup.

    A page shared by n processes counts 1/n in each, so the sum over machines is their total use.
    Raises DomainError if the process is not found, PermissionError without root.
    """
    for line in (_PROC / str(_pid(name)) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise DomainError(f"{name}: line Pss not found in its QEMU's smaps_rollup")


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
