"""The conversation with `templates/accelerate.c`, which stands for the compilers in a guest.

The guest may send anything. Whatever is odd ends the conversation, and the guest compiles by
itself.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

from armvm.provision.accelerate.includes import Stat
from armvm.provision.accelerate.options import Declined

#: What a conversation begins with.
HELLO = b"ARMVMCC1"
#: Limits of what a guest sends: words of a command, bytes of all, bytes of a file.
MOST_WORDS, LONGEST_COMMAND, LARGEST_FILE = 10_000, 2 << 20, 32 << 20
#: Seconds that the guest may take for an answer.
PATIENCE = 300.0
_STAT = struct.Struct(">7Q")
_UNREADABLE = 2**64 - 1


class Conversation:
    """The guest's end of a conversation. All methods raise OSError and Declined."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(PATIENCE)

    def command(self) -> list[str]:
        """Return the working directory, ``tty`` or empty, SOURCE_DATE_EPOCH, and the words."""
        if self._read(len(HELLO)) != HELLO:
            raise Declined("not the program of this armvm")
        count = self._number()
        if not 4 <= count <= MOST_WORDS:
            raise Declined(f"{count} words")
        found = []
        left = LONGEST_COMMAND
        for _ in range(count):
            length = self._number()
            left -= length
            if left < 0:
                raise Declined("a long command")
            found.append(os.fsdecode(self._read(length)))
        return found

    def stat(self, paths: Sequence[str]) -> list[Stat]:
        """Ask about paths."""
        self._send(b"S", _joined(paths))
        return self._stats(len(paths))

    def _stats(self, count: int) -> list[Stat]:
        answer = self._read(_STAT.size * count)
        return [
            Stat(kind=kind, size=size, modified=(s, ns), changed=(cs, cns), inode=inode)
            for kind, size, s, ns, cs, cns, inode in _STAT.iter_unpack(answer)
        ]

    def contents(self, wanted: Sequence[tuple[str, Stat]]) -> Iterator[bytes]:
        """Ask for files, which have to be as long as they were; yield one after the other."""
        self._send(b"G", _joined([path for path, _ in wanted]))
        return self._contents(wanted)

    def file(self, path: str) -> tuple[Stat, bytes]:
        """Ask for a file."""
        self._send(b"F", _joined([path]))
        [stat] = self._stats(1)
        if stat.size > LARGEST_FILE:
            raise Declined(f"{path} is too large")
        [content] = self._contents([(path, stat)])
        return stat, content

    def _contents(self, wanted: Sequence[tuple[str, Stat]]) -> Iterator[bytes]:
        for path, stat in wanted:
            (length,) = struct.unpack(">Q", self._read(8))
            if length == _UNREADABLE or length != stat.size:
                raise Declined(f"{path} cannot be read, or changes")
            yield self._read(length)

    def write(self, path: str, content: bytes) -> None:
        """Write a file in the guest."""
        self._send(b"W", os.fsencode(path) + b"\0" + content)

    def end(self, messages: bytes) -> None:
        """The step is done."""
        if messages:
            self._send(b"E", messages)
        self._send(b"X", b"0")

    def decline(self, reason: str) -> None:
        """Let the guest compile."""
        self._send(b"L", reason.encode(errors="replace")[:500])

    def _send(self, kind: bytes, data: bytes) -> None:
        self._connection.sendall(kind + struct.pack(">I", len(data)) + data)

    def _number(self) -> int:
        (found,) = struct.unpack(">I", self._read(4))
        return int(found)

    def _read(self, count: int) -> bytes:
        parts = []
        while count > 0:
            part = self._connection.recv(min(count, 1 << 20))
            if not part:
                raise ConnectionResetError("the guest has gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _joined(paths: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(one) + b"\0" for one in paths)
