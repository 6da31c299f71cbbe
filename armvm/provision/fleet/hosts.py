"""Ask several hosts at the same time. One that is down delays nothing beyond its timeout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from armvm.base.errors import ArmvmError, HostError
from armvm.base.printable import printable
from armvm.base.process import workers
from armvm.base.result import AcceleratorName, Doc
from armvm.host import capacity, connection
from armvm.host.connection import Connection
from armvm.host.domain.golden_domain import goldens
from armvm.host.domain.instance import instances
from armvm.provision.manage.machines import ListedMachine, overviews
from armvm.settings.hosts import Host, hosts_in, unknown

T = TypeVar("T")

#: Seconds that a host has to answer.
TIMEOUT = 10.0
#: Length of a reason in a table, in characters.
_FEW_WORDS = 100


@dataclass(frozen=True, kw_only=True)
class HostState:
    """A host with a name, and how it answered. Values are null if it did not."""

    name: Annotated[str, Doc("Its name in [hosts].")]
    uri: Annotated[str, Doc("Its libvirt URI.")]
    reachable: Annotated[bool, Doc("Whether it answered.")]
    reason: Annotated[
        str | None, Doc("Why it did not answer, or cannot run ARM64 machines; null: it can.")
    ]
    libvirt: Annotated[str | None, Doc("The version of its libvirt.")] = None
    qemu: Annotated[str | None, Doc("The version of its QEMU; null: libvirt does not tell.")] = None
    accelerator: Annotated[
        AcceleratorName | None, Doc("kvm: the host's own CPU; tcg: emulated.")
    ] = None
    cpus: Annotated[int | None, Doc("Its CPUs.")] = None
    running_vcpus: Annotated[int | None, Doc("vCPUs of all running domains.")] = None
    memory_mib: Annotated[int | None, Doc("Its memory in MiB.")] = None
    free_mib: Annotated[int | None, Doc("Free memory in MiB, caches included.")] = None
    machines: Annotated[int | None, Doc("Number of armvm's machines.")] = None
    running: Annotated[int | None, Doc("Number of them that run.")] = None
    goldens: Annotated[list[str] | None, Doc("The names of its goldens.")] = None


def chosen(names: Sequence[str], files: Sequence[Path]) -> list[Host]:
    """Return the hosts with *names*, each once; without names, all. Raises NotFound."""
    known = hosts_in(files)
    for name in names:
        if name not in known:
            raise unknown(name, known, files)
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def ask(
    uris: Mapping[str, str | None], question: Callable[[Connection], T], timeout: float
) -> dict[str, T | ArmvmError]:
    """Ask the hosts at *uris*, each in a process of its own, and return the answers by key.

    A URI of None means the default connection. An answer is an error if the host is down, or did
    not answer in *timeout* seconds.
    """
    outcomes = workers.run_all(
        {key: partial(_ask, uri, question) for key, uri in uris.items()}, timeout=timeout
    )
    return {key: one.value if one.error is None else one.error for key, one in outcomes.items()}


def _ask(uri: str | None, question: Callable[[Connection], Any], _send: workers.Send) -> Any:
    return question(connection.connect(uri))


def states(hosts: Sequence[Host], timeout: float) -> list[HostState]:
    """Return the state of each host."""
    answers = ask({one.name: one.uri for one in hosts}, _look, timeout)
    return [_state(host, answers[host.name]) for host in hosts]


def machines(
    hosts: Sequence[Host], timeout: float
) -> tuple[list[ListedMachine], dict[str, ArmvmError]]:
    """Return the machines of all hosts, and the errors of those that did not answer."""
    answers = ask({one.name: one.uri for one in hosts}, overviews, timeout)
    down = {name: one for name, one in answers.items() if isinstance(one, ArmvmError)}
    found = [
        replace(machine, on=name)
        for name, one in answers.items()
        if not isinstance(one, ArmvmError)
        for machine in one
    ]
    return found, down


def few_words(error: ArmvmError) -> str:
    """Return the reason why a host did not answer, for a line of a table.

    libvirt wraps ssh's own words in what happened to its connection.
    """
    said = (error.detail or error.message).strip().splitlines()[0]
    for prefix in ("Cannot recv data: ", "End of file while reading data: ", "unable to connect: "):
        said = said.removeprefix(prefix)
    for suffix in (": Connection reset by peer", ": Input/output error"):
        said = said.removesuffix(suffix)
    said = printable(said)
    return said if len(said) <= _FEW_WORDS else f"{said[: _FEW_WORDS - 1]}…"


def no_answer(
    names: Sequence[str], count: int, errors: Mapping[str, ArmvmError] | None = None
) -> HostError:
    """Return the error for hosts that did not answer, of *count* that were asked.

    Its detail has the reasons in *errors*.
    """
    reasons = [f"{name}: {few_words(error)}" for name, error in (errors or {}).items()]
    return HostError(
        f"{len(names)} of {count} hosts did not answer: {', '.join(names)}",
        detail="\n".join(reasons) or None,
        hint=f"check one: armvm doctor --on {names[0]}",
    )


@dataclass(frozen=True, kw_only=True)
class _Look:
    capacity: capacity.Capacity
    machines: int
    running: int
    goldens: list[str]


def _look(opened: Connection) -> _Look:
    there = instances(opened)
    return _Look(
        capacity=capacity.measure(opened),
        machines=len(there),
        running=sum(one.running for one in there),
        goldens=[one.name for one in goldens(opened)],
    )


def _state(host: Host, answer: _Look | ArmvmError) -> HostState:
    if isinstance(answer, ArmvmError):
        return HostState(name=host.name, uri=host.uri, reachable=False, reason=few_words(answer))
    seen = answer.capacity
    return HostState(
        name=host.name,
        uri=host.uri,
        reachable=True,
        reason=seen.lack,
        libvirt=seen.libvirt,
        qemu=seen.qemu,
        accelerator=None if seen.facts is None else seen.facts.accelerator.name.lower(),
        cpus=seen.cpus,
        running_vcpus=seen.running_vcpus,
        memory_mib=seen.memory_mib,
        free_mib=seen.free_mib,
        machines=answer.machines,
        running=answer.running,
        goldens=answer.goldens,
    )
