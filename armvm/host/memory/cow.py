"""A machine's memory, saved once and shared copy-on-write by its clones. Local connections only.

The golden's memory is a file that QEMU maps shared (``memory-backend-file,share=on``); a clone
maps the same file privately, so that it only costs the pages it changes. Device state goes through
a migration without shared memory (capability ``x-ignore-shared``): some MiB, through a pipe whose
other end is passed to QEMU.

libvirt lacks elements for these settings. They are in ``qemu:commandline``, only in the
clone's first run and not in its persistent definition. Sources: QEMU's qapi/migration.json and
docs/devel/migration.rst; libvirt's drvqemu.html, "Pass-through of arbitrary qemu commands".

Both get no balloon: it would punch holes into the file that all clones use.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from armvm.base.errors import DomainError, MissingCapability
from armvm.host.connection import Connection, Domain, Pool, errors
from armvm.host.memory import state_pipe
from armvm.host.storage import transfer, volumes
from armvm.host.xml import at, select, to_text

#: The volumes of a golden besides overlay and seed.
VOLUMES = ("memory", "state")
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
#: QEMU's id of the memory, which is the name of the block in the saved state.
_BACKEND = "armvm-memory"
#: QEMU's name for the descriptor that carries the device state.
_DESCRIPTOR = "armvm-state"
#: The most seconds for saving or loading the device state: it takes some hundredths.
_PATIENCE = 60.0
_POLL = 0.005


def why_not(*, local: bool) -> str | None:
    """Return why this route cannot be used on a host; None if it can."""
    if not local:
        return "its memory cannot be shared over a remote connection"
    if not hasattr(libvirt_qemu, "qemuMonitorCommandWithFiles"):
        return "this libvirt-python (< 8.2) cannot pass file descriptors to QEMU"
    return None


def prepare(domain: etree._Element, memory_path: str) -> None:
    """Make a domain element keep all of its memory in the file *memory_path*."""
    without_balloon(domain)
    golden_arguments(domain, memory_path)


def without_balloon(domain: etree._Element) -> None:
    """Disable a domain element's balloon; without the element, libvirt would add one."""
    at(domain, "devices/memballoon").attrib.clear()
    balloon = at(domain, "devices/memballoon")
    balloon[:] = []
    balloon.set("model", "none")


def golden_arguments(domain: etree._Element, memory_path: str) -> None:
    """Make a domain element keep its memory in the file *memory_path*."""
    _arguments(domain, memory_path, shared=True)


def clone_arguments(domain: etree._Element, memory_path: str) -> None:
    """Make a domain element start from a golden's memory, and wait for its device state."""
    _arguments(domain, memory_path, shared=False)
    command = at(domain, f"{{{_QEMU}}}commandline")
    for word in ("-incoming", "defer"):
        etree.SubElement(command, f"{{{_QEMU}}}arg").set("value", word)


def save(connection: Connection, pool: Pool, domain: Domain) -> str:
    """Write the device state of a suspended golden to its volume, and return the digest.

    Its memory is already in its file. Raises DomainError, StorageError.
    """
    state = _save(domain)
    volumes.write_volume(connection, pool, volumes.volume_names(domain.name())["state"], state)
    return _digest(state)


def load(connection: Connection, pool: Pool, golden: str, element: etree._Element) -> Domain:
    """Start a clone on a golden's memory and return it, still paused.

    Raises DomainError; the caller destroys a domain that was left running.
    """
    names = volumes.volume_names(golden)
    state = transfer.read(connection, volumes.need_volume(pool, names["state"]))
    clone_arguments(element, volumes.need_volume(pool, names["memory"]).path())
    return _load(connection, element, state)


