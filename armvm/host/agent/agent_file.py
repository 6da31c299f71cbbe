"""Guest files that the agent holds open: read as they grow, or written in pieces.

The agent writes to the guest's log when a file is opened or closed, but not when it is read, so
an open file can be read often. Reading fetches 0.5 to 2 MB/s from an emulated guest, writing
takes 0.1 to 0.3 MB/s, since the agent reads its JSON byte by byte (measured, on a busy host).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import libvirt

from armvm.base.errors import ArmvmError, DomainError, NotFound
from armvm.host.agent.agent import PATIENCE, ask, asking
from armvm.host.connection import Domain, is_code

#: The most bytes in one message. libvirt accepts strings of 4 MiB, but writing one MiB keeps an
#: emulated agent busy for longer than libvirt waits.
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
        """Return the next bytes of the file; empty at its current end."""
        with _asking(self.domain, f"reading {self.path}"):
            answer = ask(
                self.domain, "guest-file-read", patience=PATIENCE, handle=self.handle, count=READ
            )
            return base64.b64decode(answer["buf-b64"])

    def write(self, data: bytes) -> None:
        """Write at most `CHUNK` bytes, and flush them to the file."""
        arguments = {"handle": self.handle, "buf-b64": base64.b64encode(data).decode()}
        with _asking(self.domain, f"writing {self.path}"):
            ask(self.domain, "guest-file-write", patience=PATIENCE, **arguments)
            ask(self.domain, "guest-file-flush", patience=PATIENCE, handle=self.handle)

    def close(self) -> None:
        """Close the file; does nothing if the guest has stopped."""
        with suppress(ArmvmError), asking(self.domain, f"closing {self.path}"):
            ask(self.domain, "guest-file-close", handle=self.handle)


def open_file(domain: Domain, path: str, mode: str) -> GuestFile:
    """Open a guest's file, with one of fopen's modes. Raises NotFound, DomainError.

    ``r+`` opens a FIFO without waiting for its other end.
    """
    with _asking(domain, f"opening {path}"):
        handle = int(ask(domain, "guest-file-open", patience=PATIENCE, path=path, mode=mode))
    return GuestFile(domain=domain, path=path, handle=handle)


def put(domain: Domain, path: str, data: bytes) -> None:
    """Replace a guest's file with at most `CHUNK` bytes. Raises as `open_file` does."""
    file = open_file(domain, path, "w")
    try:
        if data:
            file.write(data)
    finally:
        file.close()


@contextmanager
def _asking(domain: Domain, doing: str) -> Iterator[None]:
    """Translate libvirt's errors, and name the agent if it stopped answering."""
    name = domain.name()
    with asking(domain, doing):
        try:
            yield
        except libvirt.libvirtError as error:
            if "No such file or directory" in str(error):
                raise NotFound(f"{doing} in {name}: file not found") from error
            gone = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_OPERATION_INVALID)
            if is_code(error, *gone):
                raise DomainError(
                    f"the guest agent of {name} stopped answering",
                    detail=str(error),
                    hint="the guest or its agent was stopped or restarted; try again",
                ) from error
            raise
