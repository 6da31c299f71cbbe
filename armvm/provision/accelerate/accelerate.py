"""Turn on and off that a machine's compile steps run on this host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from armvm.base import process
from armvm.base.errors import (
    ArmvmError,
    CommandFailed,
    ConfigError,
    Conflict,
    DomainError,
    HostError,
    MissingCapability,
)
from armvm.base.paths import (
    file_errors,
    private_dir,
    resources,
    runtime_dir,
    state_dir,
    state_locked,
)
from armvm.base.poll import until
from armvm.base.progress import Progress
from armvm.base.result import Doc, MachineName
from armvm.base.signals import shielded
from armvm.guest.agents import compile_script as script
from armvm.guest.ssh import options
from armvm.host.domain.handle import Handle
from armvm.host.facts import Accelerator
from armvm.provision.accelerate import sandbox, service
from armvm.provision.accelerate.job import Compilers
from armvm.provision.access import ssh
from armvm.provision.access.exec_ import execute

#: Seconds for the guest's scripts: compilers take long to start in a busy emulated guest.
PATIENCE = 600.0
#: Seconds for a service to end.
_END = 10.0
#: Most bytes that a guest's script may print, and bytes of messages that are kept.
_MOST_SENT, _TAIL = 1 << 20, 4096
#: Longest path of a socket: sun_path in unix(7).
_LONGEST = 107


@dataclass(frozen=True, kw_only=True)
class Accelerated:
    """A machine whose compile steps run on this host."""

    machine: Annotated[MachineName, Doc("The machine.")]
    version: Annotated[str, Doc("The version of the guest's gcc.")]
    host_version: Annotated[str, Doc("The version of this host's compiler.")]
    names: Annotated[list[str], Doc("The compilers in the guest that are served, by their names.")]
    languages: Annotated[list[str], Doc("Their languages: c, c++.")]
    pid: Annotated[int, Doc("The process of this host that serves the machine.")]
    log: Annotated[Path, Doc("Its log: each compile step, and why one was declined.")]


def accelerate(machine: Handle, progress: Progress) -> Accelerated:
    """Start a service for a running machine, and let its compilers use it.

    Starts it anew if it runs already. Raises DomainError for a machine that is off or runs under
    KVM, MissingCapability if a program is missing on the host or in the guest, Conflict if the
    compilers differ, StorageError, PermissionDenied, and the errors of `access.ssh.reach` and
    `access.exec_.execute`.
    """
    machine.require_running()
    if Accelerator(machine.instance.accelerator) is Accelerator.KVM:
        raise DomainError(
            f"{machine.name} runs under KVM: its compilers are as fast as this host's",
            hint="accelerate is for emulated machines",
        )
    sandbox.assert_works()
    where = ssh.reach(machine)
    with progress.task(f"{machine.name}: looking at its compilers"):
        facts = script.read_facts(_in_guest(machine, script.FACTS.encode(), progress))
    if facts.machine != "aarch64":
        raise Conflict(f"{machine.name} is not an ARM64 guest: {facts.machine[:40]!r}")
    if "c" not in facts.versions or not facts.names:
        raise _no_compiler(machine.name)
    host = _host_compilers(facts)
    languages = {key: value for key, value in facts.names.items() if value in host}
    hidden = [one for key, path in host.items() for one in sandbox.include_directories(path, key)]
    compilers = Compilers(names=languages, host=host, standard=facts.includes, hidden=hidden)
    with _locked(machine):
        return _start(machine, progress, where, facts, compilers)


def _start(
    machine: Handle,
    progress: Progress,
    where: ssh.Endpoint,
    facts: script.Facts,
    compilers: Compilers,
) -> Accelerated:
    """Replace a machine's service, and prepare its compilers."""
    host, languages = compilers.host, compilers.names
    _end_service(machine)
    # Machines on two hosts may have the same name.
    log = state_dir() / f"accelerate-{machine.name}-{machine.instance.uuid[:8]}.log"
    with file_errors(state_dir()):
        private_dir(state_dir())
        log.unlink(missing_ok=True)
    with progress.task(f"{machine.name}: preparing its compilers"), _directory(machine) as place:
        told = {
            **ssh.machine_options(machine.instance, where, batch=True),
            "ClearAllForwardings": "no",
            "ExitOnForwardFailure": "yes",
            "RemoteForward": f"127.0.0.1:{script.PORT} {options.quoted(place / service.SOCKET)}",
            "ServerAliveInterval": "60",
            "ServerAliveCountMax": "10",
        }
        # The user's configuration may have forwards of its own, which could fail.
        config = ["-F", "none"] if ssh.has_own_key(machine.instance) else []
        command = ["ssh", "-N", *config, *options.words(told), where.host]
        with file_errors(place):
            pid = service.start(place, command, compilers, log)
        try:
            versions = {key: value for key, value in facts.versions.items() if key in host}
            known = replace(facts, versions=versions, names=languages)
            source = (resources("templates") / "accelerate.c").read_text()
            text = script.install(
                source, known, _fingerprint(host.values()), machine.instance.record.user
            )
            _in_guest(machine, text, progress, log=log)
        except BaseException:
            with shielded():
                _end(place, pid)
            raise
    return Accelerated(
        machine=machine.name,
        version=facts.versions["c"],
        host_version=_version(host["c"]),
        names=sorted(languages),
        languages=sorted(host),
        pid=pid,
        log=log,
    )


