"""Connect to libvirt, and translate libvirt's errors into armvm's.

libvirt-python lacks type information: its objects are `Any`, under the names below.
"""

from __future__ import annotations

import errno
import operator
import os
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import libvirt

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    Conflict,
    ConnectFailed,
    DomainError,
    HostError,
    MissingCapability,
    NotFound,
    PermissionDenied,
    StorageError,
    UsageError,
)
from armvm.base.paths import config_files
from armvm.host import systemd_units
from armvm.host.default_uri import BY_SOCKET as BY_SOCKET
from armvm.host.default_uri import SESSION as SESSION
from armvm.host.default_uri import SYSTEM as SYSTEM
from armvm.host.default_uri import default_uri as default_uri
from armvm.settings.hosts import URI_HINT, hosts_in, uri_problem
from armvm.settings.names import shown

Connection: TypeAlias = Any
Domain: TypeAlias = Any
Pool: TypeAlias = Any
Volume: TypeAlias = Any

#: Seconds to wait for a connection: long enough to type a password at qemu+ssh.
CONNECT_TIMEOUT = 60.0

_PERMISSION_HINT = (
    "join the group libvirt (sudo usermod -aG libvirt $USER, then log in again), "
    "or use --connect qemu:///session"
)
_REMOTE_PERMISSION_HINT = (
    "on that host, add the user to the group libvirt (sudo usermod -aG libvirt USER)"
)
_SSH_DENIED_HINT = "ssh refused the login: use a user and a key that the host accepts"

#: Hints for a pool's directory that cannot be written: by anybody, by libvirt's daemon.
_READ_ONLY_HINT = (
    "its file system is read-only ('findmnt -T DIR' shows it): remount it writable, or use another "
    "pool: --pool NAME"
)
_UNWRITABLE_HINT = (
    "libvirt's daemon cannot write there: check the directory's owner and mode ('ls -ld DIR'), or "
    "use another pool: --pool NAME"
)

#: The sockets of the single daemon and of the modular ones, if the host's kind is unknown.
_EITHER = "libvirtd.socket, or virtqemud.socket virtnetworkd.socket virtstoraged.socket"

#: libvirt's errors for a URI without a driver.
_NO_SUCH_DRIVER = ("no connection driver available", "unexpected qemu URI path")
#: libvirt's errors for a user without access; the second one if polkit is not installed.
_DENIALS = ("Permission denied", "Unable to get system bus connection")

