"""A clone's command whose input or output may be long: by its channel, or on a disk.

A channel carries some MB/s, because QEMU passes on 4 KiB at a time. A disk that is plugged in for
the command takes the guest some seconds, and then carries ten times as much. So what is longer than
LONG goes on a disk: see docs/benchmarks.md, "Where the time goes".
"""

from __future__ import annotations

import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Generic, TypeVar

from armvm.base.errors import (
    ArmvmError,
    CommandFailed,
    DomainError,
    MissingCapability,
    StorageError,
)
from armvm.base.progress import Progress, size_text
from armvm.base.signals import shielded
from armvm.guest.agents.command_server import START
from armvm.host.connection import Pool, Volume
from armvm.host.domain.handle import Handle
from armvm.host.domain.transfer_disk import plug, unplug
from armvm.host.storage import pools, transfer, volumes
from armvm.provision.access.channel_command import (
    Command,
    Feed,
    NoDisk,
    Sink,
    execute,
    write_all,
)

T = TypeVar("T")
Drain = Callable[[IO[bytes]], T]
#: Bytes from which a disk is quicker. On a two-core host without KVM, a channel carried 2–5 MB/s;
#: the first disk in a new clone took 3 to 6 s to appear, later ones 1 to 2 s.
LONG = 32 << 20
#: Largest size of a disk for output, in bytes: one hole, of which only what is written takes space.
_MOST = 1 << 40
#: Bytes by which the output may be longer than was announced, besides an eighth of that: files grow
#: before they are read.
_MARGIN = 64 << 20
#: Bytes of error output that a message quotes.
_TAIL = 2000
#: Bytes that are read or written at once, and how many of such parts of zeros follow the input: a
#: block of any size that the command reads is whole.
_PART, _SPARE = 1 << 18, 4
#: Bytes of a disk's serial number; virtio has room for 20 characters.
_SERIAL = 8
_MIB = 1 << 20


def stream(
    machine: Handle,
    command: Command,
    feed: Feed,
    drain: Drain[T],
    progress: Progress,
    *,
    what: str = "the command",
    only_reads: bool = False,
    expected: Callable[[bytes], int] | None = None,
) -> T:
    """Run a command: *feed* writes its input, *drain* reads its output. Return *drain*'s result.

    The input must say itself where it ends, as an archive does: on a disk, zeros follow. A command
    that *only_reads* may run twice: if its output gets long, it runs again and writes to a disk.
    *expected* tells, from the output so far (nothing before the command starts), how many bytes
    will come. *what* names the command in the message about its failure.

    Raises CommandFailed if the command fails, and the errors of `execute` and of both functions.
    """
    run = _Run(machine, command, drain, progress, what)
    with closing(_Source(feed)) as source:
        head = source.read(LONG + 1)
        if len(head) > LONG:
            return run.with_input(head, source)
    if not only_reads:
        return run.plainly(lambda out: out.write(head))
    size = expected or len
    announced = size(b"")
    if announced <= LONG:
        try:
            return run.shortly(lambda out: out.write(head), size)
        except _Long as found:
            announced = found.announced
    return run.with_output(lambda out: out.write(head), announced)


class _Long(Exception):
    """A command's output is longer than LONG: *announced* bytes, or 0 if the length is unknown."""

    def __init__(self, announced: int) -> None:
        super().__init__(announced)
        self.announced = announced