def stop(machine: Handle, progress: Progress) -> bool:
    """End the service of a machine, and return whether there was one.

    Also tells a running guest, so that its compilers do not look for it.
    """
    with _locked(machine):
        ended = _end_service(machine)
        if machine.running:
            with contextlib.suppress(ArmvmError):
                _in_guest(machine, script.OFF, progress)
    return ended


def _locked(machine: Handle) -> AbstractContextManager[None]:
    """Let one process at a time start or end a machine's service."""
    return state_locked(f"accelerate-{machine.instance.uuid[:18]}.lock")


def _end_service(machine: Handle) -> bool:
    """End the service of a machine, and return whether there was one."""
    place = _place(machine)
    pid = service.running(place)
    if pid is not None:
        _end(place, pid)
    shutil.rmtree(place, ignore_errors=True)
    return pid is not None


def _end(place: Path, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    late = HostError(f"the process {pid} does not end", hint=f"end it: kill -9 {pid}")
    until(lambda: service.running(place) is None, timeout=_END, interval=0.05, late=lambda: late)
    shutil.rmtree(place, ignore_errors=True)


def _place(machine: Handle) -> Path:
    """Return the directory of a machine's service. Its compilers have to be able to enter it.

    Raises HostError if another user could have put something there.
    """
    name = f"armvm-accelerate-{machine.instance.uuid[:18]}"
    if os.geteuid() == 0:
        return Path("/run") / name
    usual = runtime_dir() / "armvm" / name
    too_long = len(os.fsencode(usual / service.SOCKET)) > _LONGEST
    place = Path(f"/tmp/armvm-{os.geteuid()}") / name if too_long else usual  # noqa: S108
    with file_errors(place.parent):
        status = private_dir(place.parent).lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise HostError(
            f"{place.parent} belongs to another user, or others can enter it",
            hint="remove it, or set XDG_RUNTIME_DIR to a directory of yours with a short path",
        )
    return place


@contextmanager
def _directory(machine: Handle) -> Iterator[Path]:
    """Create the directory of a machine's service; remove it if the block fails."""
    place = _place(machine)
    shutil.rmtree(place, ignore_errors=True)
    with file_errors(place):
        place.mkdir()
        place.chmod(0o711)  # whatever the umask is
    try:
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _in_guest(machine: Handle, text: bytes, progress: Progress, *, log: Path | None = None) -> str:
    """Run a script in the guest as root and return its output. Raises what its exit code means.

    Raises CommandFailed if the guest sends more than _MOST_SENT bytes.
    """
    out, trouble = bytearray(), bytearray()

    def keep(data: bytes) -> None:
        nonlocal out
        out += data
        if len(out) > _MOST_SENT:
            raise CommandFailed(f"{machine.name} sent more than {_MOST_SENT} bytes")

    def keep_end(data: bytes) -> None:
        nonlocal trouble
        trouble = (trouble + data)[-_TAIL:]

    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.seek(0)
        code = execute(
            machine,
            ["sh", "-s"],
            user=None,
            timeout=PATIENCE,
            stdin=file.fileno(),
            stdout=keep,
            stderr=keep_end,
            progress=progress,
        )
    said = trouble.decode(errors="replace").strip()[-1000:]
    if code != 0:
        raise _failure(machine.name, code, said, log)
    return out.decode(errors="replace")


def _failure(name: str, code: int, said: str, log: Path | None) -> ArmvmError:
    """Return the error that a script's exit code means."""
    if code == script.NO_COMPILER:
        return _no_compiler(name)
    if code == script.DIFFERENT:
        return Conflict(
            f"this host's compiler makes other code than that of {name}",
            hint="their versions are the same, but not their defaults: use a host with the "
            "guest's distribution",
        )
    if code == script.TAKEN:
        return Conflict(
            f"{name} has another compiler of the same name in /usr/local/bin",
            detail=said,
            hint="rename it, or compile without 'armvm accelerate'",
        )
    detail = said
    with contextlib.suppress(OSError):
        detail = "\n".join([*filter(None, [said]), _end_of(log or Path())[-1000:].strip()])
    what = {
        script.NOT_COMPILED: "its own compiler does not compile",
        script.NO_SERVICE: "ssh does not forward a port of the guest to this host",
        script.NOT_SERVED: "the host does not compile a probe",
    }.get(code, f"a script in it failed with exit code {code}")
    return CommandFailed(f"{name} cannot be accelerated: {what}", detail=detail or None)


def _end_of(file: Path) -> str:
    """Return the end of a text file. Raises OSError."""
    with file.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL))
        return opened.read(_TAIL).decode(errors="replace")


