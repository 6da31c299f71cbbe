"""Mounting a directory of the host in a machine, for good: the device, and the guest's part."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base.errors import (
    ArmvmError,
    CommandFailed,
    Conflict,
    DomainError,
    MissingCapability,
    NotFound,
    UsageError,
)
from armvm.base.progress import Progress
from armvm.base.result import Doc, MachineName
from armvm.base.signals import shielded
from armvm.guest.agents import mount_script
from armvm.host.agent import agent
from armvm.host.connection import Connection, Domain, is_local, is_session, uri_of
from armvm.host.domain import shared_directories as host_shares
from armvm.host.domain.idmap import IdMap, id_map
from armvm.host.domain.instance import Instance, observe
from armvm.host.domain.shared_directories import Share
from armvm.host.facts import Accelerator
from armvm.provision.manage import machines
from armvm.settings.names import shown
from armvm.settings.user_path import given_path

#: Seconds that the guest's part may take under KVM, and the boot of a restart.
GUEST_TIMEOUT, BOOT_TIMEOUT = 30.0, 120.0


@dataclass(frozen=True, kw_only=True)
class MountedDirectory:
    """A directory of the host in a machine."""

    machine: Annotated[MachineName, Doc("The machine.")]
    source: Annotated[str, Doc("The directory on the libvirt host.")]
    target: Annotated[str, Doc("The directory in the guest.")]
    tag: Annotated[
        str,
        Doc("Its virtiofs tag in the guest.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,34}$"),
    ]
    read_only: Annotated[bool, Doc("Whether the guest mounts it read-only.")]
    attached: Annotated[bool, Doc("Whether the running machine has the device.")]


def read_place(text: str) -> tuple[str, str]:
    """Return machine and guest directory of ``NAME:GUESTDIR``. Raises UsageError, ConfigError."""
    name, colon, target = text.partition(":")
    if not colon or not name or "/" in name:
        raise UsageError(f"{shown(text)} names no directory in a machine", hint="NAME:/mnt/src")
    return name, mount_script.check_target(target)


def wanted_share(
    connection: Connection, source: str, target: str, *, tag: str | None, read_only: bool
) -> Share:
    """Return the share asked for. Raises NotFound where there is no such directory, ConfigError."""
    path = source
    if is_local(uri_of(connection)):
        path = str(given_path(source, "directory").resolve())
        if not Path(path).is_dir():
            raise NotFound(f"there is no directory {shown(source)}")
    elif not path.startswith("/"):
        raise UsageError(
            "a directory of another host needs its whole path",
            hint="the directory is the libvirt host's, not this one's",
        )
    if not path.isprintable():
        raise UsageError(f"a directory called {shown(path)} cannot be shared")
    named = tag or f"armvm-{hashlib.sha256(target.encode()).hexdigest()[:12]}"
    return Share(source=path, target=target, tag=mount_script.check_tag(named), read_only=read_only)


def mount(
    connection: Connection,
    domain: Domain,
    instance: Instance,
    share: Share,
    *,
    restart: bool,
    allow_root: bool,
    progress: Progress,
) -> bool:
    """Have a host's directory mounted in a running machine; tell whether it was restarted.

    Raises Conflict when the place or the tag is taken, DomainError when a restart is needed and
    not allowed, MissingCapability when host or guest has no virtiofs, or when the guest's root
    would be the host's and *allow_root* does not say that it may. Undoes itself on failure.
    """
    for one in host_shares.shares(domain):
        if one.target == share.target:
            raise Conflict(
                f"{share.target} in {instance.name} is {one.source} already",
                hint=f"armvm umount {instance.name}:{one.target}",
            )
    if share.tag in host_shares.tags(domain, live=False):
        raise Conflict(f"{instance.name} has a share with the tag {share.tag}", hint="--tag")
    host_shares.check(connection)
    mapped = _is_mapped(connection, instance, allow_root)
    agent.ensure_answers(domain)
    if mapped:
        share = replace(share, ids=_ids(domain, instance))
    shared = host_shares.has_shared_memory(domain)
    if not (shared and host_shares.has_free_port(domain)):
        if not restart:
            why = "it has no port free" if shared else "its memory is not shared with the host"
            raise DomainError(
                f"{instance.name} has to be restarted once: {why}",
                hint="--restart does it now; after that, directories come and go while it runs",
            )
        _mount_by_restart(connection, domain, instance, share, progress)
        return True
    with shielded():
        host_shares.attach(domain, share)
    try:
        _in_guest(instance, domain, _adding(share))
    except BaseException:
        with shielded():
            host_shares.detach(domain, share)
        raise
    return False


def _is_mapped(connection: Connection, instance: Instance, allow_root: bool) -> bool:
    """Tell whether the guest's users are to be mapped to others of this host.

    virtiofsd does it where an ordinary user starts it: "uid_map can only be used by unprivileged
    user" (virtiofsd 1.13 and 1.14), and libvirt has no other way to ask for it (12.8). Raises
    MissingCapability where root starts it, and that is not allowed.
    """
    uri = uri_of(connection)
    if is_session(uri):
        # Another host's user is mapped by the libvirt there.
        if not is_local(uri) or os.geteuid() != 0:
            return is_local(uri)
        where = "a session of root's"
    else:
        where = uri
    if not allow_root:
        raise MissingCapability(
            f"root in {instance.name} would be root in this directory of the host: what it writes "
            "there is the host's root's, setuid programs too",
            detail=f"in {where} virtiofsd runs as root, and maps no users",
            hint="--allow-root mounts it all the same; in qemu:///session (libvirt 10) nobody in "
            "the guest is root here; 'armvm cp -r' copies",
        )
    return False


def _ids(domain: Domain, instance: Instance) -> IdMap:
    """Return the map in which a machine's user is who runs armvm.

    Raises MissingCapability, CommandFailed.
    """
    words = ["/bin/sh", "-c", 'id -u "$0" && id -g "$0"', instance.record.user]
    told = agent.output(domain, words).split()
    if len(told) != 2 or not all(one.isdecimal() for one in told):
        raise CommandFailed(f"{instance.name} does not know its user {instance.record.user}")
    return id_map(pwd.getpwuid(os.getuid()), *map(int, told))


def umount(domain: Domain, instance: Instance, target: str, progress: Progress) -> Share:
    """Unmount a directory in a machine and take it away, and return what it was.

    Raises NotFound, Conflict when it is in use in the guest.
    """
    found = [one for one in host_shares.shares(domain) if one.target == target]
    if not found:
        raise NotFound(
            f"{instance.name} has no directory of the host at {shown(target)}",
            hint=f"armvm mount --list {instance.name}",
        )
    share = found[0]
    if instance.running:
        agent.ensure_answers(domain)
        _in_guest(instance, domain, mount_script.remove(share.tag, share.target))
    else:
        progress.say("it is off: its /etc/fstab keeps a line, which does no harm")
    with shielded():
        gone = host_shares.detach(domain, share)
    if not gone:
        progress.warn("it is unmounted; the guest lets go of the device when it is off")
    return share


def listed(machines_: Sequence[tuple[Domain, Instance]]) -> list[MountedDirectory]:
    """Return all shares of some machines."""
    rows = []
    for domain, instance in machines_:
        live = host_shares.tags(domain, live=True) if instance.running else set()
        for one in host_shares.shares(domain):
            rows.append(describe(instance, one, attached=one.tag in live))
    return rows


def describe(instance: Instance, share: Share, *, attached: bool) -> MountedDirectory:
    """Return what is known about a share; *attached*: the running machine has it."""
    return MountedDirectory(
        machine=instance.name,
        source=share.source,
        target=share.target,
        tag=share.tag,
        read_only=share.read_only,
        attached=attached,
    )


def _mount_by_restart(
    connection: Connection, domain: Domain, instance: Instance, share: Share, progress: Progress
) -> None:
    """Restart a machine with the share, and mount it then; before that, the guest is not changed.

    Whatever goes wrong, the machine runs in the end without the share.
    """
    _in_guest(instance, domain, mount_script.possible(share.target))
    before: str | None = None
    try:
        with progress.task(f"stopping {instance.name}"):
            machines.stop(domain, instance, force=False, timeout=None)
        with shielded():
            before = host_shares.define(connection, domain, share)
        machines.start(connection, domain, observe(domain), progress)
        with progress.task(f"starting {instance.name}"):
            _until_it_answers(domain, instance)
        _in_guest(instance, domain, _adding(share))
    except BaseException:
        with shielded():
            _put_back(connection, domain, share, before, progress)
        raise


def _put_back(
    connection: Connection, domain: Domain, share: Share, before: str | None, progress: Progress
) -> None:
    """Have a machine run without the share; each step is tried, whatever came of the one before."""
    if before is not None:
        with contextlib.suppress(ArmvmError):
            host_shares.detach(domain, share)
        with contextlib.suppress(ArmvmError):
            host_shares.restore(connection, before)
    try:
        instance = observe(domain)
        if not instance.running:
            machines.start(connection, domain, instance, progress)
    except ArmvmError as error:
        progress.warn(f"{domain.name()} is off now, and could not be started: {error.message}")


def _until_it_answers(domain: Domain, instance: Instance) -> None:
    """Wait until a booting guest's agent answers. Raises CommandFailed, DomainError."""
    patience = Accelerator(instance.accelerator).patience
    end = time.monotonic() + BOOT_TIMEOUT * patience
    while time.monotonic() < end:
        if not observe(domain).running:
            raise DomainError(f"{instance.name} stopped while it was waited for")
        with contextlib.suppress(DomainError):
            if agent.connected(domain) and agent.succeeds(domain, ["/bin/true"]):
                return
        time.sleep(2)
    raise CommandFailed(
        f"{instance.name} does not come up again",
        hint=f"armvm logs {instance.name}   says how far it came",
    )


