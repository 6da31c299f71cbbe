"""Check a host: each requirement, whether it is met, and the command that fixes it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base import programs
from armvm.base.errors import ArmvmError, HostError
from armvm.base.result import Doc
from armvm.host import confinement, facts, systemd_units
from armvm.host import connection as connecting
from armvm.host.domain import shared_directories
from armvm.host.facts import HostFacts
from armvm.host.network import networks, own_network
from armvm.host.storage import pools
from armvm.provision.access.jump import host_of, jump_of, other_way, trouble
from armvm.provision.connect import pool_name
from armvm.provision.inspect.config import POOL_VARIABLE
from armvm.usermode.binfmt import aarch64

#: The search path of a daemon that the system started, which differs from a user's shell.
_SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"

#: Programs that only `armvm image build` needs.
_BUILD_PROGRAMS = ("mmdebstrap", "mke2fs", "mcopy", "sfdisk", "zstd")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A requirement of armvm, checked on this host."""

    name: Annotated[str, Doc("The requirement.")]
    ok: Annotated[bool, Doc("Whether it is met.")]
    needed: Annotated[bool, Doc("false: only one feature needs it.")]
    found: Annotated[str, Doc("What was found.")]
    fix: Annotated[str | None, Doc("The command that fixes it.")] = None


def diagnose(uri: str | None, pool: str | None = None) -> list[Check]:
    """Run all checks and return their results; a failed check does not raise an error.

    *pool* is the storage pool for machines. Raises ConfigError for an invalid name.
    """
    name = pool_name(pool)
    wanted = uri or connecting.default_uri(os.environ)[0]
    checks = list(_way(wanted))
    try:
        if not all(check.ok for check in checks):
            # libvirt would wait for a minute.
            raise HostError(
                "not checked: ssh to the host failed", hint="fix ssh, then run armvm doctor again"
            )
        connection = connecting.connect(uri)
    except ArmvmError as error:
        checks.append(_failed("libvirt", error, systemd_units.start_command()))
    else:
        answered = connecting.uri_of(connection)
        checks.append(Check(name="libvirt", ok=True, needed=True, found=f"answers at {answered}"))
        checks += _host_checks(connection, name)
        checks += _unseen(answered)
    checks.append(_program("ssh", needed=True, purpose="armvm ssh"))
    checks.append(_program("gpgv", needed=False, purpose="signatures of images"))
    checks.append(_program("qemu-img", needed=False, purpose="raw images"))
    checks += [_program(name, needed=False, purpose="image build") for name in _BUILD_PROGRAMS]
    checks.append(_handler())
    return checks


def _way(uri: str) -> Iterator[Check]:
    """Yield a check of ssh to a remote host, which armvm uses for libvirt and the machines."""
    jump = jump_of(uri)
    if jump is None:
        return
    wrong = trouble(jump)
    yield Check(
        name="way",
        ok=wrong is None,
        needed=True,
        found=f"ssh to {jump.host}" if wrong is None else f"ssh to {jump.host} failed: {wrong}",
        fix=None if wrong is None else f"make this work: {shlex.join(jump.command('-v'))}",
    )


def _unseen(uri: str) -> Iterator[Check]:
    """Yield what armvm cannot check on a remote host, and what it cannot do there."""
    host = host_of(uri)
    if host is not None:
        yield Check(
            name="other host",
            ok=True,
            needed=False,
            found=f"programs and files of {host} are not checked (run armvm doctor there); "
            "the checks below are for this host",
        )
    advice = other_way(uri)
    if advice is not None:
        yield Check(name="way", ok=False, needed=False, found="to libvirt only", fix=advice)


def _host_checks(connection: connecting.Connection, pool: str) -> list[Check]:
    try:
        host = facts.observe(connection)
    except ArmvmError as error:
        return [_failed("emulator", error, _install("qemu-system-arm", "qemu-system-aarch64-core"))]
    accelerator = f"{host.accelerator.name}, CPU {host.accelerator.default_cpu}"
    return [
        Check(name="emulator", ok=True, needed=True, found=f"{host.emulator} ({accelerator})"),
        Check(
            name="firmware",
            ok=host.efi,
            needed=True,
            found="UEFI for ARM64" if host.efi else "UEFI for ARM64 not found",
            fix=None if host.efi else _install("qemu-efi-aarch64", "edk2-aarch64"),
        ),
        _network(connection, host),
        *_storage(connection, host, pool),
        _virtiofs(connection),
    ]


