"""Reaches a remote libvirt's machines through its host, with the ssh that libvirt itself uses.

The machines are on that host's networks, and the ports that lead to them on its loopback. Other
hosts reach neither. ``ssh -W`` makes the host connect to them. Source of the URI parameters:
libvirt.org/uri.html, "ssh transport", "libssh transport".

All uses share one connection to the host (``ControlMaster``). It is opened on first use and closes
by itself. If it fails, ssh connects to the host without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from armvm.base import process
from armvm.base.errors import ArmvmError, MissingCapability, UsageError
from armvm.base.paths import locked, private_dir, runtime_dir
from armvm.guest.ssh import options as ssh_options
from armvm.host.connection import is_local
from armvm.settings.names import shown

#: Seconds that the shared connection stays open after its last use.
PERSIST = 60
#: Timeouts in seconds: for the host to answer, and for the check of a shared connection.
CONNECT_TIMEOUT, ALIVE_TIMEOUT = 15, 5.0
#: Maximum length of a socket's path in bytes: sun_path in unix(7) without its final zero, minus the
#: suffix of ssh's temporary name (mux.c, muxserver_listen).
LONGEST = 107 - 17
#: The error of a host whose sshd does not forward connections.
PROHIBITED = "its sshd does not forward connections (AllowTcpForwarding)"
_TRANSPORTS = ("ssh", "libssh", "libssh2")


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A remote libvirt's host, and the ssh program and options to reach it."""

    host: str
    program: str = "ssh"
    options: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        """Return the command that connects to the host with *words* as additional options."""
        return [self.program, *self.options, *words, "--", self.host]

    def through(self, host: str, port: int, *, share: bool = True) -> list[str]:
        """Return the command that connects standard input and output to a port on that side.

        With *share*, it uses the shared connection to the host, which is opened now.
        """
        target = f"[{host}]" if ":" in host else host
        return self.own(*(_shared(self) if share else ()), "-W", f"{target}:{port}")

    def own(self, *words: str) -> list[str]:
        """Return `command` for armvm's own use, with session options fixed against user files."""
        return self.command(*words, *ssh_options.words(ssh_options.JUMP))


def jump_of(uri: str) -> Jump | None:
    """Return the jump through a remote libvirt's host; None if the URI does not use ssh.

    Raises UsageError for an invalid host or user name.
    """
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    if transport not in _TRANSPORTS or not parts.hostname:
        return None
    # ssh itself does not read them as options, but the user's configuration may pass them to other
    # programs.
    user = unquote(parts.username or "")
    for word in (parts.hostname, user):
        if word.startswith("-") or not word.isprintable() or any(c in word for c in " '\"`$;&|<>"):
            raise UsageError(f"invalid host or user name {shown(word)} in the libvirt URI")
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
    """Return why the host cannot be used as a jump, in ssh's words; None if it can."""
    options = ("BatchMode=yes", f"ConnectTimeout={CONNECT_TIMEOUT}", "LogLevel=INFO")
    words = [word for option in options for word in ("-o", option)]
    try:
        command = jump.own(*words, "-W", "127.0.0.1:9")
        done = process.run(command, check=False, timeout=2 * CONNECT_TIMEOUT, most=process.ANSWER)
    except ArmvmError as error:
        return error.message
    said = done.stderr.decode(errors="replace").strip()
    if "administratively prohibited" in said:
        return PROHIBITED
    # Nothing needs to listen on that port: it is enough that the host tried. Other calls may ask
    # for a password.
    tried = done.returncode == 0 or "open failed" in said
    if tried or ("Permission denied" in said and _shared(jump)):
        return None
    return said.splitlines()[-1] if said else f"ssh failed with exit code {done.returncode}"


def host_of(uri: str) -> str | None:
    """Return the host name in a remote libvirt's URI, else its scheme; None for this host."""
    parts = urlsplit(uri)
    return None if is_local(uri) else parts.hostname or parts.scheme


