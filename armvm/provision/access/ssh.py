"""Reaching a machine by ssh, strict about its host key from the first connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from armvm.base import process
from armvm.base.errors import ArmvmError, NotReady
from armvm.base.paths import data_dir
from armvm.guest.agents.ssh_script import shell_line
from armvm.guest.cloudinit.credentials import own_key
from armvm.host.connection import is_local, suspended
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance, set_record
from armvm.host.network import forwards
from armvm.host.network.networks import addresses
from armvm.host.network.ssh_forward import ensure_forward
from armvm.provision.access import ssh_options as options
from armvm.provision.access.jump import Jump, jump_of, need_way, other_way, trouble
from armvm.provision.machine.known_hosts import host_alias, write_known_host

LOOPBACK = "127.0.0.1"
#: The exit code of ssh that says that it failed itself (ssh(1), EXIT STATUS), or the command did.
FAILED = 255
#: Seconds that a look through a jump may take, with the connection to the host.
PROBE_TIMEOUT = 20.0
_CHEAP = {"KexAlgorithms": "^curve25519-sha256", "Ciphers": "^aes128-gcm@openssh.com"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a machine's ssh server is: an address of the libvirt host's network, and the way there.

    ``jump`` is None where this host reaches it directly.
    """

    host: str
    port: int
    jump: Jump | None = None

    @property
    def via(self) -> str | None:
        """The host through which it is reached, by name; None for none."""
        return None if self.jump is None else self.jump.host

    def __str__(self) -> str:
        way = f" via {self.via}" if self.via else ""
        return f"{self.host}:{self.port}{way}"


def endpoint(machine: Handle) -> Endpoint | None:
    """Return where to reach a machine's ssh; None while it has no address, or where no way leads.

    The latter is so for user networking where libvirt is remote, and not reached by ssh.
    """
    uri = machine.uri
    jump = jump_of(uri)
    if machine.instance.network is None and machine.record.forward is not None:
        if jump is None and not is_local(uri):
            return None
        return Endpoint(host=LOOPBACK, port=machine.record.forward, jump=jump)
    found = addresses(machine.domain)
    return Endpoint(host=found[0], port=22, jump=jump) if found else None


def answers(where: Endpoint) -> bool:
    """Tell whether an ssh server speaks at a machine's address."""
    from armvm.guest.boot.ready import answers_ssh, is_banner  # a login needs none of it

    if where.jump is None:
        return answers_ssh(where.host, where.port)
    try:
        command = where.jump.through(where.host, where.port)
        done = process.run(command, check=False, timeout=PROBE_TIMEOUT)
    except ArmvmError:
        return False
    return is_banner(done.stdout)


def assert_has_way(machine: Handle) -> None:
    """Raise MissingCapability where no way leads to a machine's ssh from here."""
    if machine.instance.network is None:
        need_way(machine.uri, machine.name)


def no_answer(machine: Handle) -> str:
    """Return what to do where no ssh server speaks at a machine's address."""
    uri = machine.uri
    jump = jump_of(uri)
    wrong = None if jump is None else trouble(jump)
    if jump is not None and wrong is not None:
        return f"armvm connects through {jump.host}: {wrong}"
    return other_way(uri) or f"wait until it is ready: armvm wait {machine.name}"


def reach(machine: Handle) -> Endpoint:
    """Return where to reach a running machine's ssh, its forward set up if it was lost.

    Raises DomainError when the machine does not run or is suspended, NotReady while it has no
    address, MissingCapability where no way leads there.
    """
    machine.require_running()
    if machine.instance.suspended:  # or ssh would wait for as long as it is
        raise suspended(machine.name)
    assert_has_way(machine)
    found = endpoint(restore_forward(machine))
    if found is None:
        raise NotReady(
            f"{machine.name} has no address yet",
            hint=f"wait until it is ready: armvm wait {machine.name}",
        )
    return found


def restore_forward(machine: Handle, taken: Collection[int] = ()) -> Handle:
    """Give a running machine with user networking its way in, and return it as it is then.

    QEMU forgets the forward when it ends: a machine started by virsh has none yet. The port
    changes, and is remembered, when another program has taken it; *taken* ones are not chosen.
    """
    port = machine.record.forward
    if machine.instance.network is not None or port is None:
        return machine
    given = ensure_forward(machine.domain, port, taken)
    if machine.record.ports:
        forwards.restore(machine.domain, machine.record.ports)
    if given == port:
        return machine
    set_record(machine.domain, replace(machine.record, forward=given))
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

    *batch* never asks for anything; *terminal* gives a command one, as a login has.
    """
    told = machine_options(instance, where, batch=batch)
    if terminal:
        told["RequestTTY"] = "yes"
    return ["ssh", *options.words(told), where.host, *(["--", *command] if command else [])]


def machine_options(instance: Instance, where: Endpoint, *, batch: bool = False) -> dict[str, str]:
    """Return what ssh and its kin are told where armvm runs them: all that they need."""
    way = "none"
    if where.jump is not None:
        way = options.proxy_command(where.jump.through(where.host, where.port))
    told = {
        **common_options(instance),
        **options.OWN,
        "HostName": where.host.replace("%", "%%"),
        "Port": str(where.port),
        "ProxyCommand": way,
        "BindAddress": "::" if ":" in where.host else "0.0.0.0",  # noqa: S104 - a client's: any
        "BatchMode": "yes" if batch else "no",
    }
    # On the host's loopback, what costs an emulated guest the least goes first: a fifth of the
    # login's time (measured). The others stay on offer.
    if where.host == LOOPBACK:
        told |= _CHEAP
    if batch:
        told["PreferredAuthentications"] = "publickey"
    if "IdentityFile" in told:
        # An agent's keys that the user's files name would be tried before armvm's.
        told["IdentityAgent"] = "none"
    return told


def common_options(instance: Instance) -> dict[str, str]:
    """Return what ssh is told of a machine, whoever runs it and by which way."""
    kind = instance.record.host_key.partition(" ")[0]
    told = {
        **options.MACHINE,
        "User": instance.record.user,
        "UserKnownHostsFile": options.quoted(write_known_host(instance)),
        "HostKeyAlias": host_alias(instance),
        **({"HostKeyAlgorithms": kind} if kind else {}),
    }
    if instance.record.own_key:
        private, public = own_key(data_dir())
        if instance.record.key in ("", _plain(public)):
            told |= {**options.OWN_KEY, "IdentityFile": options.quoted(private)}
    return told


def has_own_key(instance: Instance) -> bool:
    """Tell whether this user's armvm is known to have the key that may log in to a machine."""
    record = instance.record
    return record.own_key and record.key == _plain(own_key(data_dir())[1])


def _plain(public: str) -> str:
    """Return a public key without its comment."""
    return " ".join(public.split()[:2])


def login(machine: Handle, command: Sequence[str]) -> tuple[int, str | None]:
    """Run ssh on the caller's terminal; return its exit code (255: ssh itself failed).

    A command that signal n ended gives 128 + n.
    With it comes what to do next, where no ssh server speaks at the machine's address.
    """
    where = reach(machine)
    words = [shell_line(" ".join(command))] if command else []
    code = process.passthrough(ssh_command(machine.instance, where, words), interruptible=True)
    if code == FAILED and not answers(where):
        return code, no_answer(machine)
    return code, None


def run_in_guest(instance: Instance, where: Endpoint, command: str) -> str | None:
    """Return a command's output; None when it failed, or when no key of ours is let in."""
    try:
        done = process.run(
            ssh_command(instance, where, [command], batch=True), check=False, timeout=60
        )
    except ArmvmError:
        return None
    return done.text if done.returncode == 0 else None
