"""Mount a directory of the host permanently: attach the device, and mount it in the guest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
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
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.base.result import Doc, MachineName
from armvm.base.signals import shielded
from armvm.guest.agents import mount_script
from armvm.host.agent import agent
from armvm.host.connection import Connection, is_local, is_session, uri_of
from armvm.host.domain import shared_directories as host_shares
from armvm.host.domain.handle import Handle
from armvm.host.domain.idmap import IdMap, id_map
from armvm.host.domain.instance import Instance
from armvm.host.domain.shared_directories import Share
from armvm.provision.manage import machines
from armvm.settings.names import shown
from armvm.settings.user_path import absolute, given_path

#: Timeouts under KVM, in seconds: mounting in the guest, and booting after a restart.
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
    """Return machine and guest directory of ``NAME:DIR``. Raises UsageError, ConfigError."""
    name, colon, target = text.partition(":")
    if not colon or not name or "/" in name:
        raise UsageError(
            f"invalid place {shown(text)}", hint="use NAME:DIR, for example web:/mnt/src"
        )
    return name, mount_script.check_target(target)


def wanted_share(
    connection: Connection, source: str, target: str, *, tag: str | None, read_only: bool
) -> Share:
    """Return the requested share. Raises NotFound for a missing directory, ConfigError."""
    path = source
    if is_local(uri_of(connection)):
        path = str(absolute(given_path(source, "directory")).resolve())
        if not Path(path).is_dir():
            raise NotFound(f"directory {shown(source)} not found")
    elif not path.startswith("/"):
        raise UsageError(
            "a directory on a remote libvirt host requires an absolute path",
            hint="armvm mounts a directory of the libvirt host, not of this one",
        )
    if not path.isprintable():
        raise UsageError(f"{shown(path)} cannot be mounted: its path has unprintable characters")
    named = tag or f"armvm-{hashlib.sha256(target.encode()).hexdigest()[:12]}"
    return Share(source=path, target=target, tag=mount_script.check_tag(named), read_only=read_only)


def mount(
    machine: Handle,
    share: Share,
    *,
    restart: bool,
    allow_root: bool,
    progress: Progress,
) -> bool:
    """Mount a host's directory in a running machine; return whether that took a restart.

    Raises Conflict if the guest directory or the tag is in use, DomainError if a restart is
    required but not allowed, MissingCapability if host or guest does not support virtiofs, or if
    the guest's root would act as the host's root without *allow_root*. Undoes itself on failure.
    """
    for one in host_shares.shares(machine.domain):
        if one.target == share.target:
            raise Conflict(
                f"{one.source} is already mounted at {share.target} in {machine.name}",
                hint=f"unmount it first: armvm umount {machine.name}:{one.target}",
            )
    if share.tag in host_shares.tags(machine.domain, live=False):
        raise Conflict(
            f"tag {share.tag} of {machine.name} already exists",
            hint="choose another one with --tag",
        )
    host_shares.check(machine.connection)
    mapped = _is_mapped(machine.connection, machine.instance, allow_root)
    agent.ensure_answers(machine.domain)
    if mapped:
        share = replace(share, ids=_ids(machine))
    shared = host_shares.has_shared_memory(machine.domain)
    if not (shared and host_shares.has_free_port(machine.domain)):
        if not restart:
            why = "its PCIe ports are in use" if shared else "its memory is not shared memory"
            raise DomainError(
                f"{machine.name} requires a restart to mount a directory: {why}",
                hint="restart it now with --restart; later mounts work while it runs",
            )
        _mount_by_restart(machine, share, progress)
        return True
    with shielded():
        host_shares.attach(machine.domain, share)
    try:
        _in_guest(machine, _adding(share))
    except BaseException:
        with shielded():
            host_shares.detach(machine.domain, share)
        raise
    return False


def _is_mapped(connection: Connection, instance: Instance, allow_root: bool) -> bool:
    """Return whether to map the guest's users to other users of this host.

    virtiofsd only maps users when an ordinary user starts it: "uid_map can only be used by
    unprivileged user" (virtiofsd 1.13 and 1.14), and libvirt offers no alternative (12.8). Raises
    MissingCapability if root starts it and *allow_root* is false.
    """
    uri = uri_of(connection)
    if is_session(uri):
        # On another host, the libvirt there maps the users.
        if not is_local(uri) or os.geteuid() != 0:
            return is_local(uri)
        where = "root's session"
    else:
        where = uri
    if not allow_root:
        raise MissingCapability(
            f"root in {instance.name} would have root's access to this directory of the host, and "
            "could create setuid programs of root there",
            detail=f"in {where} virtiofsd runs as root and does not map users",
            hint="mount it anyway with --allow-root; or use qemu:///session (libvirt 10), where "
            "nobody in the guest is root on the host; or copy files with: armvm cp -r",
        )
    return False


def _ids(machine: Handle) -> IdMap:
    """Return the id map that makes the machine's user the user who runs armvm.

    Raises MissingCapability, CommandFailed.
    """
    words = ["/bin/sh", "-c", 'id -u "$0" && id -g "$0"', machine.record.user]
    told = agent.output(machine.domain, words).split()
    if len(told) != 2 or not all(re.fullmatch("[0-9]{1,10}", one) for one in told):
        raise CommandFailed(f"user {machine.record.user} not found in {machine.name}")
    return id_map(pwd.getpwuid(os.getuid()), *map(int, told))


def umount(machine: Handle, target: str, progress: Progress) -> Share:
    """Unmount a directory in a machine, detach its device, and return the share.

    Raises NotFound, Conflict if the guest uses it.
    """
    found = [one for one in host_shares.shares(machine.domain) if one.target == target]
    if not found:
        raise NotFound(
            f"mount {shown(target)} not found in {machine.name}",
            hint=f"list its mounts: armvm mount --list {machine.name}",
        )
    share = found[0]
    if machine.running:
        agent.ensure_answers(machine.domain)
        _in_guest(machine, mount_script.remove(share.tag, share.target))
    else:
        progress.say("the machine is off, so its /etc/fstab keeps the line, which is harmless")
    with shielded():
        gone = host_shares.detach(machine.domain, share)
    if not gone:
        progress.warn("unmounted; the guest keeps the device until it is stopped")
    return share


def listed(machines_: Sequence[Handle]) -> list[MountedDirectory]:
    """Return all shares of some machines."""
    rows = []
    for machine in machines_:
        live = host_shares.tags(machine.domain, live=True) if machine.running else set()
        for one in host_shares.shares(machine.domain):
            rows.append(describe(machine.instance, one, attached=one.tag in live))
    return rows


def describe(instance: Instance, share: Share, *, attached: bool) -> MountedDirectory:
    """Return the facts about a share; *attached*: the running machine has the device."""
    return MountedDirectory(
        machine=instance.name,
        source=share.source,
        target=share.target,
        tag=share.tag,
        read_only=share.read_only,
        attached=attached,
    )


def _mount_by_restart(machine: Handle, share: Share, progress: Progress) -> None:
    """Restart a machine with the share, then mount it; the guest is not changed before that.

    On any error, the machine runs again without the share.
    """
    _in_guest(machine, mount_script.possible(share.target))
    before: str | None = None
    try:
        with progress.task(f"stopping {machine.name}"):
            machines.stop(machine, force=False, timeout=None)
        with shielded():
            before = host_shares.define(machine.connection, machine.domain, share)
        machines.start(machine.again(), progress)
        with progress.task(f"starting {machine.name}"):
            _until_it_answers(machine)
        _in_guest(machine, _adding(share))
    except BaseException:
        with shielded():
            _put_back(machine, share, before, progress)
        raise


def _put_back(machine: Handle, share: Share, before: str | None, progress: Progress) -> None:
    """Make a machine run without the share; try each step even if an earlier one fails."""
    if before is not None:
        with contextlib.suppress(ArmvmError):
            host_shares.detach(machine.domain, share)
        with contextlib.suppress(ArmvmError):
            host_shares.restore(machine.connection, before)
    try:
        now = machine.again()
        if not now.running:
            machines.start(now, progress)
    except ArmvmError as error:
        progress.warn(f"{machine.name} is off now; cannot start it: {error.message}")


def _until_it_answers(machine: Handle) -> None:
    """Wait until a booting guest's agent answers. Raises CommandFailed, DomainError."""

    def answers() -> bool:
        if not machine.again().running:
            raise DomainError(f"{machine.name} stopped while armvm waited for its guest agent")
        with contextlib.suppress(DomainError):
            return agent.connected(machine.domain) and agent.succeeds(machine.domain, ["/bin/true"])
        return False

    until(
        answers,
        timeout=BOOT_TIMEOUT * machine.patience,
        interval=2,
        late=lambda: CommandFailed(
            f"timed out after {BOOT_TIMEOUT * machine.patience:.0f} s: {machine.name} did not boot",
            hint=f"see its log: armvm logs {machine.name}",
        ),
    )


