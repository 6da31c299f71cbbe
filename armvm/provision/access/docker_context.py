"""Docker contexts for machines: ``docker --context NAME`` uses the docker daemon in the machine.

docker connects by ssh (``ssh://NAME``), which finds the machine in the configuration that
``armvm ssh-config --install`` writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base import process, programs
from armvm.base.errors import ArmvmError, CommandFailed, Conflict, NotFound
from armvm.base.result import Doc
from armvm.host.agent import agent
from armvm.host.connection import Connection, Domain
from armvm.host.domain.instance import Instance
from armvm.provision.access import ssh_config
from armvm.settings.names import shown

#: Timeout in seconds of one call of the docker client; these calls do not contact a daemon.
TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Context:
    """A machine's docker context."""

    context: Annotated[str, Doc("Its name, the same as the machine's.")]
    host: Annotated[str, Doc("The URL that docker connects to, for example ssh://arm64-01.")]
    changed: Annotated[bool, Doc("Whether this call created or removed it.")]


def make(connection: Connection, instance: Instance, home: Path, *, use: bool) -> Context:
    """Create a docker context with the machine's name; with *use*, make it docker's current one.

    Raises MissingCapability without a docker client, Conflict if a context of that name points
    elsewhere, and the errors of `ssh_config.install`.
    """
    name, host = instance.name, f"ssh://{instance.name}"
    docker = programs.find("docker")
    known = _host_of(docker, name)
    if known is not None and known != host:
        raise Conflict(
            f"docker context {name} already exists and points to {shown(known)}",
            hint=f"remove it: docker context rm {name}",
        )
    ssh_config.install(connection, [name], home)
    if known is None:
        process.run(
            [
                *(docker, "context", "create", name),
                *("--description", "ARM64 machine made by armvm"),
                *("--docker", f"host={host}"),
            ],
            timeout=TIMEOUT,
        )
    if use:
        process.run([docker, "context", "use", name], timeout=TIMEOUT)
    return Context(context=name, host=host, changed=known is None)


def lacks_docker(domain: Domain) -> bool:
    """Return whether the guest agent finds that docker is missing; False if it cannot check."""
    try:
        agent.ensure_answers(domain)
        return not agent.succeeds(domain, ["/bin/sh", "-c", "command -v dockerd"])
    except ArmvmError:
        return False


def remove(name: str) -> Context:
    """Remove a machine's context, also after the machine is gone; the ssh configuration stays.

    Raises NotFound if it does not exist, Conflict if it points elsewhere.
    """
    docker, host = programs.find("docker"), f"ssh://{name}"
    known = _host_of(docker, name)
    if known is None:
        raise NotFound(
            f"docker context {name} not found", hint="list the contexts: docker context ls"
        )
    if known != host:
        raise Conflict(
            f"docker context {name} was not created by armvm: it points to {shown(known)}"
        )
    process.run([docker, "context", "rm", "--force", name], timeout=TIMEOUT)
    return Context(context=name, host=host, changed=True)


def _host_of(docker: str, name: str) -> str | None:
    """Return the URL of a docker context, or None if it does not exist."""
    done = process.run([docker, "context", "inspect", name], check=False, timeout=TIMEOUT)
    if done.returncode != 0:
        return None
    try:
        return str(json.loads(done.text)[0]["Endpoints"]["docker"].get("Host", ""))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CommandFailed(
            f"docker returned invalid data about its context {name}", detail=done.text[-500:]
        ) from error
