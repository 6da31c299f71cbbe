"""Query the guest agent, over its virtio channel: no network needed.

Source: QEMU Guest Agent Protocol Reference (qga/qapi-schema.json).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import libvirt
import libvirt_qemu

from armvm.base.errors import CommandFailed, DomainError, MissingCapability, NotReady
from armvm.base.poll import until
from armvm.host.connection import Domain, errors, is_code, not_running

#: Seconds for one answer.
TIMEOUT = 5
#: The same for commands that must not fail while an emulated guest is busy.
PATIENCE = 30
#: The most that is read from a file, in bytes.
MAX_READ = 1 << 20
#: Seconds between two checks whether a guest process has ended.
POLL = 0.1
#: What an answer raises that is not in the agent's protocol.
_INVALID = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def connected(domain: Domain) -> bool:
    """Return whether an agent in the guest has opened the channel."""
    try:
        text = domain.XMLDesc(0)
    except libvirt.libvirtError:
        return False
    return "org.qemu.guest_agent.0' state='connected'" in text.replace('"', "'")


def ensure_answers(domain: Domain) -> None:
    """Raise DomainError unless the machine runs and its agent answers."""
    name = domain.name()
    with asking(domain, "asking the guest agent"):
        if not domain.isActive():
            raise not_running(name)
        if not connected(domain):
            raise _silent(name)
        try:
            ask(domain, "guest-ping", patience=PATIENCE)
        except libvirt.libvirtError as error:
            if not is_code(
                error, libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED
            ):
                raise
            raise _silent(name) from error


def _silent(name: str) -> DomainError:
    return DomainError(
        f"the guest agent of {name} does not answer",
        hint=f"armvm ssh {name} -- CMD   does not need it; if the machine is booting, wait for "
        f"it: armvm wait {name}; the guest's package is qemu-guest-agent",
    )


def read_file(domain: Domain, path: str) -> str | None:
    """Return a guest file's text; None if the file does not exist, or no agent answers."""
    try:
        handle = ask(domain, "guest-file-open", path=path, mode="r")
        try:
            data = ask(domain, "guest-file-read", handle=handle, count=MAX_READ)
        finally:
            ask(domain, "guest-file-close", handle=handle)
        return base64.b64decode(data["buf-b64"]).decode(errors="replace")
    except (libvirt.libvirtError, *_INVALID):
        return None


def write_file(domain: Domain, path: str, data: bytes) -> None:
    """Write a guest's file, as root. Raises DomainError."""
    with asking(domain, f"writing to {path}"):
        handle = ask(domain, "guest-file-open", patience=PATIENCE, path=path, mode="w")
        try:
            encoded = base64.b64encode(data).decode()
            # The write may take long: one file makes the kernel drop its caches.
            arguments = {"handle": handle, "buf-b64": encoded}
            ask(domain, "guest-file-write", patience=PATIENCE, **arguments)
        finally:
            ask(domain, "guest-file-close", patience=PATIENCE, handle=handle)


def output(domain: Domain, argv: Sequence[str], *, timeout: float = 60.0) -> str:
    """Run a program in the guest to its end, and return its output; raises as `outcome` does."""
    return outcome(domain, start_process(domain, argv), timeout=timeout)


def succeeds(domain: Domain, argv: Sequence[str], *, timeout: float = 60.0) -> bool:
    """Run a program in the guest to its end, and return whether it exited with 0."""
    try:
        output(domain, argv, timeout=timeout)
    except CommandFailed:
        return False
    return True


def start_process(domain: Domain, argv: Sequence[str], *, stdin: bytes = b"") -> int:
    """Start a process in the guest, as root, and return its process id.

    Raises DomainError; MissingCapability if the guest forbids it, as Fedora and its kin do.
    """
    with asking(domain, f"starting {argv[0]}"):
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:])}
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        try:
            answer = ask(
                domain, "guest-exec", patience=PATIENCE, **arguments, **{"capture-output": True}
            )
        except libvirt.libvirtError as error:
            # "Command guest-exec has been disabled: …", "The command guest-exec has not been found"
            if "guest-exec has" not in str(error):
                raise
            name = domain.name()
            raise MissingCapability(
                f"the guest agent of {name} does not run commands",
                detail=str(error),
                hint="its settings forbid guest-exec (/etc/sysconfig/qemu-ga or "
                f"/etc/qemu/qemu-ga.conf in the guest); armvm ssh {name} -- CMD   does not need it",
            ) from error
        return int(answer["pid"])


def outcome(domain: Domain, pid: int, *, timeout: float) -> str:
    """Wait until a process that `start_process` started ends, and return its output.

    *timeout* is in seconds. Raises NotReady on timeout, CommandFailed if the process failed.
    """

    def final() -> tuple[int | None, str, str] | None:
        status = _process_status(domain, pid)
        if not status["exited"]:
            return None
        text, trouble = (
            base64.b64decode(status.get(key, "")).decode(errors="replace")
            for key in ("out-data", "err-data")
        )
        return status.get("exitcode"), text, trouble

    with asking(domain, "waiting for a process"):
        code, text, trouble = until(
            final,
            timeout=timeout,
            interval=POLL,
            late=lambda: NotReady(
                f"timed out after {timeout:g} s: a process in {domain.name()} did not end"
            ),
        )
    if code != 0:
        raise CommandFailed(
            f"a process in {domain.name()} failed", detail=trouble.strip()[-2000:] or None
        )
    return text


def ended(domain: Domain, pid: int) -> int | None:
    """Return the exit code of a process that `start_process` started; None while it runs.

    128 + n stands for signal n. The agent forgets a process after it has reported its end.
    """
    with asking(domain, "checking a process"):
        status = _process_status(domain, pid)
        if not status["exited"]:
            return None
        return int(status.get("exitcode", 128 + status.get("signal", 0)))


def _process_status(domain: Domain, pid: int) -> dict[str, Any]:
    status: dict[str, Any] = ask(domain, "guest-exec-status", patience=PATIENCE, pid=pid)
    return status


def ask(domain: Domain, command: str, *, patience: int = TIMEOUT, **arguments: Any) -> Any:
    """Return the agent's answer to a command of its protocol, within *patience* seconds.

    Raises libvirtError, which the caller translates.
    """
    request = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, request, patience, 0))["return"]


@contextmanager
def asking(domain: Domain, doing: str) -> Iterator[None]:
    """Translate libvirt's errors, and answers that are not in the agent's protocol.

    The guest may send anything.
    """
    doing = f"{doing} in {domain.name()}"
    with errors(doing):
        try:
            yield
        except _INVALID as error:
            raise DomainError(
                f"{doing}: the guest agent sent an invalid answer",
                detail=f"{type(error).__name__}: {error}",
                hint="restart qemu-guest-agent in the guest",
            ) from error
