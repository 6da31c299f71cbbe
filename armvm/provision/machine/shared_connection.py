"""A machine's shared ssh connection: one login serves many commands, with ssh's ControlMaster.

A background ssh (the master) holds the connection and listens on a socket. The socket's name
depends on the libvirt, the machine, its host key and the user, so that no other machine matches,
not even one with the same name, address or port. A connection may end without notice, for example
at a reset: before each use the machine's ssh server has to answer.

Source of the messages: OpenSSH's PROTOCOL.mux. ``ssh -O`` sends the same ones, but it takes ten
times as long, and it cannot keep the check open while the master is told to stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from armvm.base import process
from armvm.base.paths import private_dir, runtime_dir, write_atomic

if TYPE_CHECKING:  # a command that finds its connection needs no libvirt
    from armvm.host.domain.instance import Instance

#: Seconds that a connection stays open after its last use.
PERSIST = 600
#: Seconds for the machine's ssh server to answer. A connection without an answer gets no new
#: commands, but those that run on it continue: a busy emulated guest may only be slow.
ALIVE_TIMEOUT = 5.0
#: The same for a first check, after which libvirt is asked about the machine.
PROMPT = 1.0
#: Most commands at a time on one connection. sshd's limit is 10 (MaxSessions in sshd_config(5)),
#: and the user's own ssh counts too. Further commands get connections of their own.
SESSIONS = 8
#: Maximum length of a socket's path in bytes: sun_path in unix(7) without its final zero, minus the
#: suffix of ssh's temporary name (mux.c, muxserver_listen).
LONGEST = 107 - 17

_VERSION = 4
_HELLO, _TERMINATE, _OPEN_FORWARD, _CLOSE_FORWARD, _STOP = (
    0x00000001, 0x10000005, 0x10000006, 0x10000007, 0x10000009,
)  # fmt: skip
_OK, _FAILURE = 0x80000001, 0x80000003
_REMOTE_FORWARD = 2
_UNIX_SOCKET = 0xFFFFFFFE  #: in place of a port: PORT_STREAMLOCAL in misc.h


def socket_of(uri: str, instance: Instance, key: str) -> Path | None:
    """Return the path of the socket of a machine's shared connection; None if it cannot have one.

    *key* is the private key that ssh uses, or empty for the user's own keys.
    """
    # The directory may be a home that hosts share.
    told = (os.uname().nodename, uri, instance.record.host_key, instance.record.user, key)
    digest = hashlib.sha256("\0".join(told).encode(errors="surrogateescape")).hexdigest()
    for parent in _directories():
        path = parent / f"{_prefix(instance.uuid)}{digest[:16]}"
        # ssh expands ${NAME} in the path, and has no way to escape it.
        if len(os.fsencode(path)) <= LONGEST and "$" not in str(path) and _is_private(parent):
            return path
    return None


def remember(uri: str, name: str, path: Path, command: Sequence[str]) -> None:
    """Store the ssh command that uses the connection at *path* to the machine called *name*."""
    told = "\0".join((uri, name, str(path), *command)).encode(errors="surrogateescape")
    record = path.parent / _record_of(uri, name)
    with contextlib.suppress(OSError):
        if not record.exists() or record.read_bytes() != told:
            write_atomic(record, told)


def recall(uri: str, name: str) -> tuple[Path, list[str]] | None:
    """Return the connection to the machine called *name*, and the ssh command that uses it.

    None if there is none, or the machine does not answer at once. Asks no libvirt: a connection
    that works leads to the machine that it was opened to. That has been running ever since, and
    libvirt renames only machines that are off.
    """
    for parent in _directories():
        record = parent / _record_of(uri, name)
        if not record.exists() or not _is_private(parent, make=False):
            continue
        told = record.read_bytes().decode(errors="surrogateescape").split("\0")
        if told[:2] == [uri, name] and len(told) > 3:
            path = Path(told[2])
            if is_alive(path, timeout=PROMPT, give_up=False):
                return path, told[3:]
    return None


def is_alive(path: Path, *, timeout: float | None = None, give_up: bool = True) -> bool:
    """Return whether a machine answers over its shared connection, in ALIVE_TIMEOUT by default.

    The master would confirm its own existence even if the machine is gone. So this sends a request
    that the ssh server refuses: to forward its own port 22. That changes nothing in the guest, and
    its sshd does not log it. If the answer does not come in time, the connection gets no further
    commands, unless *give_up* is false.
    """
    # A hostile server could use the forward even though it was refused: it leads nowhere. The
    # random number is needed because the master itself confirms a forward that it has requested.
    target = f"/dev/null/{os.urandom(8).hex()}"
    forward = (_REMOTE_FORWARD, "", 22, target, _UNIX_SOCKET)
    try:
        with _Control(path, timeout) as control:
            try:
                reply = control.ask(_OPEN_FORWARD, *forward)
                if reply == _OK:  # root, and the ssh server does not use the port
                    control.ask(_CLOSE_FORWARD, *forward)
            except TimeoutError:
                # While this control is open, a late answer cannot be taken for another's.
                if give_up:
                    retire(path)
                return False
    except OSError:
        return False
    return reply in (_OK, _FAILURE)


def open_master(
    path: Path,
    command: Sequence[str],
    *,
    own_session: bool = False,
    fresh: bool = False,
    timeout: float | None = None,
) -> process.Completed | None:
    """Open a connection with *command*, an ssh that listens on *path* and goes to the background.

    Does nothing if the machine answers on it already; with *fresh*, retires the old one instead.
    Returns the result of ssh; None if another process is opening the connection. With
    *own_session*, ssh has no terminal. *timeout* is in seconds. Raises the errors of
    `process.into_background`.
    """
    with _lock_file(path) as lock:
        # Two masters at a time would leave one without a socket, which never ends.
        if lock is None or not _take(lock, 0):
            return None
        if fresh:
            retire(path)
        elif is_alive(path):
            return process.Completed(argv=(), returncode=0, stdout=b"", stderr=b"")
        path.unlink(missing_ok=True)
        _remove_dead(path.parent)
        return process.into_background(command, timeout=timeout, own_session=own_session)


@contextmanager
def session(path: Path) -> Iterator[bool]:
    """Reserve one of the connection's sessions for the block; yield whether one was free."""
    with _lock_file(path) as lock:
        yield lock is not None and any(_take(lock, place) for place in range(1, SESSIONS + 1))


