"""Files of a guest, held open through its agent: read as they grow, written as they are.

The agent writes to the guest's log when a file is opened or closed, not when it is read: a file
held open can be asked often. Reading fetches 0.5 to 2 MB/s from an emulated guest, writing
takes 0.1 to 0.3 MB/s, since the agent reads its JSON byte by byte (measured, on a busy host).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import libvirt

from armvm.base.errors import DomainError, NotFound
from armvm.host.agent.agent import PATIENCE, ask
from armvm.host.connection import Domain, errors, is_code

#: The most that one message carries, in bytes. libvirt takes strings of 4 MiB, but a MiB to be
#: written keeps an emulated agent busy for longer than libvirt waits.
CHUNK = 64 << 10
#: The most that is read at once, in bytes.
READ = 512 << 10


@dataclass(frozen=True, kw_only=True)
class GuestFile:
    """A file that the guest's agent holds open. Its methods raise DomainError."""

    domain: Domain
    path: str
    handle: int

    def read(self) -> bytes:
        """Return what comes next in the file: nothing at its end, for now."""
        with _asking(self.domain, f"reading {self.path}"):
            answer = ask(
                self.domain, "guest-file-read", patience=PATIENCE, handle=self.handle, count=READ
            )
            return base64.b64decode(answer["buf-b64"])

    def write(self, data: bytes) -> None:
        """Write at most `CHUNK` bytes, and have them in the file."""
        arguments = {"handle": self.handle, "buf-b64": base64.b64encode(data).decode()}
        with _asking(self.domain, f"writing {self.path}"):
            ask(self.domain, "guest-file-write", patience=PATIENCE, **arguments)
            ask(self.domain, "guest-file-flush", patience=PATIENCE, handle=self.handle)

    def close(self) -> None:
        """Close it; a guest that has gone has closed it already."""
        with suppress(libvirt.libvirtError):
            ask(self.domain, "guest-file-close", handle=self.handle)


def open_file(domain: Domain, path: str, mode: str) -> GuestFile:
    """Open a guest's file, with one of fopen's modes. Raises NotFound, DomainError.

    ``r+`` opens a FIFO without waiting for its other end.
    """
    with _asking(domain, f"opening {path}"):
        handle = ask(domain, "guest-file-open", patience=PATIENCE, path=path, mode=mode)
    return GuestFile(domain=domain, path=path, handle=int(handle))


def put(domain: Domain, path: str, data: bytes) -> None:
    """Make a guest's file hold at most `CHUNK` bytes, or nothing. Raises as `open_file` does."""
    file = open_file(domain, path, "w")
    try:
        if data:
            file.write(data)
    finally:
        file.close()


@contextmanager
def _asking(domain: Domain, doing: str) -> Iterator[None]:
    """Translate what libvirt raises; an agent that has gone is said to have."""
    name = domain.name()
    with errors(f"{doing} in {name}"):
        try:
            yield
        except libvirt.libvirtError as error:
            if "No such file or directory" in str(error):
                raise NotFound(f"{doing} in {name}: no such file") from error
            gone = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_OPERATION_INVALID)
            if is_code(error, *gone):
                raise DomainError(
                    f"the guest agent of {name} went away meanwhile",
                    detail=str(error),
                    hint="the guest was stopped or restarted, or its agent was",
                ) from error
            raise