@dataclass(frozen=True)
class _Run(Generic[T]):
    """One command, and what happens to its output."""

    machine: Handle
    command: Command
    drain: Drain[T]
    progress: Progress
    what: str

    def plainly(self, feed: Feed | None) -> T:
        """Run the command by the channel alone."""
        return self._drained(lambda write: self._execute(self.command, feed, write))

    def shortly(self, feed: Feed, size: Callable[[bytes], int]) -> T:
        """Run the command by the channel; drain its output at the end.

        Raises _Long if the output is longer than LONG, or will be according to *size*.
        """
        output = bytearray()
        announced = 0

        def collect(data: bytes) -> None:
            nonlocal announced
            if not output:
                announced = size(data)
            output.extend(data)
            if max(len(output), announced) > LONG:
                raise _Long(announced if announced > LONG else 0)

        failure = self._execute(self.command, feed, collect)
        if failure is not None and not output:
            raise failure
        result = self.drain(io.BytesIO(output))
        if failure is not None:
            raise failure
        return result

    def with_input(self, head: bytes, rest: _Source) -> T:
        """Run the command with its input on a disk: *head* and *rest*."""
        connection = self.machine.connection
        with self._volume(0) as (volume, serial):
            pieces = itertools.chain(
                _pieces(io.BytesIO(head)), _pieces(rest), itertools.repeat(bytes(_PART), _SPARE)
            )
            transfer.upload(connection, volume, lambda _most: next(pieces, b""), offset=START)
            wanted = replace(self.command, disk=serial)
            try:
                plug(self.machine.domain, volume.path(), serial, read_only=True)
                return self._drained(lambda write: self._execute(wanted, None, write))
            except (MissingCapability, DomainError, NoDisk) as error:
                self._explain(error)
            return self.plainly(
                lambda out: transfer.download(connection, volume, out.write, offset=START)
            )

    def with_output(self, feed: Feed, announced: int) -> T:
        """Run the command with its output on a disk, for *announced* bytes; 0 means unknown."""
        connection = self.machine.connection
        try:
            size = disk_size(self._pool(), announced)
        except StorageError as error:
            self._explain(error)
            return self.plainly(feed)
        lengths: list[int] = []

        def produce(write: Sink) -> CommandFailed | None:
            failure = self._execute(wanted, feed, write, lengths.append)
            for length in lengths:
                if length:
                    transfer.download(connection, volume, write, offset=START, length=length)
            return failure

        with self._volume(size) as (volume, serial):
            wanted = replace(self.command, disk=serial, output=True)
            try:
                plug(self.machine.domain, volume.path(), serial, read_only=False)
                return self._drained(produce)
            except (MissingCapability, DomainError, NoDisk) as error:
                self._explain(error)
        return self.plainly(feed)

    def _execute(
        self,
        command: Command,
        feed: Feed | None,
        stdout: Sink,
        on_disk: Callable[[int], object] | None = None,
    ) -> CommandFailed | None:
        """Run the command; return the error if its exit code is not 0."""
        said = bytearray()

        def keep_end(data: bytes) -> None:
            said.extend(data)
            del said[:-_TAIL]

        code = execute(
            self.machine, command, feed=feed, stdout=stdout, stderr=keep_end, on_disk=on_disk
        )
        if code == 0:
            return None
        return CommandFailed(
            f"{self.what} failed with exit code {code} in {self.machine.name}",
            detail=said.decode(errors="replace").strip() or None,
        )

    def _drained(self, produce: Callable[[Sink], CommandFailed | None]) -> T:
        """Return what *drain* makes, in a thread, of what *produce* writes.

        Raises what *drain* raised; otherwise the error that *produce* returned.
        """
        reader, writer = os.pipe()
        results: list[T] = []
        failures: list[BaseException] = []

        def read() -> None:
            try:
                with os.fdopen(reader, "rb") as output:
                    results.append(self.drain(output))
                    while output.read(_PART):  # what follows an archive's end
                        pass
            except BaseException as error:  # raised again below
                failures.append(error)

        thread = threading.Thread(target=read, name="drain", daemon=True)
        thread.start()
        failure = None
        try:
            with suppress(BrokenPipeError):  # drain failed
                failure = produce(lambda data: write_all(writer, data))
        finally:
            os.close(writer)
            thread.join()
        if failures:
            raise failures[0]
        if failure is not None:
            raise failure
        return results[0]

    @contextmanager
    def _volume(self, size: int) -> Iterator[tuple[Volume, str]]:
        """Create a volume for a disk; unplug the disk and remove the volume at the end."""
        serial = os.urandom(_SERIAL).hex()
        name = self.machine.name
        volume = volumes.create_hole(self._pool(), volumes.transfer_name(name, serial), size)
        try:
            yield volume, serial
        finally:
            try:
                self._unplug(serial)
            finally:
                with shielded():
                    volumes.delete_volume(volume)

    def _unplug(self, serial: str) -> None:
        try:
            gone = unplug(self.machine.domain, serial, self.machine.patience)
        except ArmvmError:
            return  # the machine is gone, and its disk with it
        if not gone:
            name = self.machine.name
            self.progress.warn(
                f"{name} did not release a disk that armvm plugged in for the copy; it keeps it "
                f"until the machine stops: armvm stop {name}"
            )

    def _pool(self) -> Pool:
        return pools.need_pool(self.machine.connection, self.machine.record.pool, self.machine.name)

    def _explain(self, error: ArmvmError) -> None:
        detail = f" ({error.detail})" if error.detail else ""
        self.progress.say(
            f"{error.message}{detail}: copying through the channel, which takes longer"
        )


def disk_size(pool: Pool, announced: int) -> int:
    """Return the size of a disk for *announced* bytes of output; 0 means that it is unknown.

    The guest may fill the disk, so an eighth of the pool's free space is left. Raises StorageError
    if the rest is too little.
    """
    most = min(pools.free_space(pool) * 7 // 8, _MOST) // _MIB * _MIB
    needed = START + announced + announced // 8 + _MARGIN
    if needed > most or (not announced and most < 2 * needed):
        raise StorageError(
            f"a disk of {size_text(needed)} would take too much of the free space of the pool "
            f"{pool.name()}"
        )
    return -(-needed // _MIB) * _MIB if announced else most


class _Source:
    """The reading end of what a thread writes."""

    def __init__(self, feed: Feed) -> None:
        reader, self._writer = os.pipe()
        self._file = os.fdopen(reader, "rb")
        self._failure: BaseException | None = None
        self._feed = feed
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    def read(self, most: int) -> bytes:
        """Return *most* bytes; fewer at the end. Raises what the thread raised."""
        data = self._file.read(most)
        if len(data) < most:
            self._thread.join()
            if self._failure is not None:
                raise self._failure
        return data

    def close(self) -> None:
        """End the thread."""
        self._file.close()
        self._thread.join()

    def _work(self) -> None:
        try:
            with suppress(BrokenPipeError), os.fdopen(self._writer, "wb") as out:
                self._feed(out)
        except BaseException as error:  # raised again in the main thread
            self._failure = error


def _pieces(source: IO[bytes] | _Source) -> Iterator[bytes]:
    while piece := source.read(_PART):
        yield piece
