"""Connect to a machine by ssh, with a strict host key check from the first connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, CommandFailed, NotReady
from armvm.base.paths import data_dir
from armvm.guest.agents.ssh_script import FAILED, shell_line
from armvm.guest.cloudinit.credentials import own_key
from armvm.guest.ssh import options
from armvm.host.connection import is_local, suspended
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, observe, set_record
from armvm.host.network import forwards
from armvm.host.network.networks import addresses
from armvm.host.network.ssh_forward import ensure_forward
from armvm.provision.access.jump import Jump, jump_of, need_way, other_way, trouble
from armvm.provision.machine import shared_connection
from armvm.provision.machine.known_hosts import host_alias, write_known_host

LOOPBACK = "127.0.0.1"
#: Timeout in seconds of a probe through a jump host, including the connection to that host.
PROBE_TIMEOUT = 20.0
#: ssh's message if the server accepts none of the keys (sshconnect2.c).
DENIED = "Permission denied"
_CHEAP = {"KexAlgorithms": "^curve25519-sha256", "Ciphers": "^aes128-gcm@openssh.com"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The address of a machine's ssh server, as the libvirt host sees it, and the jump host.

    ``jump`` is None if this host reaches the address directly. ``shared`` is the socket of the
    shared connection to use; ssh connects to the address if that ends in the meantime.
    """

    host: str
    port: int
    jump: Jump | None = None
    shared: Path | None = None

    @property
    def via(self) -> str | None:
        """The name of the jump host, or None."""
        return None if self.jump is None else self.jump.host

    def __str__(self) -> str:
        way = f" via {self.via}" if self.via else ""
        return f"{self.host}:{self.port}{way}"


def endpoint(machine: Handle) -> Endpoint | None:
    """Return a machine's ssh endpoint, or None while its address is unknown or not reachable.

    It is not reachable with user networking on a remote libvirt that is not reached by ssh.
    """
    uri = machine.uri
    jump = jump_of(uri)
    if machine.instance.network is None and machine.record.forward is not None:
        if jump is None and not is_local(uri):
            return None
        return Endpoint(host=LOOPBACK, port=machine.record.forward, jump=jump)
    host = first_address(machine)
    return None if host is None else Endpoint(host=host, port=22, jump=jump)


def first_address(machine: Handle) -> str | None:
    """Return the IPv4 address of a running machine's first card, or None while it is unknown.

    If nothing tells of one, it is the static address in the machine's network configuration.
    """
    cards = machine.instance.cards
    found = addresses(machine.domain, mac=cards[0].mac if len(cards) > 1 else None)
    static = static_address(machine.instance)
    return found[0] if found else None if static is None else str(static.ip)


def static_address(instance: Instance) -> ipaddress.IPv4Interface | None:
    """Return the address that a machine's network configuration gives it; None without one.

    Users may edit metadata: an invalid one does not count.
    """
    if instance.network is None:
        return None
    try:
        return ipaddress.IPv4Interface(str(instance.record.settings.get("address") or ""))
    except ValueError:
        return None


def answers(where: Endpoint) -> bool:
    """Return whether an ssh server answers at a machine's address."""
    from armvm.guest.boot.ready import answers_ssh, is_banner  # a login does not need them

    if where.jump is None:
        return answers_ssh(where.host, where.port)
    try:
        command = where.jump.through(where.host, where.port)
        done = process.run(command, check=False, timeout=PROBE_TIMEOUT, most=process.ANSWER)
    except ArmvmError:
        return False
    return is_banner(done.stdout)


def assert_has_way(machine: Handle) -> None:
    """Raise MissingCapability if this host cannot reach a machine's ssh server."""
    if machine.instance.network is None:
        need_way(machine.uri, machine.name)


def no_answer(machine: Handle) -> str:
    """Return a hint for an ssh server that does not answer."""
    uri = machine.uri
    jump = jump_of(uri)
    wrong = None if jump is None else trouble(jump)
    if jump is not None and wrong is not None:
        return f"armvm connects through {jump.host}: {wrong}"
    return other_way(uri) or f"wait until it is ready: armvm wait {machine.name}"