#: libvirt's error codes (virErrorNumber in virterror.h) that are more specific than their domain.
_BY_CODE: Mapping[int, type[ArmvmError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotFound,
    libvirt.VIR_ERR_NO_NETWORK: NotFound,
    libvirt.VIR_ERR_NO_STORAGE_POOL: NotFound,
    libvirt.VIR_ERR_NO_STORAGE_VOL: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_METADATA: NotFound,
    libvirt.VIR_ERR_NO_DOMAIN_SNAPSHOT: NotFound,
    libvirt.VIR_ERR_DOM_EXIST: Conflict,
    libvirt.VIR_ERR_NETWORK_EXIST: Conflict,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: Conflict,
    libvirt.VIR_ERR_STORAGE_POOL_BUILT: Conflict,
    libvirt.VIR_ERR_RESOURCE_BUSY: Conflict,
    libvirt.VIR_ERR_AUTH_FAILED: PermissionDenied,
    libvirt.VIR_ERR_AUTH_CANCELLED: PermissionDenied,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: PermissionDenied,
    libvirt.VIR_ERR_ACCESS_DENIED: PermissionDenied,
    libvirt.VIR_ERR_OPERATION_DENIED: PermissionDenied,
    libvirt.VIR_ERR_NO_CONNECT: ConnectFailed,
    libvirt.VIR_ERR_UNKNOWN_HOST: ConnectFailed,
    libvirt.VIR_ERR_NO_SUPPORT: MissingCapability,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: MissingCapability,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: MissingCapability,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: MissingCapability,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: DomainError,
}
#: libvirt's error domains (virErrorDomain), for unspecific codes.
_BY_DOMAIN: Mapping[int, type[ArmvmError]] = {
    libvirt.VIR_FROM_STORAGE: StorageError,
    libvirt.VIR_FROM_STREAMS: StorageError,
    libvirt.VIR_FROM_QEMU: DomainError,
    libvirt.VIR_FROM_DOMAIN: DomainError,
    libvirt.VIR_FROM_DOM: DomainError,
    libvirt.VIR_FROM_SECURITY: DomainError,
    libvirt.VIR_FROM_NETWORK: HostError,
    libvirt.VIR_FROM_RPC: ConnectFailed,
    libvirt.VIR_FROM_REMOTE: ConnectFailed,
    libvirt.VIR_FROM_AUTH: PermissionDenied,
    libvirt.VIR_FROM_POLKIT: PermissionDenied,
}


def connect(uri: str | None = None) -> Connection:
    """Open a connection; None means the default one.

    If the system daemon's socket can be opened but polkit refuses this user, the default is the
    user's own daemon. Raises UsageError, ConnectFailed or PermissionDenied.
    """
    if uri is not None:
        return _connect(uri.strip(), given=True)
    wanted, origin = default_uri(os.environ)
    try:
        return _connect(wanted)
    except PermissionDenied:
        if origin != BY_SOCKET:
            raise
        return _connect(SESSION)


def effective_uri(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the URI that `connect` uses by default, and where it came from.

    Connects to the system daemon if its socket can be opened: it may still refuse this user.
    """
    wanted, origin = default_uri(environ)
    if origin == BY_SOCKET:
        try:
            _connect(wanted).close()
        except PermissionDenied:
            return SESSION, "permission denied by the system daemon"
        except ArmvmError:
            pass  # every command will report it
    return wanted, origin


def _connect(wanted: str, *, given: bool = False) -> Connection:
    """Open a connection; *given* says that the user chose it for this command."""
    # Without a handler, libvirt prints every error to standard error. The handler is not Python
    # code: a signal during the failing call would be raised in there, and become a SystemError.
    libvirt.registerErrorHandler(operator.is_, None)
    _check_uri(wanted)
    outcome: list[Any] = []
    thread = threading.Thread(target=_open, args=(wanted, outcome), daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT)
    if not outcome:
        raise ConnectFailed(
            f"timed out after {CONNECT_TIMEOUT:g} s: {wanted} did not answer",
            hint=f"check the host: {_doctor(wanted, given)}",
        )
    if isinstance(outcome[0], libvirt.libvirtError):
        raise _connect_error(wanted, outcome[0], given) from outcome[0]
    connection = outcome[0]
    if connection.getType().lower() not in ("qemu", "test"):
        raise UsageError(
            f"unsupported libvirt driver: {wanted} uses {connection.getType()}",
            hint="ARM64 machines need the QEMU driver: qemu:///system",
        )
    return connection


def _check_uri(uri: str) -> None:
    """Raise UsageError for an invalid URI, or for one with a host name in place of the path."""
    wrong = uri_problem(uri)
    if wrong is not None:
        raise UsageError(wrong[0], hint=wrong[1])


def _open(uri: str, outcome: list[Any]) -> None:
    try:
        outcome.append(libvirt.open(uri))
    except libvirt.libvirtError as error:
        outcome.append(error)


def _connect_error(uri: str, error: Any, given: bool) -> ArmvmError:
    text = _message(error)
    if any(words in text for words in _NO_SUCH_DRIVER):
        return UsageError(f"unsupported libvirt URI {shown(uri)}", detail=text, hint=URI_HINT)
    # Over ssh, an error of libvirt's own names a socket on that host; ssh's own errors do not.
    of_ssh = "ssh" in uri.partition(":")[0] and "sock" not in text
    denied = isinstance(translate(error, ""), PermissionDenied)
    if denied or any(words in text for words in _DENIALS):
        hint = _PERMISSION_HINT if is_local(uri) else _REMOTE_PERMISSION_HINT
        return PermissionDenied(
            f"permission denied: cannot connect to {uri}",
            detail=text,
            hint=_SSH_DENIED_HINT if of_ssh and not denied else hint,
        )
    check = f"check the host: {_doctor(uri, given)}"
    start = (
        systemd_units.start_command()
        if is_local(uri)
        else "on that host, systemctl start " + _EITHER
    )
    return ConnectFailed(
        f"cannot connect to libvirt at {uri}",
        detail=text,
        hint=check if of_ssh else f"{check}; if libvirt's daemon is not running: {start}",
    )


def _doctor(uri: str, given: bool) -> str:
    """Return the command that checks a URI's host, by the host's name if it has one."""
    if not given:
        return "armvm doctor"
    known: list[str] = []
    with suppress(ArmvmError):
        known = [one.name for one in hosts_in(config_files()).values() if one.uri.strip() == uri]
    return shlex.join(["armvm", "doctor", *(["--on", known[0]] if known else ["--connect", uri])])


def translate(error: Any, doing: str) -> ArmvmError:
    """Return the armvm error for a libvirtError; *doing* names the failed action."""
    text = _message(error)
    code, domain = error.get_error_code(), error.get_error_domain()
    message = f"{doing}: {text}" if doing else text
    if "Read-only file system" in text:
        return StorageError(message, hint=_READ_ONLY_HINT)
    if code == libvirt.VIR_ERR_SYSTEM_ERROR:
        number = error.get_int1()
        if number in (errno.EACCES, errno.EPERM):
            pool = domain == libvirt.VIR_FROM_STORAGE
            return PermissionDenied(message, hint=_UNWRITABLE_HINT if pool else _PERMISSION_HINT)
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return StorageError(message, hint="free some space, or use another pool: --pool NAME")
    if code == libvirt.VIR_ERR_OPERATION_FAILED and "already exists" in text:
        return Conflict(message)
    kind = _BY_CODE.get(code) or _BY_DOMAIN.get(domain) or HostError
    return kind(message, hint=_PERMISSION_HINT if kind is PermissionDenied else None)


@contextmanager
def errors(doing: str) -> Iterator[None]:
    """Translate every libvirtError raised in the block, and names that libvirt cannot have."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise NotFound(f"{doing}: not found: the name is not valid UTF-8") from error
    except libvirt.libvirtError as error:
        raise translate(error, doing) from error


def is_code(error: Any, *codes: int) -> bool:
    """Return whether a libvirtError has one of *codes*."""
    return error.get_error_code() in codes


def _message(error: Any) -> str:
    return str(error.get_error_message() or error).strip()


def uri_of(connection: Connection) -> str:
    """Return the connection's canonical URI."""
    with errors("reading the connection's URI"):
        return str(connection.getURI())


def is_local(uri: str) -> bool:
    """Return whether a URI names this host, so that its files are local (also ``qemu+unix``)."""
    scheme, _, rest = uri.partition("://")
    return scheme in ("qemu", "qemu+unix", "test") and rest.startswith("/")


def is_session(uri: str) -> bool:
    """Return whether a URI names a user's own daemon.

    For root, libvirt's session *is* the system daemon, and getURI returns its URI.
    """
    return uri.split("?")[0].endswith("/session")


def bad_value(what: str, value: str, hint: str) -> ConfigError:
    """Return the error for a value that this host does not support."""
    return ConfigError(f"this host does not support {what} {shown(value)}", hint=hint)


def not_running(name: str) -> DomainError:
    """Return the error for a machine that must be running."""
    return DomainError(f"{name} is not running", hint=f"start it first: armvm start {name}")


def suspended(name: str) -> DomainError:
    """Return the error for a machine that must not be suspended."""
    return DomainError(f"{name} is suspended", hint=f"resume it first: armvm resume {name}")
