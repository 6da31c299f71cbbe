"""Asking the guest agent. It needs no network, only the virtio channel.

Source: QEMU Guest Agent Protocol Reference (qga/qapi-schema.json).
"""

from __future__ import annotations

import base64
import json
from typing import Any

import libvirt
import libvirt_qemu

from armvm.host.connection import Domain

#: Seconds for one answer.
TIMEOUT = 5
#: The most that is read of a file, in bytes.
MAX_READ = 1 << 20


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


def _ask(domain: Domain, command: str, **arguments: Any) -> Any:
    request = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, request, TIMEOUT, 0))["return"]
