"""A running command in a guest: the reports of its script, and its streams in pieces.

The other end is `armvm.guest.agents.command_script`, which documents the files.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable
from dataclasses import dataclass, field

from armvm.base.errors import DomainError
from armvm.host.agent.agent_file import CHUNK, GuestFile, open_file, put
from armvm.host.connection import Domain

#: Maximum number of pieces of input that wait in the guest.
AHEAD = 2
#: Longest report of the script, in bytes.
_LONGEST_LINE = 4096

#: Receives some bytes of a stream.
Sink = Callable[[bytes], object]


@dataclass(kw_only=True)
class Stream:
    """One of the command's outputs, and how much of it was read."""

    name: str
    sink: Sink
    file: GuestFile
    piece: int = 0
    ready: int = 0  # the last piece that the script reported
    ended: bool = False
    lost: bool = False


@dataclass(kw_only=True)
class Run:
    """A running command in a guest."""

    domain: Domain
    directory: str
    status: GuestFile
    control: GuestFile
    streams: tuple[Stream, ...]
    pid: int | None = None
    code: int | None = None
    sent: int = 0
    taken: int = 0
    closed: bool = False
    rest: bytes = field(default=b"")

    def hear(self) -> bool:
        """Read the script's reports; return whether there were any."""
        data = self.status.read()
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > _LONGEST_LINE:
            raise self._invalid()
        for line in lines:
            word, _, value = line.decode(errors="replace").partition(" ")
            for stream in self.streams:
                if stream.name == value:
                    stream.ready += word == "next"
                    stream.ended |= word in ("end", "lost")
                    stream.lost |= word == "lost"
            if word == "took":
                self.taken += 1
            elif word in ("start", "exit"):
                if not re.fullmatch("[0-9]{1,9}", value):
                    raise self._invalid()
                if word == "start":
                    self.pid = int(value)
                else:
                    self.code = int(value) & 0xFF
        return bool(data)

    def _invalid(self) -> DomainError:
        return DomainError(f"{self.domain.name()} sent an invalid answer")

    def drain(self, stream: Stream) -> bool:
        """Pass new data of a stream to its sink; return whether there was any."""
        behind = stream.ready > stream.piece
        data = stream.file.read()
        if data:
            stream.sink(data)
        elif behind:  # the script had completed this piece before it was read to its end
            stream.file.close()
            put(self.domain, self._path(stream), b"")  # free its space in the guest
            stream.piece += 1
            stream.file = open_file(self.domain, self._path(stream), "r")
        return bool(data) or behind

    def feed(self, source: int) -> bool:
        """Send available input if the guest has room; return whether anything was sent."""
        if self.closed or self.sent - self.taken >= AHEAD:
            return False
        if not select.select([source], [], [], 0)[0]:
            return False
        data = os.read(source, CHUNK)
        if data:
            put(self.domain, f"{self.directory}/in.{self.sent}", data)
            self.control.write(f"take {self.sent}\n".encode())
            self.sent += 1
        else:
            self.control.write(b"close\n")
            self.closed = True
        return True

    def _path(self, stream: Stream) -> str:
        return f"{self.directory}/{stream.name}.{stream.piece}"
