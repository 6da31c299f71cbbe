"""The UEFI firmware files for ARM64 machines that a host has.

libvirt lists their paths; the descriptions that libvirt itself reads tell the rest, but only on
this host. Source: QEMU's docs/interop/firmware.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from armvm.host.connection import Connection, errors
from armvm.host.facts import HostFacts
from armvm.host.xml import parse, select

#: Directories of descriptions, in libvirt's order of precedence.
DIRECTORIES = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """A firmware: its file and format, and the file that new UEFI variables are copied from."""

    loader: str
    format: str = "raw"
    template: str | None = None
    template_format: str = "raw"


def firmwares(connection: Connection, facts: HostFacts) -> list[Firmware]:
    """Return the firmware files of a host, by file name."""
    found: dict[str, Firmware] = {}
    if facts.local:
        for one in _described(DIRECTORIES):
            found.setdefault(one.loader, one)
    for path in _listed(connection, facts):
        qcow2 = PurePosixPath(path).suffix == ".qcow2"
        found.setdefault(path, Firmware(loader=path, format="qcow2" if qcow2 else "raw"))
    return sorted(found.values(), key=lambda one: one.loader)


def _listed(connection: Connection, facts: HostFacts) -> list[str]:
    with errors("reading the host's firmware"):
        told = connection.getDomainCapabilities(None, "aarch64", "virt", facts.accelerator.value)
    return [value.text or "" for value in select(parse(told), "os/loader/value")]


def _described(directories: tuple[Path, ...]) -> Iterator[Firmware]:
    for directory in directories:
        for path in sorted(directory.glob("*.json")):
            try:
                document = json.loads(path.read_bytes())
                if any(one["architecture"] == "aarch64" for one in document["targets"]):
                    yield _firmware(document["mapping"])
            except (OSError, ValueError, LookupError, TypeError, RecursionError):
                continue  # libvirt ignores it too


def _firmware(mapping: dict[str, Any]) -> Firmware:
    code, variables = mapping["executable"], mapping.get("nvram-template")
    return Firmware(
        loader=str(code["filename"]),
        format=str(code["format"]),
        template=None if variables is None else str(variables["filename"]),
        template_format="raw" if variables is None else str(variables["format"]),
    )
