"""Facts about a run's host: machine, versions, guest, date."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from pathlib import Path

from armvm import __version__
from armvm.base.errors import ArmvmError
from armvm.base.process import run


def gather(reference: str, digest: str, rounds: int) -> dict[str, str]:
    """Return the facts of a run as texts, in display order."""
    native = platform.machine() == "aarch64"
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.machine()}, {_cpu()}, {os.cpu_count()} CPUs, {_memory()}",
        "accelerator": "KVM" if native and Path("/dev/kvm").exists() else "TCG (emulated)",
        "system": _system(),
        "kernel": platform.release(),
        "QEMU": _version("qemu-system-aarch64", "--version"),
        "libvirt": _version("virsh", "--version"),
        "virt-install": _version("virt-install", "--version"),
        "Docker": _version("dockerd", "--version"),
        "rsync": _version("rsync", "--version"),
        "Python": platform.python_version(),
        "armvm": f"{__version__} {_commit()}".strip(),
        "guest": f"{reference} {digest.removeprefix('sha256:')[:12]}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "rounds": str(rounds),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return found[1].strip()
    return platform.processor() or "unknown CPU"


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 1024**3:.0f} GiB"


def _system() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return "Linux"


def _version(*words: str) -> str:
    """Return the first dotted version number in a program's output."""
    with contextlib.suppress(ArmvmError):
        found = re.search(r"\d+(\.\d+)+", run(list(words), timeout=60).text)
        if found:
            return found[0]
    return "not installed"


def _commit() -> str:
    """Return the checkout's commit, with + if files were changed; empty without git."""
    root = Path(__file__).resolve().parent.parent
    with contextlib.suppress(ArmvmError):
        commit = run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"]).text.strip()
        dirty = run(["git", "-C", str(root), "status", "--porcelain", "-uno", "--", "armvm"]).text
        return commit + ("+" if dirty.strip() else "")
    return ""
