"""Write, hash and unpack a downloaded file in one pass.

The caller's thread writes; a second thread hashes and unpacks. hashlib, zlib and lzma release
Python's global lock while they work.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from armvm.images.digest import CHUNK, Hashes
from armvm.images.fetch.decompress import Unpacker, write_all
from armvm.images.fetch.part import Part

#: Maximum pieces that wait for the second thread, which bounds the memory.
_WAITING = 16


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Digests of a download: ``sha256`` and ``promised`` of the bytes as received,
    ``unpacked`` the sha256 of the unpacked bytes, None if they were not packed.
    """

    sha256: str
    promised: str
    unpacked: str | None


class Intake:
    """Writes a file, in order, into a *part*; ``size`` is the number of bytes so far.

    *promised* selects the digest besides the sha256. A packed file is unpacked to *unpacked*;
    *room* is called on the way to check the free space. Used by one thread; close() ends it.
    """

    def __init__(
        self,
        part: Part,
        *,
        promised: str | None,
        unpacked: Path,
        name: str,
        room: Callable[[int], None],
    ) -> None:
        self._promised = promised
        self._new_unpacker = partial(Unpacker, unpacked, name=name, room=room)
        self._file: BinaryIO = part.open()
        self._queue: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._begin()

    def recall(self, size: int, told: Callable[[int], None]) -> None:
        """Read the part's first *size* bytes again; *told* is called with the bytes done."""
        self._file.seek(0)
        while self.size < size and (chunk := self._file.read(min(CHUNK, size - self.size))):
            self._pass_on(chunk)
            told(self.size)

    def put(self, chunk: bytes) -> None:
        """Process the next bytes. Raises errors from these or earlier ones."""
        write_all(self._file, chunk, self.size)
        self._pass_on(chunk)

    def restart(self) -> None:
        """Discard everything so far, including the part's contents."""
        self._stop()
        self._unpacker.close()
        self._file.truncate(0)
        self._begin()

    def finish(self) -> Taken:
        """Wait for the end, and return the digests. Raises as put() does."""
        self._stop()
        if self._failure is not None:
            raise self._failure
        unpacked = self._unpacker.finish()
        if unpacked is None:
            os.fsync(self._file.fileno())
        return Taken(sha256=self._hashes.sha256, promised=self._hashes.promised, unpacked=unpacked)

    def close(self) -> None:
        """End the thread and close the files."""
        self._stop()
        self._unpacker.close()
        self._file.close()

    def _begin(self) -> None:
        self.size = 0
        self._failure: Exception | None = None
        self._hashes = Hashes(self._promised)
        self._unpacker = self._new_unpacker()

    def _pass_on(self, chunk: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self.size += len(chunk)
        self._queue.put(chunk)

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._hashes.update(chunk)
                    self._unpacker.feed(chunk)
                except Exception as error:
                    self._failure = error

    def _stop(self) -> None:
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join()
        self._thread = None
        with suppress(queue.Empty):  # a second end, if Ctrl-C came between the lines above
            while True:
                self._queue.get_nowait()