def _adding(share: Share) -> bytes:
    return mount_script.add(share.tag, share.target, read_only=share.read_only)


def _in_guest(instance: Instance, domain: Domain, script: bytes) -> None:
    """Run the guest's part. Raises MissingCapability, Conflict, CommandFailed."""
    pid = agent.start_process(domain, ["/bin/sh"], stdin=script)
    end = time.monotonic() + GUEST_TIMEOUT * Accelerator(instance.accelerator).patience
    while (code := agent.ended(domain, pid)) is None:
        if time.monotonic() > end:
            raise CommandFailed(f"{instance.name} does not come to an end with mounting")
        time.sleep(agent.POLL)
    if code == mount_script.NO_VIRTIOFS:
        raise MissingCapability(
            f"the kernel of {instance.name} has no virtiofs", hint="'armvm cp -r' copies"
        )
    if code == mount_script.TAKEN:
        raise Conflict(f"something else is mounted there in {instance.name}")
    if code == mount_script.BUSY:
        raise Conflict(
            f"{instance.name} uses the directory",
            hint=f"armvm exec {instance.name} -- fuser -vm DIR   says who",
        )
    if code != 0:
        raise CommandFailed(
            f"{instance.name} could not change its mounts",
            detail=f"the shell in it ended with {code}",
            hint=f"armvm exec {instance.name} -- journalctl -n 20",
        )
