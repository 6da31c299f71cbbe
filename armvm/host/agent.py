"""Asking the guest agent. It needs no network, only the virtio channel.

Source: QEMU Guest Agent Protocol Reference (qga/qapi-schema.json).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

import libvirt
import libvirt_qemu

from armvm.errors import CommandFailed, NotReady
from armvm.host.connection import Domain, errors

#: Seconds for one answer.
TIMEOUT = 5
#: The most that is read of a file, in bytes.
MAX_READ = 1 << 20
#: Seconds between two looks at whether a guest process has ended.
POLL = 0.1


def connected(domain: Domain) -> bool:
    """Tell whether an agent in the guest has opened the channel."""
    try:
        text = domain.XMLDesc(0)
    except libvirt.libvirtError:
        return False
    return "org.qemu.guest_agent.0' state='connected'" in text.replace('"', "'")


def read_file(domain: Domain, path: str) -> str | None:
    """Return a guest file's text; None when there is no such file, or nobody answers."""
    try:
        handle = _ask(domain, "guest-file-open", path=path, mode="r")
        try:
            data = _ask(domain, "guest-file-read", handle=handle, count=MAX_READ)
        finally:
            _ask(domain, "guest-file-close", handle=handle)
        return base64.b64decode(data["buf-b64"]).decode(errors="replace")
    except (libvirt.libvirtError, KeyError, TypeError, ValueError):
        return None


def write_file(domain: Domain, path: str, data: bytes) -> None:
    """Write a guest's file, as root. Raises DomainError."""
    with errors(f"writing to {path} in {domain.name()}"):
        handle = _ask(domain, "guest-file-open", path=path, mode="w")
        try:
            encoded = base64.b64encode(data).decode()
            _ask(domain, "guest-file-write", **{"handle": handle, "buf-b64": encoded})
        finally:
            _ask(domain, "guest-file-close", handle=handle)


def output(domain: Domain, argv: Sequence[str], *, timeout: float = 60.0) -> str:
    """Run a program in the guest to its end, and return its output; raises as `outcome` does."""
    return outcome(domain, start_process(domain, argv), timeout=timeout)


def succeeds(domain: Domain, argv: Sequence[str], *, timeout: float = 60.0) -> bool:
    """Run a program in the guest to its end, and tell whether it ended with 0."""
    try:
        output(domain, argv, timeout=timeout)
    except CommandFailed:
        return False
    return True


def start_process(domain: Domain, argv: Sequence[str], *, stdin: bytes = b"") -> int:
    """Start a process in the guest, as root, and return its process id. Raises DomainError."""
    with errors(f"starting {argv[0]} in {domain.name()}"):
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:])}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        answer = _ask(domain, "guest-exec", **arguments, **{"capture-output": True})
        return int(answer["pid"])


def outcome(domain: Domain, pid: int, *, timeout: float) -> str:
    """Wait until a process that `start_process` started ends, and return its output.

    *timeout* is in seconds. Raises NotReady when they are over, CommandFailed when it failed.
    """
    end = time.monotonic() + timeout
    with errors(f"waiting for a process in {domain.name()}"):
        while True:
            status = _ask(domain, "guest-exec-status", pid=pid)
            if status["exited"]:
                break
            if time.monotonic() > end:
                raise NotReady(f"a process in {domain.name()} did not end within {timeout:g} s")
            time.sleep(POLL)
    text, trouble = (
        base64.b64decode(status.get(key, "")).decode(errors="replace")
        for key in ("out-data", "err-data")
    )
    if status.get("exitcode") != 0:
        raise CommandFailed(
            f"a process in {domain.name()} failed", detail=trouble.strip()[-2000:] or None
        )
    return text


def _ask(domain: Domain, command: str, **arguments: Any) -> Any:
    request = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, request, TIMEOUT, 0))["return"]