def reach(machine: Handle) -> Endpoint:
    """Return a running machine's ssh endpoint; restore a lost forward first.

    Raises DomainError if the machine is not running or is suspended, NotReady while its address is
    unknown, MissingCapability if this host cannot reach it.
    """
    require_awake(machine)
    assert_has_way(machine)
    found = endpoint(restore_forward(machine))
    if found is None:
        raise NotReady(
            f"{machine.name} has no address yet",
            hint=f"wait until it is ready: armvm wait {machine.name}",
        )
    return found


def require_awake(machine: Handle) -> None:
    """Raise DomainError if a machine is not running or is suspended: then ssh would hang."""
    machine.require_running()
    if machine.instance.suspended:
        raise suspended(machine.name)


@contextmanager
def connected(machine: Handle, *, share: bool = True, batch: bool = False) -> Iterator[Endpoint]:
    """Yield a running machine's ssh endpoint, with its shared connection for the block.

    Opens the connection if there is none; unless *batch*, ssh may ask for a passphrase or a
    password. The endpoint has no shared connection without *share*, and if the connection cannot
    be used now. Raises the errors of `reach`, CommandFailed with ssh's message if ssh cannot log
    in.
    """
    if not share:
        yield reach(machine)
        return
    require_awake(machine)
    where = endpoint(machine)
    path = shared_socket(machine.uri, machine.instance)
    if where is None or path is None or not shared_connection.is_alive(path):
        where = reach(machine)
        if path is not None and not _opened(machine.instance, where, path, batch):
            path = None
    if path is None:
        yield where
        return
    shared = replace(where, shared=path)
    remember_login(machine, shared)
    with shared_connection.session(path) as free:
        yield shared if free else where


def remember_login(machine: Handle, where: Endpoint) -> None:
    """Let `quick_login` find the machine's shared connection."""
    if where.shared is not None:
        line = ssh_command(machine.instance, where)
        shared_connection.remember(machine.uri, machine.name, where.shared, line)


def _opened(instance: Instance, where: Endpoint, path: Path, batch: bool) -> bool:
    """Return whether the machine's shared connection is open now; False if ssh should go alone.

    Raises CommandFailed with ssh's message if ssh cannot log in.
    """
    # Without the caller's terminal, Ctrl-C cannot end the program that leads through a host.
    quiet = batch or where.jump is not None or has_own_key(instance)
    done = open_shared(instance, where, path, batch=quiet)
    if done is None or done.returncode == 0:
        return done is not None and path.exists()
    said = done.stderr.decode(errors="replace").strip()
    if str(path) in said or (quiet and DENIED in said):
        return False  # it could not listen; or it has to ask for a password
    raise CommandFailed(said or f"ssh failed with exit code {done.returncode}")


def shared_socket(uri: str, instance: Instance) -> Path | None:
    """Return the socket of a machine's shared connection, open or not; None if it has none.

    It does not depend on the address: the connection has verified the host key.
    """
    key = str(own_key(data_dir())[0]) if _uses_own_key(instance) else ""
    return shared_connection.socket_of(uri, instance, key)


def open_shared(
    instance: Instance,
    where: Endpoint,
    path: Path,
    *,
    batch: bool,
    fresh: bool = False,
    timeout: float | None = None,
) -> process.Completed | None:
    """Log in to a machine and keep the connection open, at *path*; return the result of ssh.

    None if another process is opening it. With *batch*, ssh never prompts. With *fresh*, it logs
    in even if there is a connection. *timeout* is in seconds. Raises CommandFailed if it times out.
    """
    return shared_connection.open_master(
        path,
        master_command(instance, where, path, batch=batch),
        own_session=batch,
        fresh=fresh,
        timeout=timeout,
    )


def master_command(instance: Instance, where: Endpoint, path: Path, *, batch: bool) -> list[str]:
    """Return the command that logs in, goes to the background and shares its connection."""
    told = {
        **machine_options(instance, where, batch=batch),
        "ControlMaster": "yes",
        "ControlPath": options.quoted(path),
        "ControlPersist": str(shared_connection.PERSIST),
        "ForkAfterAuthentication": "yes",
        "SessionType": "none",
    }
    # -f and -N are for OpenSSH before 8.7, which lacks the last two options.
    return ["ssh", "-f", "-N", *options.words(told), where.host]