def _adding(share: Share) -> bytes:
    return mount_script.add(share.tag, share.target, read_only=share.read_only)


def _in_guest(machine: Handle, script: bytes) -> None:
    """Run a mount script in the guest. Raises MissingCapability, Conflict, CommandFailed."""
    pid = agent.start_process(machine.domain, ["/bin/sh"], stdin=script)
    code = until(
        lambda: agent.ended(machine.domain, pid),
        timeout=GUEST_TIMEOUT * machine.patience,
        interval=agent.POLL,
        late=lambda: CommandFailed(
            f"timed out after {GUEST_TIMEOUT * machine.patience:.0f} s: mounting in {machine.name}"
        ),
    )
    if code == mount_script.NO_VIRTIOFS:
        raise MissingCapability(
            f"the kernel of {machine.name} does not support virtiofs",
            hint="copy files with: armvm cp -r",
        )
    if code == mount_script.TAKEN:
        raise Conflict(f"another file system is mounted there in {machine.name}")
    if code == mount_script.BUSY:
        raise Conflict(
            f"the directory is in use in {machine.name}",
            hint=f"show its users: armvm exec {machine.name} -- fuser -vm DIR",
        )
    if code != 0:
        raise CommandFailed(
            f"cannot change the mounts in {machine.name}",
            detail=f"the shell there failed with exit code {code}",
            hint=f"see its journal: armvm exec {machine.name} -- journalctl -n 20",
        )