def retire(path: Path) -> None:
    """Make a connection unavailable for further commands. It ends when the running ones do."""
    try:
        with _Control(path) as control:
            control.ask(_STOP)
    except OSError:
        path.unlink(missing_ok=True)


def close(uuid: str, *, forget: bool = False) -> None:
    """End all shared connections to a machine; with *forget*, also remove their lock files."""
    for parent in _directories():
        if not _is_private(parent, make=False):
            continue
        for path in parent.glob(f"{_prefix(uuid)}*"):
            if path.suffix == ".lock":
                if forget:
                    path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(OSError), _Control(path) as control:
                control.ask(_TERMINATE)  # the master may end before its answer arrives
            path.unlink(missing_ok=True)
        _remove_dead(parent)


class _Control:
    """A connection to a master. All methods raise OSError."""

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(ALIVE_TIMEOUT if timeout is None else timeout)
            self._socket.connect(str(path))
            self._send(struct.pack(">II", _HELLO, _VERSION))
            self._receive()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> _Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, *fields: int | str) -> int:
        """Send a request and return the kind of the answer."""
        number = 0  # of the request: there is never more than one at a time
        self._send(struct.pack(">II", kind, number) + b"".join(map(_packed, fields)))
        answer: int = struct.unpack_from(">I", self._receive())[0]
        return answer

    def _send(self, body: bytes) -> None:
        self._socket.sendall(struct.pack(">I", len(body)) + body)

    def _receive(self) -> bytes:
        (length,) = struct.unpack(">I", self._read(4))
        if not 4 <= length <= 1 << 18:
            raise OSError("invalid message")
        return self._read(length)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the master has ended")
            data += more
        return data


def _packed(field: int | str) -> bytes:
    if isinstance(field, int):
        return struct.pack(">I", field)
    return struct.pack(">I", len(field.encode())) + field.encode()


def _directories() -> tuple[Path, Path]:
    return runtime_dir() / "armvm", Path(f"/tmp/armvm-{os.geteuid()}")  # noqa: S108


def _record_of(uri: str, name: str) -> str:
    told = f"{uri}\0{name}".encode(errors="surrogateescape")
    return f"login-{hashlib.sha256(told).hexdigest()[:16]}"


def _prefix(uuid: str) -> str:
    return f"{uuid.replace('-', '')[:16]}-"


def _is_private(directory: Path, *, make: bool = True) -> bool:
    """Return whether a directory is this user's alone; with *make*, create it first."""
    try:
        if make:
            private_dir(directory)
        status = directory.lstat()
    except OSError:
        return False
    own = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return stat.S_ISDIR(status.st_mode) and own


@contextmanager
def _lock_file(path: Path) -> Iterator[IO[bytes] | None]:
    """Open the file whose first byte locks the opening of a connection, and the others sessions.

    None if it cannot be opened. The locks end with this process at the latest.
    """
    try:
        file = path.with_name(f"{path.name}.lock").open("ab")
    except OSError:
        yield None
        return
    with file:
        yield file


def _take(lock: IO[bytes], place: int) -> bool:
    """Lock one byte of a file, and return whether it was free."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError:
        return False
    return True


def _remove_dead(directory: Path) -> None:
    """Remove the sockets of masters that were killed, and the records of sockets that are gone."""
    with contextlib.suppress(OSError):
        for path in directory.glob(f"{'[0-9a-f]' * 16}-{'[0-9a-f]' * 16}"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(ALIVE_TIMEOUT)
                try:
                    client.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)
        for record in directory.glob(f"login-{'[0-9a-f]' * 16}"):
            told = record.read_bytes().decode(errors="surrogateescape").split("\0")
            if len(told) < 3 or not Path(told[2]).exists():
                record.unlink(missing_ok=True)