def restore_forward(machine: Handle, taken: Collection[int] = ()) -> Handle:
    """Restore the forwards of a running machine with user networking; return the updated handle.

    QEMU's forwards end with its process, so a machine started with virsh lacks them. If another
    program uses the port, armvm chooses one that is not in *taken* and records it.
    """
    port = machine.record.forward
    if machine.instance.network is not None or port is None:
        return machine
    given = ensure_forward(machine.domain, port, taken)
    if machine.record.ports:
        forwards.restore(machine.domain, machine.record.ports)
    if given == port:
        return machine
    set_record(machine.domain, replace(observe(machine.domain).record, forward=given))
    return machine.again()


def ssh_command(
    instance: Instance,
    where: Endpoint,
    command: Sequence[str] = (),
    *,
    batch: bool = False,
    terminal: bool = False,
) -> list[str]:
    """Return ssh's argument list for a machine.

    With *batch*, ssh never prompts. With *terminal*, a command gets a terminal, like a login.
    """
    told = machine_options(instance, where, batch=batch)
    if terminal:
        told["RequestTTY"] = "yes"
    return ["ssh", *options.words(told), where.host, *(["--", *command] if command else [])]


def machine_options(instance: Instance, where: Endpoint, *, batch: bool = False) -> dict[str, str]:
    """Return all options for ssh, scp and sftp when armvm runs them."""
    way = "none"
    if where.jump is not None:
        way = options.proxy_command(
            where.jump.through(where.host, where.port, share=where.shared is None)
        )
    told = options.at_address(
        common_options(instance), where.host, where.port, way=way, batch=batch
    )
    if where.shared is not None:
        told["ControlPath"] = options.quoted(where.shared)
    # On the host's loopback, prefer the algorithms that cost an emulated guest least. This saves a
    # fifth of the login time (measured). The others remain available.
    if where.host == LOOPBACK:
        told |= _CHEAP
    return told


def common_options(instance: Instance) -> dict[str, str]:
    """Return the ssh options for a machine that do not depend on the caller or the route."""
    return options.verified(
        user=instance.record.user,
        host_key=instance.record.host_key,
        alias=host_alias(instance),
        known_hosts=write_known_host(instance),
        identity=own_key(data_dir())[0] if _uses_own_key(instance) else None,
    )


def _uses_own_key(instance: Instance) -> bool:
    """Return whether ssh tries armvm's key of this user, and no other."""
    record = instance.record
    return record.own_key and (not record.key or has_own_key(instance))


def has_own_key(instance: Instance) -> bool:
    """Return whether the machine's authorized key is known to be armvm's key of this user."""
    record = instance.record
    return record.own_key and record.key == _plain(own_key(data_dir())[1])


def _plain(public: str) -> str:
    """Return a public key without its comment."""
    return " ".join(public.split()[:2])


def login(
    machine: Handle, command: Sequence[str], *, share: bool = True
) -> tuple[int, str | None, str | None]:
    """Run ssh on the terminal; return its exit code, its message and a hint.

    The message is one that ssh has not printed itself, else None. The hint is None unless no ssh
    server answers. The exit code is 128 + n for signal n, and 255 if ssh itself failed.
    """
    said, where = None, None
    words = [shell_line(" ".join(command))] if command else []
    try:
        with connected(machine, share=share) as where:
            line = ssh_command(machine.instance, where, words)
            code = process.passthrough(line, interruptible=True)
    except CommandFailed as error:
        if where is not None:
            raise
        code, said = FAILED, error.message
        try:
            where = reach(machine.again())
        except ArmvmError as lost:  # it stopped in the meantime, for example
            return code, said, lost.message
    if code == FAILED and not answers(where):
        return code, said, no_answer(machine)
    return code, said, None


def run_in_guest(instance: Instance, where: Endpoint, command: str) -> str | None:
    """Return a command's output; None if it failed or the guest accepts none of our keys."""
    try:
        done = process.run(
            ssh_command(instance, where, [command], batch=True),
            check=False,
            timeout=60,
            most=process.ANSWER,
        )
    except ArmvmError:
        return None
    return done.text if done.returncode == 0 else None
