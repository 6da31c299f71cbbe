"""Read and write a volume's bytes without its holes, by libvirt's sparse streams (since 3.4).

Source: libvirt-storage.html, VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM; libvirt-stream.html,
virStreamSendHole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from armvm.host.connection import Connection, Volume, errors
from armvm.host.storage.transfer import opened

#: Zeros of this length, at a multiple of it, become a hole.
BLOCK = 64 << 10
_ZEROS = bytes(BLOCK)
#: The unit in which file systems allocate and QEMU's memory has pages.
_PAGE = 4 << 10
_EMPTY_PAGE = bytes(_PAGE)


def data_size(data: bytes) -> int:
    """Return the bytes of the pages that are not zeros; *data* starts at a page."""
    pages = (data[start : start + _PAGE] for start in range(0, len(data), _PAGE))
    return sum(len(page) for page in pages if page != _EMPTY_PAGE[: len(page)])


def download(
    connection: Connection,
    volume: Volume,
    on_data: Callable[[bytes], None],
    on_hole: Callable[[int], None],
) -> None:
    """Pass a volume's bytes to *on_data* and the lengths of its holes to *on_hole*, in order."""
    # libvirt prints an exception of a handler and goes on with another: this keeps the first.
    failed: list[BaseException] = []

    def take(call: Callable[[Any], None]) -> Callable[[Any, Any, Any], int]:
        def handler(_stream: Any, what: Any, _opaque: Any) -> int:
            try:
                call(what)
            except BaseException as error:
                failed.append(error)
                raise
            return 0

        return handler

    with errors(f"reading the volume {volume.name()}"), opened(connection) as stream:
        volume.download(stream, 0, 0, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
        try:
            stream.sparseRecvAll(take(on_data), take(on_hole), None)
        except BaseException as error:
            if failed and failed[0] is not error:
                raise failed[0] from error
            raise
        stream.finish()


@contextmanager
def upload(connection: Connection, volume: Volume, size: int) -> Iterator[Callable[[bytes], None]]:
    """Fill a raw volume of *size* bytes in order; yields a function that takes the next bytes.

    Blocks of zeros become holes. The volume must be new: a hole keeps what is there.
    """
    hole = 0

    def put(data: bytes) -> None:
        nonlocal hole
        with errors(f"writing the volume {volume.name()}"):
            for start in range(0, len(data), BLOCK):
                block = data[start : start + BLOCK]
                if block == _ZEROS[: len(block)]:
                    hole += len(block)
                    continue
                flush()
                view = memoryview(block)
                while view:
                    view = view[stream.send(bytes(view)) :]

    def flush() -> None:
        nonlocal hole
        if hole:
            stream.sendHole(hole, 0)
            hole = 0

    with errors(f"writing the volume {volume.name()}"), opened(connection) as stream:
        flags = libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM
        volume.upload(stream, 0, size, flags)
        yield put
        flush()
        stream.finish()
