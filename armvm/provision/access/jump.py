"""The way to a remote libvirt's machines: through its host, by the ssh that libvirt itself uses.

The machines are on networks of that host's, and the ports that lead to them on its loopback:
nobody else reaches either. ``ssh -W`` has the host connect there. Source of the parameters of a
URI: libvirt.org/uri.html, "ssh transport", "libssh transport".

One connection to the host serves all that goes there (``ControlMaster``). It is opened when it is
first needed and ends by itself; whatever is wrong with it, the host is connected to without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from armvm.base import process
from armvm.base.errors import ArmvmError, MissingCapability, UsageError
from armvm.base.paths import private_dir, runtime_dir
from armvm.host.connection import is_local
from armvm.provision.access import ssh_options
from armvm.settings.names import shown

#: Seconds that the shared connection outlives its last use.
PERSIST = 60
#: Seconds until the host must have answered, and until a shared connection proves that it lives.
CONNECT_TIMEOUT, ALIVE_TIMEOUT = 15, 5.0
#: Bytes of a socket's path: sun_path in unix(7) without its last zero, and without what ssh adds to
#: the name at first (mux.c, muxserver_listen).
LONGEST = 107 - 17
#: What is wrong with a host whose sshd forwards nothing.
PROHIBITED = "its sshd connects nobody any further (AllowTcpForwarding)"
_TRANSPORTS = ("ssh", "libssh", "libssh2")


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A remote libvirt's host, and how ssh gets there: its program and options."""

    host: str
    program: str = "ssh"
    options: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        """Return the command that connects to the host with *words* as more options."""
        return [self.program, *self.options, *words, "--", self.host]

    def through(self, host: str, port: int) -> list[str]:
        """Return the command that connects standard input and output to a port seen from there."""
        target = f"[{host}]" if ":" in host else host
        return self.own(*_shared(self), "-W", f"{target}:{port}")

    def own(self, *words: str) -> list[str]:
        """Return `command` where armvm runs it, whatever the user's files say of sessions."""
        return self.command(*words, *ssh_options.words(ssh_options.JUMP))


def jump_of(uri: str) -> Jump | None:
    """Return the way through a remote libvirt's host; None where it is no ssh's.

    Raises UsageError for a host that cannot be one's name.
    """
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    if transport not in _TRANSPORTS or not parts.hostname:
        return None
    # ssh takes none of them for an option, but the user's own configuration may call other programs
    # with it.
    user = unquote(parts.username or "")
    for word in (parts.hostname, user):
        if word.startswith("-") or not word.isprintable() or any(c in word for c in " '\"`$;&|<>"):
            raise UsageError(f"{shown(word)} is not a valid host or user name")
    query = dict(parse_qsl(parts.query))
    return Jump(
        host=parts.hostname,
        program=query.get("command", "ssh") if transport == "ssh" else "ssh",
        options=(
            *(["-p", str(parts.port)] if parts.port else []),
            *(["-l", user] if user else []),
            *(["-i", query["keyfile"]] if query.get("keyfile") else []),
            *(word for option in _options(transport, query) for word in ("-o", option)),
        ),
    )


def trouble(jump: Jump) -> str | None:
    """Return why the host cannot be used as a jump, in ssh's words; None where it can."""
    options = ("BatchMode=yes", f"ConnectTimeout={CONNECT_TIMEOUT}", "LogLevel=INFO")
    words = [word for option in options for word in ("-o", option)]
    try:
        command = jump.own(*words, "-W", "127.0.0.1:9")
        done = process.run(command, check=False, timeout=2 * CONNECT_TIMEOUT)
    except ArmvmError as error:
        return error.message
    said = done.stderr.decode(errors="replace").strip()
    if "administratively prohibited" in said:
        return PROHIBITED
    # Nobody need listen at that port: the host has tried. A password may be asked for elsewhere.
    tried = done.returncode == 0 or "open failed" in said
    if tried or ("Permission denied" in said and _shared(jump)):
        return None
    return said.splitlines()[-1] if said else f"ssh failed with exit code {done.returncode}"


def host_of(uri: str) -> str | None:
    """Return the name of a remote libvirt's host, as far as a URI tells it; None for this one."""
    parts = urlsplit(uri)
    return None if is_local(uri) else parts.hostname or parts.scheme


def need_way(uri: str, name: str) -> None:
    """Raise MissingCapability where a machine with user networking is not reached from here.

    Only its host's loopback leads to it, and only ssh gets there.
    """
    if is_local(uri) or jump_of(uri) is not None:
        return
    raise MissingCapability(
        f"{name} has user networking: only {host_of(uri)} itself reaches it, and "
        f"{urlsplit(uri).scheme} leads to libvirt alone",
        hint=f"connect by ssh: {ssh_uri(uri)}; or use 'armvm exec' and 'armvm console': they "
        "work without a network",
    )