def need_way(uri: str, name: str) -> None:
    """Raise MissingCapability if a machine with user networking cannot be reached from here.

    It is reachable only on its host's loopback, and only ssh gets there.
    """
    if is_local(uri) or jump_of(uri) is not None:
        return
    raise MissingCapability(
        f"{name} has user networking: it can be reached only from {host_of(uri)}, and a "
        f"{urlsplit(uri).scheme} connection carries only libvirt calls",
        hint=f"connect by ssh: {ssh_uri(uri)}; or use 'armvm exec' and 'armvm console', which "
        "need no network",
    )


def need_jump(uri: str, name: str) -> None:
    """Raise MissingCapability if a remote host does not forward connections to its machines.

    Other errors are ignored as temporary: libvirt was reached a moment ago.
    """
    jump = jump_of(uri)
    if jump is not None and trouble(jump) == PROHIBITED:
        raise MissingCapability(
            f"{name} cannot be reached through {jump.host}: {PROHIBITED}",
            hint="allow forwarding in its sshd_config and check with 'armvm doctor', or use "
            "'armvm exec' and 'armvm console', which use libvirt's connection",
        )


def other_way(uri: str) -> str | None:
    """Return advice for a remote libvirt that is reached without ssh; None for all others."""
    if is_local(uri) or jump_of(uri) is not None:
        return None
    return (
        f"{urlsplit(uri).scheme} carries only libvirt calls, so machines behind the host's NAT "
        f"cannot be reached from here: connect by ssh ({ssh_uri(uri)})"
    )


def ssh_uri(uri: str) -> str:
    """Return the URI of the same libvirt by ssh, for a hint."""
    parts = urlsplit(uri)
    return f"qemu+ssh://USER@{parts.hostname or 'HOST'}{parts.path or '/system'}"


def _options(transport: str, query: dict[str, str]) -> Iterator[str]:
    """Yield the ssh options for a URI's parameters on host keys and authentication."""
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
    """Return the options that use the shared connection to the host; opens it on first use.

    Empty if the connection cannot be shared: ssh then connects directly and reports the error.
    """
    with contextlib.suppress(OSError, ArmvmError):
        path = socket_of(jump)
        if path is not None:
            # Opening the connection twice would leave one without a socket.
            with locked(path.with_suffix(".lock")):
                if _is_alive(jump, path) or _open(jump, path):
                    return _by(path)
    return []


def socket_of(jump: Jump, directory: Path | None = None) -> Path | None:
    """Return the path of the shared connection's socket; None if it cannot have one.

    Creates its directory below *directory*, which only this user may enter.
    """
    parent = private_dir((directory or runtime_dir()) / "armvm")
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return None
    told = "\0".join((jump.program, *jump.options, jump.host))
    path = parent / f"ssh-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    # ssh expands ${NAME} in the path, and has no way to escape it.
    return path if len(os.fsencode(path)) <= LONGEST and "$" not in str(path) else None


def _by(path: Path) -> list[str]:
    """Return the options that use a shared connection's socket, but never create one."""
    return ["-S", str(path).replace("%", "%%"), "-o", "ControlMaster=no"]


def _is_alive(jump: Jump, path: Path) -> bool:
    """Return whether the shared connection works; removes the socket of a broken one.

    Its process answers even if the host is unreachable. So this also asks the host for a
    connection: any answer is enough, even a refusal.
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
        path.unlink(missing_ok=True)  # its process ends once it finds the host unreachable
    return False


def _open(jump: Jump, path: Path) -> bool:
    """Open the shared connection, which may ask for a password; return whether it is open."""
    words = jump.own(
        *("-f", "-N", "-M", "-S", str(path).replace("%", "%%")),
        *("-o", f"ControlPersist={PERSIST}", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        *("-o", "LogLevel=ERROR"),
    )
    return process.into_background(words).returncode == 0 and path.exists()