def check(
    connection: Connection, pool: Pool, golden: str, element: etree._Element, digest: str
) -> str | None:
    """Return what is wrong with a golden's memory and state; None if they are intact."""
    names = volumes.volume_names(golden)
    state = transfer.read(connection, volumes.need_volume(pool, names["state"]))
    if _digest(state) != digest:
        return f"the saved state of {golden} was changed after it was written"
    if volumes.capacity(volumes.need_volume(pool, names["memory"])) != memory_bytes(element):
        return f"the saved memory of {golden} has the wrong size"
    return None


def _digest(state: bytes) -> str:
    return "sha256:" + hashlib.sha256(state).hexdigest()


def _save(domain: Domain) -> bytes:
    with errors(f"saving {domain.name()}"):
        _ignore_shared(domain, on=True)
        with state_pipe.receiving(lambda end: _hand_over(domain, end)) as received:
            _monitor(domain, "migrate", uri=f"fd:{_DESCRIPTOR}")
            _until_completed(domain)
            return received(_PATIENCE)


def _load(connection: Connection, domain: etree._Element, state: bytes) -> Domain:
    name = domain.findtext("name") or ""
    with errors(f"starting {name} from its golden"):
        clone = connection.createXML(to_text(domain), libvirt.VIR_DOMAIN_START_PAUSED)
        _ignore_shared(clone, on=True)
        with state_pipe.sending(lambda end: _hand_over(clone, end), state):
            _monitor(clone, "migrate-incoming", uri=f"fd:{_DESCRIPTOR}")
            _until_completed(clone)
        # While it is on, the clone cannot be saved.
        _ignore_shared(clone, on=False)
        return clone


def _arguments(domain: etree._Element, memory_path: str, *, shared: bool) -> None:
    if "," in memory_path:  # QEMU would read a second option, unless the comma is doubled
        memory_path = memory_path.replace(",", ",,")
    size = memory_bytes(domain)
    words = [
        "-object",
        f"memory-backend-file,id={_BACKEND},size={size},mem-path={memory_path},"
        f"share={'on' if shared else 'off'}",
        "-machine",
        f"memory-backend={_BACKEND}",
    ]
    for old in select(domain, "*[local-name()='commandline']"):
        domain.remove(old)
    command = etree.SubElement(domain, f"{{{_QEMU}}}commandline", nsmap={"qemu": _QEMU})
    for word in words:
        etree.SubElement(command, f"{{{_QEMU}}}arg").set("value", word)


def memory_bytes(domain: etree._Element) -> int:
    """Return a domain element's memory in bytes."""
    memory = at(domain, "memory")
    factor = {"KiB": 1 << 10, "MiB": 1 << 20}[memory.get("unit", "KiB")]
    return int(memory.text or 0) * factor


def _ignore_shared(domain: Domain, *, on: bool) -> None:
    capability = {"capability": "x-ignore-shared", "state": on}
    _monitor(domain, "migrate-set-capabilities", capabilities=[capability])


def _hand_over(domain: Domain, descriptor: int) -> None:
    request = json.dumps({"execute": "getfd", "arguments": {"fdname": _DESCRIPTOR}})
    answer, _ = libvirt_qemu.qemuMonitorCommandWithFiles(domain, request, [descriptor], 0)
    _result("getfd", answer)


def _until_completed(domain: Domain) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        status = _monitor(domain, "query-migrate")
        state = status.get("status")
        if state == "completed":
            return
        if state in ("failed", "cancelled") or time.monotonic() > end:
            raise DomainError(
                f"QEMU could not transfer the state of {domain.name()}",
                detail=str(status.get("error-desc", state)),
            )
        time.sleep(_POLL)


def _monitor(domain: Domain, command: str, **arguments: Any) -> Any:
    request = json.dumps({"execute": command, "arguments": arguments})
    return _result(command, libvirt_qemu.qemuMonitorCommand(domain, request, 0))


def _result(command: str, answer: str) -> Any:
    document = json.loads(answer)
    if "error" in document:
        text = document["error"].get("desc", "")
        raise MissingCapability(f"QEMU rejected {command}: {text}")
    return document.get("return")
