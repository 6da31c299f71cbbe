"""Read and write a volume's bytes by libvirt's streams, on local and remote hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt

from armvm.host.connection import Connection, Volume, errors


@contextmanager
def opened(connection: Connection) -> Iterator[Any]:
    """Yield a stream for a volume's bytes, which the block finishes; abort it on failure."""
    stream = connection.newStream(0)
    try:
        yield stream
    except BaseException:
        # recvAll and sendAll abort by themselves if their function raises; a second abort fails.
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        raise


def read(connection: Connection, volume: Volume, *, offset: int = 0, length: int = 0) -> bytes:
    """Return *length* bytes of a raw volume from *offset* on; all of them for 0."""
    parts: list[bytes] = []
    download(connection, volume, parts.append, offset=offset, length=length)
    return b"".join(parts)


def download_file(connection: Connection, volume: Volume, path: Path) -> None:
    """Write all of a volume's bytes to an existing local file."""
    with path.open("wb") as file:
        download(connection, volume, file.write)


def download(
    connection: Connection,
    volume: Volume,
    write: Callable[[bytes], object],
    *,
    offset: int = 0,
    length: int = 0,
) -> None:
    """Pass a volume's bytes to *write*: *length* of them from *offset* on; 0 means all."""
    with errors(f"reading the volume {volume.name()}"), opened(connection) as stream:
        volume.download(stream, offset, length, 0)
        stream.recvAll(lambda _stream, data, _opaque: write(data), None)
        stream.finish()


def overwrite(connection: Connection, volume: Volume, data: bytes, *, offset: int = 0) -> None:
    """Replace a raw volume's bytes from *offset* on; the rest stays."""
    rest = memoryview(data)

    def take(count: int) -> bytes:
        nonlocal rest
        chunk, rest = rest[:count], rest[count:]
        return bytes(chunk)

    upload(connection, volume, take, offset=offset, length=len(data))


def upload(
    connection: Connection,
    volume: Volume,
    read: Callable[[int], bytes],
    *,
    offset: int = 0,
    length: int = 0,
) -> None:
    """Write the results of *read* to a volume from *offset* on, until *read* returns nothing.

    *length* limits the bytes; 0 means no limit. A raw volume grows as needed.
    """
    with errors(f"writing the volume {volume.name()}"), opened(connection) as stream:
        volume.upload(stream, offset, length, 0)
        stream.sendAll(lambda _stream, count, _opaque: read(count), None)
        stream.finish()


def upload_file(
    connection: Connection, volume: Volume, path: Path, on_bytes: Callable[[int], None]
) -> None:
    """Fill a volume with a local file's bytes; calls *on_bytes* with the bytes done."""
    done = 0
    with path.open("rb") as file:

        def read(count: int) -> bytes:
            nonlocal done
            chunk = file.read(count)
            done += len(chunk)
            on_bytes(done)
            return chunk

        upload(connection, volume, read)
