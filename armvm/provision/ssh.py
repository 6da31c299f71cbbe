"""Reaching a machine by ssh, strict about its host key from the first connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from armvm import process
from armvm.errors import ArmvmError, NotReady
from armvm.guest.credentials import own_key
from armvm.host import lifecycle, ports
from armvm.host.connection import Domain
from armvm.host.forward import ensure_forward
from armvm.host.instance import Instance, observe, set_record
from armvm.host.network import addresses
from armvm.paths import data_dir
from armvm.provision.known_hosts import host_alias, write_known_host

LOOPBACK = "127.0.0.1"
#: The exit code of ssh that says that it failed itself (ssh(1), EXIT STATUS), or the command did.
FAILED = 255
_CHEAP = ["KexAlgorithms=^curve25519-sha256", "Ciphers=^aes128-gcm@openssh.com"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a machine's ssh server is reached from the libvirt host."""

    host: str
    port: int


def endpoint(domain: Domain, instance: Instance) -> Endpoint | None:
    """Return where to reach a machine's ssh; None while it has no address."""
    if instance.network is None and instance.record.forward is not None:
        return Endpoint(host=LOOPBACK, port=instance.record.forward)
    found = addresses(domain)
    return Endpoint(host=found[0], port=22) if found else None


def reach(domain: Domain, instance: Instance) -> Endpoint:
    """Return where to reach a running machine's ssh, its forward set up if it was lost.

    Raises DomainError when the machine does not run or is suspended, NotReady while it has no
    address.
    """
    if not instance.running:
        raise lifecycle.not_running(instance.name)
    if instance.suspended:  # or ssh would wait for as long as it is
        raise lifecycle.suspended(instance.name)
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
    options = [
        *host_key_options(instance),
        "LogLevel=ERROR",
        # On this host's loopback, what costs an emulated guest the least goes first: a fifth of
        # the login's time (measured). The others stay on offer.
        *(_CHEAP if where.host == LOOPBACK else []),
        *(["BatchMode=yes", "ConnectTimeout=15"] if batch else []),
    ]
    return [
        *(word for option in options for word in ("-o", option)),
        *(["-i", str(own_key(data_dir())[0])] if instance.record.own_key else []),
    ]


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

    With it comes what to do next, where no ssh server speaks at the machine's address.
    """
    where = reach(domain, instance)
    code = process.passthrough(ssh_command(instance, where, command))
    if code == FAILED:
        from armvm.guest.ready import answers_ssh

        if not answers_ssh(where.host, where.port):
            return code, f"armvm wait {instance.name}   waits until it can be logged in to"
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