def _no_compiler(name: str) -> ArmvmError:
    return MissingCapability(
        f"/usr/bin/gcc is not installed in {name}",
        hint=f"install it: armvm exec {name} -- apt-get install gcc g++   (or use the preset "
        "builder)",
    )


def _host_compilers(facts: script.Facts) -> dict[str, str]:
    """Return this host's compilers by language, of the guest's major version.

    Without one for C++, only C is served. Raises MissingCapability without one for C, Conflict if
    it has another version.
    """
    found = {}
    there = None
    for language, version in facts.versions.items():
        major = version.partition(".")[0]
        name = f"aarch64-linux-gnu-{script.COMPILERS[language]}"
        for one in (f"{name}-{major}", name):
            path = shutil.which(one, path="/usr/bin")
            if path is not None:
                there = _version(path)
                if there.partition(".")[0] == major:
                    found[language] = str(Path(path).resolve())
                    break
    if "c" in found:
        return found
    major = facts.versions["c"].partition(".")[0]
    install = (
        f"install that version: apt-get install gcc-{major}-aarch64-linux-gnu "
        f"g++-{major}-aarch64-linux-gnu"
    )
    if there is not None:
        raise Conflict(
            f"the guest has gcc {facts.versions['c']}, and this host's cross compiler is {there}",
            hint=install,
        )
    raise MissingCapability(
        "a compiler for ARM64 is not installed on this host",
        hint=f"{install}   (or: dnf install gcc-aarch64-linux-gnu)",
    )


def _fingerprint(compilers: Iterable[str]) -> str:
    """Return a text that changes when one of these files of the host does."""
    stats = [Path(one).stat() for one in compilers]
    return " ".join(f"{one.st_size}-{one.st_mtime_ns}-{one.st_ino}" for one in stats)


def _version(compiler: str) -> str:
    """Return a compiler's version. Raises ConfigError if it prints none."""
    told = process.run([compiler, "-dumpfullversion"], timeout=60).text.strip()
    if not told[:1].isdigit():
        raise ConfigError(f"{compiler} does not print its version")
    return told
