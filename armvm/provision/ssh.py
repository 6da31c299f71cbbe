"""Reaching a machine by ssh, strict about its host key from the first connection."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from armvm import process
from armvm.errors import ArmvmError, NotReady
from armvm.guest.credentials import own_key
from armvm.guest.ssh_script import shell_line
from armvm.host import lifecycle, ports
from armvm.host.connection import Domain, is_local, uri_of
from armvm.host.forward import ensure_forward
from armvm.host.instance import Instance, observe, set_record
from armvm.host.network import addresses
from armvm.paths import data_dir
from armvm.provision.jump import Jump, jump_of, need_way, other_way, trouble
from armvm.provision.known_hosts import host_alias, write_known_host

LOOPBACK = "127.0.0.1"
#: The exit code of ssh that says that it failed itself (ssh(1), EXIT STATUS), or the command did.
FAILED = 255
#: Seconds that a look through a jump may take, with the connection to the host.
PROBE_TIMEOUT = 20.0
_CHEAP = ["KexAlgorithms=^curve25519-sha256", "Ciphers=^aes128-gcm@openssh.com"]


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


def endpoint(domain: Domain, instance: Instance) -> Endpoint | None:
    """Return where to reach a machine's ssh; None while it has no address, or where no way leads.

    The latter is so for user networking where libvirt is remote, and not reached by ssh.
    """
    uri = uri_of(domain.connect())
    jump = jump_of(uri)
    if instance.network is None and instance.record.forward is not None:
        if jump is None and not is_local(uri):
            return None
        return Endpoint(host=LOOPBACK, port=instance.record.forward, jump=jump)
    found = addresses(domain)
    return Endpoint(host=found[0], port=22, jump=jump) if found else None


def answers(where: Endpoint) -> bool:
    """Tell whether an ssh server speaks at a machine's address."""
    from armvm.guest.ready import answers_ssh, is_banner  # a login needs none of it

    if where.jump is None:
        return answers_ssh(where.host, where.port)
    try:
        command = where.jump.through(where.host, where.port)
        done = process.run(command, check=False, timeout=PROBE_TIMEOUT)
    except ArmvmError:
        return False
    return is_banner(done.stdout)


def assert_has_way(domain: Domain, instance: Instance) -> None:
    """Raise MissingCapability where no way leads to a machine's ssh from here."""
    if instance.network is None:
        need_way(uri_of(domain.connect()), instance.name)


def no_answer(domain: Domain, instance: Instance) -> str:
    """Return what to do where no ssh server speaks at a machine's address."""
    uri = uri_of(domain.connect())
    jump = jump_of(uri)
    wrong = None if jump is None else trouble(jump)
    if jump is not None and wrong is not None:
        return f"it is reached through {jump.host}: {wrong}"
    return other_way(uri) or f"armvm wait {instance.name}   waits until it can be logged in to"


def reach(domain: Domain, instance: Instance) -> Endpoint:
    """Return where to reach a running machine's ssh, its forward set up if it was lost.

    Raises DomainError when the machine does not run or is suspended, NotReady while it has no
    address, MissingCapability where no way leads there.
    """
    if not instance.running:
        raise lifecycle.not_running(instance.name)
    if instance.suspended:  # or ssh would wait for as long as it is
        raise lifecycle.suspended(instance.name)
    assert_has_way(domain, instance)
    found = endpoint(domain, restore_forward(domain, instance))
    if found is None:
        raise NotReady(
            f"{instance.name} has no address yet",
            hint=f"armvm wait {instance.name}   waits until it can be logged in to",
        )
    return found


def restore_forward(domain: Domain, instance: Instance, taken: Collection[int] = ()) -> Instance:
    """Give a running machine with user networking its way in, and return it as it is then.

    QEMU forgets the forward when it ends: a machine started by virsh has none yet. The port
    changes, and is remembered, when another program has taken it; *taken* ones are not chosen.
    """
    port = instance.record.forward
    if instance.network is not None or port is None:
        return instance
    given = ensure_forward(domain, port, taken)
    if instance.record.ports:
        ports.restore(domain, instance.record.ports)
    if given == port:
        return instance
    set_record(domain, replace(instance.record, forward=given))
    return observe(domain)


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
    return [
        "ssh",
        *(["-t"] if terminal else []),
        *ssh_options(instance, where, batch=batch),
        "-p",
        str(where.port),
        "-l",
        instance.record.user,
        where.host,
        *(["--", *command] if command else []),
    ]


def ssh_options(instance: Instance, where: Endpoint, *, batch: bool = False) -> list[str]:
    """Return what ssh and its kin are told of a machine besides address, port and user."""
    through = where.jump.through(where.host, where.port) if where.jump else None
    options = [
        *host_key_options(instance),
        "LogLevel=ERROR",
        # On the host's loopback, what costs an emulated guest the least goes first: a fifth of
        # the login's time (measured). The others stay on offer.
        *(_CHEAP if where.host == LOOPBACK else []),
        # Through a jump, the time until the guest's banner counts: emulated and busy, it is late.
        *(["BatchMode=yes", "ConnectTimeout=60"] if batch else []),
        *([f"ProxyCommand={proxy_command(through)}"] if through else []),
    ]
    return [
        *(word for option in options for word in ("-o", option)),
        *(["-i", str(own_key(data_dir())[0])] if instance.record.own_key else []),
    ]


def proxy_command(words: Sequence[str]) -> str:
    """Return a command as ssh's ProxyCommand takes it, which hands it to the user's shell.

    Backslashes, no quotes: ssh counts quotes by rules of its own before (OpenSSH's argv_split).
    """
    line = " ".join(re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", word) or "''" for word in words)
    return line.replace("%", "%%")  # one begins a word of ssh's own


def host_key_options(instance: Instance) -> list[str]:
    """Return the options that let no host key pass but the machine's own."""
    return [
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={write_known_host(instance)}",
        "GlobalKnownHostsFile=/dev/null",
        f"HostKeyAlias={host_alias(instance)}",
        "UpdateHostKeys=no",
    ]


def login(domain: Domain, instance: Instance, command: Sequence[str]) -> tuple[int, str | None]:
    """Run ssh on the caller's terminal; return its exit code (255: ssh itself failed).

    A command that signal n ended gives 128 + n.
    With it comes what to do next, where no ssh server speaks at the machine's address.
    """
    where = reach(domain, instance)
    words = [shell_line(" ".join(command))] if command else []
    code = process.passthrough(ssh_command(instance, where, words), interruptible=True)
    if code == FAILED and not answers(where):
        return code, no_answer(domain, instance)
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