def _network(connection: connecting.Connection, host: HostFacts) -> Check:
    if host.session:
        return Check(name="network", ok=True, needed=True, found="user networking")
    names = networks.network_names(connection)
    known = "started" if own_network.OWN_NETWORK in names else "created"
    # libvirt starts dnsmasq for every network with DHCP.
    dnsmasq = not host.local or shutil.which("dnsmasq", path=_SYSTEM_PATH) is not None
    return Check(
        name="network",
        ok=dnsmasq,
        needed=True,
        found=f"armvm, NAT ({known} when needed)"
        if dnsmasq
        else "dnsmasq not found (--network user works without it)",
        fix=None if dnsmasq else _install("dnsmasq-base", "dnsmasq"),
    )


def _storage(connection: connecting.Connection, host: HostFacts, name: str) -> list[Check]:
    try:
        pool = pools.find_pool(connection, name)
        if pool is None and name != pools.DEFAULT_POOL:
            pools.ensure_pool(connection, name, host)  # raises NotFound, with a hint
        path = pools.pool_path(pool) if pool else pools.default_pool_path(host)
    except ArmvmError as error:
        return [
            _failed("storage", error, shlex.join(["virsh", "-c", host.uri, "pool-start", name]))
        ]
    found = path if pool else f"{path} (created when needed)"
    storage = Check(name="storage", ok=True, needed=True, found=found)
    return [storage, *shared_memory(path, host)]


def shared_memory(path: str, host: HostFacts, root: Path = Path("/")) -> list[Check]:
    """Check whether QEMU may open clones' shared memory in a pool; [] if nothing confines QEMU.

    *root* is the root directory of the host's files.
    """
    if not host.local or not host.security & {confinement.APPARMOR, confinement.SELINUX}:
        return []
    obstacle = confinement.obstacle(path, host, root)
    return [
        Check(
            name="shared memory",
            ok=obstacle is None,
            needed=False,
            found="clones share the memory of their golden"
            if obstacle is None
            else f"{obstacle[0]}: goldens use save images, and their clones start more slowly",
            fix=None if obstacle is None else obstacle[1],
        )
    ]


def denied_memory(
    connect: Callable[[str], connecting.Connection] = connecting.connect,
    environ: Mapping[str, str] = os.environ,
    root: Path = Path("/"),
) -> list[str]:
    """Return the directories in which AppArmor denies QEMU access to clones' shared memory.

    For scripts/setup. Checks armvm's own pool, which may not exist yet, and the pool that the
    environment names.
    """
    if not confinement.apparmor_confines(root):
        return []
    directories = {pools.DEFAULT_POOL: pools.SYSTEM_POOL_PATH}
    for name in (pools.DEFAULT_POOL, pool_name(environ.get(POOL_VARIABLE))):
        with contextlib.suppress(ArmvmError):
            pool = pools.find_pool(connect(connecting.SYSTEM), name)
            if pool is not None:
                directories[name] = pools.pool_path(pool)
    return [one for one in directories.values() if not confinement.is_allowed(one, root)]


def _virtiofs(connection: connecting.Connection) -> Check:
    try:
        found = shared_directories.check(connection)
    except ArmvmError as error:
        return _failed("virtiofs", error, "copy files instead: armvm cp -r", needed=False)
    return Check(name="virtiofs", ok=True, needed=False, found=found)


def _program(name: str, *, needed: bool, purpose: str) -> Check:
    try:
        found = programs.find(name)
    except ArmvmError as error:
        return Check(
            name=name,
            ok=False,
            needed=needed,
            found=f"not found, needed for {purpose}",
            fix=error.hint,
        )
    return Check(name=name, ok=True, needed=needed, found=found)


def _handler() -> Check:
    """Check whether this host's kernel runs ARM64 programs; only image builds need it."""
    if aarch64.is_native():
        return Check(name="binfmt handler", ok=True, needed=False, found="not needed on ARM64")
    handler = aarch64.aarch64_handler()
    if handler is None:
        return Check(
            name="binfmt handler",
            ok=False,
            needed=False,
            found="no handler for ARM64 programs, needed for image build",
            fix=f"sudo armvm binfmt register {aarch64.AARCH64.name}",
        )
    found = f"{handler.name} runs {handler.interpreter} (flags {handler.flags or 'none'})"
    sound = handler.enabled and handler.fixed
    if not sound:
        found += "; it is disabled" if handler.fixed else "; without F it fails in other roots"
    return Check(
        name="binfmt handler",
        ok=sound,
        needed=False,
        found=found,
        fix=None if sound else f"sudo armvm binfmt register {aarch64.AARCH64.name} --replace",
    )


def _failed(name: str, error: ArmvmError, fix: str, *, needed: bool = True) -> Check:
    return Check(
        name=name,
        ok=False,
        needed=needed,
        found=error.message if error.detail is None else f"{error.message}: {error.detail}",
        fix=error.hint or fix,
    )


def _install(apt: str, dnf: str) -> str:
    return f"dnf install {dnf}" if shutil.which("dnf") else f"apt-get install {apt}"