def need_jump(uri: str, name: str) -> None:
    """Raise MissingCapability where a remote host leads nobody on to its machines.

    Other trouble may pass: libvirt was reached a moment ago.
    """
    jump = jump_of(uri)
    if jump is not None and trouble(jump) == PROHIBITED:
        raise MissingCapability(
            f"{name} cannot be reached through {jump.host}: {PROHIBITED}",
            hint="'armvm exec' and 'armvm console' work over libvirt's connection; 'armvm doctor' "
            "checks this way",
        )


def other_way(uri: str) -> str | None:
    """Return what to do where a remote libvirt is reached, but not by ssh; None elsewhere."""
    if is_local(uri) or jump_of(uri) is not None:
        return None
    return (
        f"{urlsplit(uri).scheme} leads to libvirt alone, and a machine behind its host's NAT is "
        f"not reached from here: connect by ssh ({ssh_uri(uri)})"
    )


def ssh_uri(uri: str) -> str:
    """Return the URI of the same libvirt by ssh, for a hint."""
    parts = urlsplit(uri)
    return f"qemu+ssh://USER@{parts.hostname or 'HOST'}{parts.path or '/system'}"


def _options(transport: str, query: dict[str, str]) -> Iterator[str]:
    """Yield what ssh is told by options, of what a URI says of host keys and ways to log in."""
    if _is_set(query.get("no_verify")) or query.get("known_hosts_verify") == "ignore":
        yield "StrictHostKeyChecking=no"
    if transport == "ssh":
        return
    if query.get("known_hosts_verify") == "auto":
        yield "StrictHostKeyChecking=accept-new"
    if query.get("known_hosts"):
        path = query["known_hosts"].replace("%", "%%")
        yield f'UserKnownHostsFile="{path}"'
    if query.get("sshauth"):
        theirs = [one.strip() for one in query["sshauth"].split(",")]
        ours = ("publickey" if one in ("agent", "privkey") else one for one in theirs)
        yield f"PreferredAuthentications={','.join(dict.fromkeys(ours))}"


def _is_set(value: str | None) -> bool:
    return value is not None and value.isdecimal() and int(value) != 0


def _shared(jump: Jump) -> list[str]:
    """Return the options that use the shared connection to the host, which is opened if need be.

    Empty where there can be none: ssh then connects by itself, and says what is wrong.
    """
    with contextlib.suppress(OSError, ArmvmError):
        path = socket_of(jump)
        if path is not None:
            with _locked(path):
                if _is_alive(jump, path) or _open(jump, path):
                    return _by(path)
    return []


def socket_of(jump: Jump, directory: Path | None = None) -> Path | None:
    """Return where the socket of the shared connection is; None where none can be.

    Its directory (below *directory*) is made: nobody else may enter it.
    """
    parent = private_dir((directory or runtime_dir()) / "armvm")
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return None
    told = "\0".join((jump.program, *jump.options, jump.host))
    path = parent / f"ssh-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    # ssh expands ${NAME} in it, and knows no way to write that otherwise.
    return path if len(os.fsencode(path)) <= LONGEST and "$" not in str(path) else None


def _by(path: Path) -> list[str]:
    """Return the options that use a shared connection by its socket, and never make one."""
    return ["-S", str(path).replace("%", "%%"), "-o", "ControlMaster=no"]


def _is_alive(jump: Jump, path: Path) -> bool:
    """Tell whether the shared connection stands; one that is of no use is removed.

    Its process answers also where the host is gone. So the host is asked for a connection: it is
    of no interest whether it can be had, but that there is an answer.
    """
    if not path.exists():
        return False
    try:
        asked = [*_by(path), "-O", "check"]
        if process.run(jump.own(*asked), check=False, timeout=ALIVE_TIMEOUT).returncode == 0:
            words = jump.own(*_by(path), "-W", "127.0.0.1:9")
            process.run(words, check=False, timeout=ALIVE_TIMEOUT)
            return True
        path.unlink(missing_ok=True)
    except ArmvmError:
        path.unlink(missing_ok=True)  # its process ends when its host is known to be gone
    return False


def _open(jump: Jump, path: Path) -> bool:
    """Open the shared connection; it may ask for a password. Tell whether it stands."""
    words = jump.own(
        *("-f", "-N", "-M", "-S", str(path).replace("%", "%%")),
        *("-o", f"ControlPersist={PERSIST}", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        *("-o", "LogLevel=ERROR"),
    )
    return process.into_background(words).returncode == 0 and path.exists()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others from opening the same connection. Two would leave one that nobody finds."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
