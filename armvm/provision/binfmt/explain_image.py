"""The result of `armvm binfmt explain --docker`: an image, its platform, and what a container does.

The engine's client tells what the image is and which kernel its daemon uses; the handlers are this
host's. Both formats of ``info`` are read: docker's, and podman's, whose facts are below ``host``
(podman may also be installed as ``docker``).
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from armvm.base import process, programs
from armvm.base.errors import CommandFailed, HostError, NotFound, PermissionDenied
from armvm.base.printable import printable
from armvm.base.result import Doc
from armvm.provision.binfmt.explain import InterpreterDetails, interpreter_details
from armvm.settings.names import shown
from armvm.usermode.binfmt import trial
from armvm.usermode.binfmt.container import Platform, Prediction, predict
from armvm.usermode.binfmt.execution import Outcome
from armvm.usermode.binfmt.handlers import ROOT, read

#: Seconds that a client may take.
TIMEOUT = 60.0
#: The same while a shell waits for names.
COMPLETION = 5.0


class Engine(str, Enum):
    """A client of a container engine."""

    DOCKER = "docker"
    PODMAN = "podman"


@dataclass(frozen=True, kw_only=True)
class ExplainedImage:
    """What a container image is, and what happens when it is run."""

    image: Annotated[str, Doc("The image, as it was given.")]
    engine: Annotated[Engine, Doc("The client that was asked.")]
    daemon_host: Annotated[str, Doc("The host whose kernel runs its containers.")]
    platform: Annotated[str, Doc("Its platform, for example linux/arm/v7.")]
    architecture: Annotated[
        str | None, Doc("Its architecture, by QEMU's name; null: none with handlers.")
    ]
    native: Annotated[bool, Doc("Whether that kernel runs its programs without a handler.")]
    handler: Annotated[str | None, Doc("The handler that takes its programs.")]
    flags: Annotated[str | None, Doc("The handler's flags; containers need F.")]
    interpreter: Annotated[
        InterpreterDetails | None, Doc("The handler's interpreter; null: no handler takes them.")
    ]
    outcome: Annotated[Outcome, Doc("What becomes of a container.")]
    happens: Annotated[str, Doc("What happens, in words.")]
    fix: Annotated[str | None, Doc("How to fix it.")]
    command: Annotated[str, Doc("The command that runs it, with its platform.")]
    warning: Annotated[str | None, Doc("Why the image's platform may be wrong.")]


@dataclass(frozen=True, kw_only=True)
class _Daemon:
    """The host whose kernel runs the containers."""

    name: str
    machine: str
    here: bool


def explain(
    engine: Engine, image: str, *, root: Path = ROOT, machine: str | None = None
) -> ExplainedImage:
    """Return an image's platform, the handler for it, and what becomes of a container.

    Raises MissingCapability without the client, HostError if its daemon does not answer or runs on
    a kernel whose handlers armvm cannot see, NotFound if it does not have the image.
    """
    client = programs.find(engine.value)
    daemon = _daemon(engine, client)
    found = _inspect(engine, client, image)
    of = Platform(
        os=_word(found, "Os") or "linux",
        architecture=_word(found, "Architecture"),
        variant=_word(found, "Variant"),
    )
    if not of.valid:
        raise CommandFailed(f"{engine.value} returned an invalid platform: {shown(str(of))}")
    imported = _word(found, "Comment").startswith("Imported from")
    words = [engine.value, "run", "--rm", *([] if imported else ["--platform", str(of)]), image]
    predicted = _predicted(engine, image, of, daemon, root, machine or platform.machine())
    winner, program = predicted.winner, predicted.program
    return ExplainedImage(
        image=image,
        engine=engine,
        daemon_host=daemon.name,
        platform=str(of),
        architecture=predicted.architecture.name if predicted.architecture else None,
        native=predicted.native,
        handler=winner.name if winner else None,
        flags=winner.flags if winner else None,
        interpreter=interpreter_details(program) if program else None,
        outcome=predicted.outcome,
        happens=predicted.happens,
        fix=predicted.fix,
        command=shlex.join(words),
        warning=(
            f"made by {engine.value} import, which records its own host's platform in Docker 20.10 "
            f"even with --platform; {shlex.join([*words, 'uname', '-m'])} shows the real one"
        )
        if imported
        else None,
    )


def names(engine: Engine) -> list[str]:
    """Return the names of the engine's images, for completion."""
    words = [engine.value, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
    told = process.run(words, timeout=COMPLETION).text
    return [line for line in told.splitlines() if "<none>" not in line]


def _predicted(
    engine: Engine, image: str, of: Platform, daemon: _Daemon, root: Path, machine: str
) -> Prediction:
    if daemon.here:
        return predict(of, read(root), machine, trial.runs_in_chroot)
    if of.os == "linux" and of.is_native(daemon.machine):
        return Prediction(
            architecture=None,
            native=True,
            winner=None,
            program=None,
            outcome=Outcome.RUNS,
            happens=f"the kernel of {daemon.name} runs its programs natively",
            fix=None,
        )
    raise HostError(
        f"{engine.value} runs its containers on another kernel, whose handlers cannot be seen here",
        detail=f"the daemon's host is {daemon.name} ({daemon.machine}), the image's platform {of}",
        hint=f"run it there: armvm binfmt explain --{engine.value} {shlex.quote(image)}; "
        f"or try it: {engine.value} run --rm {shlex.quote(image)} uname -m",
    )


def _daemon(engine: Engine, client: str) -> _Daemon:
    """Ask the client about its daemon, which may be on another host, or in a virtual machine."""
    done = process.run([client, "info", "--format", "{{json .}}"], check=False, timeout=TIMEOUT)
    try:
        told = _mapping(json.loads(done.text or "{}"))
    except ValueError:
        told = {}
    host = _mapping(told.get("host"))
    kernel = _word(told, "KernelVersion") or _word(host, "kernel")
    name = _word(told, "Name") or _word(host, "hostname")
    machine = _word(told, "Architecture") or _word(host, "arch")
    if done.returncode != 0 or not kernel:
        errors = told.get("ServerErrors")
        said = [str(one) for one in errors] if isinstance(errors, list) else []
        said.append(done.stderr.decode(errors="replace").strip())
        raise _silent(engine, "\n".join(one for one in said if one))
    own = platform.uname()
    local = kernel == own.release and (name == own.node or not _elsewhere(engine, client))
    return _Daemon(name=printable(name), machine=printable(machine), here=local)


def _silent(engine: Engine, said: str) -> HostError | PermissionDenied:
    """Return the error for an engine that tells nothing about its host."""
    if engine is Engine.PODMAN:
        return HostError("podman info failed", detail=said or None, hint="run it: podman info")
    if "permission denied" in said.lower():
        return PermissionDenied(
            "permission denied: this user may not use docker's daemon",
            detail=said,
            hint="use sudo, or log in again after: sudo usermod -aG docker $USER",
        )
    return HostError(
        "docker's daemon does not answer",
        detail=said or None,
        hint="start it: sudo systemctl start docker; docker context ls shows where the client "
        "looks for it",
    )


def _elsewhere(engine: Engine, client: str) -> bool:
    """Return whether the client reaches its daemon over a network; a socket is on this host."""
    if engine is Engine.PODMAN:  # without a daemon
        return False
    words = [client, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    done = process.run(words, check=False, timeout=TIMEOUT)
    return not done.text.startswith("unix:")


def _inspect(engine: Engine, client: str, image: str) -> Mapping[str, Any]:
    """Return what the engine knows about an image. Raises NotFound."""
    done = process.run([client, "image", "inspect", "--", image], check=False, timeout=TIMEOUT)
    if done.returncode != 0:
        raise NotFound(
            f"{engine.value} does not have the image {shown(image)}",
            detail=done.stderr.decode(errors="replace").strip() or None,
            hint=f"fetch it: {engine.value} pull --platform linux/arm64 {shlex.quote(image)}",
        )
    try:
        return _mapping(json.loads(done.text)[0])
    except (ValueError, LookupError, TypeError) as error:
        raise CommandFailed(
            f"{engine.value} returned invalid data about the image {shown(image)}",
            detail=done.text[-500:],
        ) from error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""
