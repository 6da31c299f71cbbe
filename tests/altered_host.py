"""A host that is short of memory, or whose QEMU was upgraded: seen from one mount namespace alone.

What armvm, libvirtd and QEMU read there is bound over by another file, as lxcfs does for the memory
of a container. Nothing else of this machine notices.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MEMINFO = Path("/proc/meminfo")


@contextmanager
def short_of_memory(pid: int, work: Path, *, shared_mib: int = 0) -> Iterator[None]:
    """In the mount namespace of process *pid*, let the host have 650 MiB of free memory.

    The kernel counts *shared_mib* of shared memory among the caches, although it cannot drop them.
    """
    mib = {
        "MemFree": 600,
        "MemAvailable": 650,
        "Buffers": 0,
        "Cached": 50 + shared_mib,
        "Shmem": shared_mib,
    }
    text = _MEMINFO.read_text()
    for key, value in mib.items():
        text = re.sub(rf"^{key}:.*$", f"{key}: {value << 10:>15} kB", text, flags=re.MULTILINE)
    file = work / "meminfo"
    file.write_text(text)
    with _bound(pid, file, _MEMINFO):
        yield


@contextmanager
def upgraded_qemu(pid: int, work: Path, emulator: str) -> Iterator[str]:
    """In the mount namespace of process *pid*, let QEMU be a rebuild of its package.

    It differs in its version's last character. Yields the package's new version.
    """
    path = Path(emulator).resolve()
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    package = re.search(r"version \S+ \((.+)\)", told)
    if package is None:
        pytest.skip("this QEMU does not tell its package's version")
    before = package[1].encode()
    after = before[:-1] + (b"8" if before.endswith(b"9") else b"9")
    file = work / "qemu"
    file.write_bytes(path.read_bytes().replace(before, after))
    shutil.copymode(path, file)
    with _bound(pid, file, path):
        yield after.decode()


@contextmanager
def _bound(pid: int, file: Path, target: Path) -> Iterator[None]:
    inside = ("nsenter", "-t", str(pid), "-m", "-p", "--")
    subprocess.run([*inside, "mount", "--bind", file, target], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", "--lazy", target], check=True)
