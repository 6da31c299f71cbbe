"""A machine's handle: the domain, and the machine as it was observed there."""

from __future__ import annotations

from dataclasses import dataclass

from armvm.base.errors import Conflict
from armvm.host.connection import Connection, Domain, is_local, not_running, uri_of
from armvm.host.domain.instance import Instance, find_domain, observe
from armvm.host.domain.metadata import Record
from armvm.host.facts import Accelerator


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A machine of armvm's on a connection. ``instance`` is what it was when it was observed."""

    connection: Connection
    domain: Domain
    instance: Instance

    @property
    def uri(self) -> str:
        """The connection's URI."""
        return uri_of(self.connection)

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.instance.name

    @property
    def record(self) -> Record:
        """What armvm remembers of it."""
        return self.instance.record

    @property
    def running(self) -> bool:
        """Whether its QEMU process lived when it was observed."""
        return self.instance.running

    @property
    def patience(self) -> float:
        """The factor for timeouts: an emulated guest takes longer than one under KVM."""
        return Accelerator(self.instance.accelerator).patience

    def again(self) -> Handle:
        """Return the machine observed anew."""
        return observed(self.connection, self.domain)

    def require_running(self) -> None:
        """Raise DomainError when the machine is off."""
        if not self.running:
            raise not_running(self.name)

    def require_off(self, why: str) -> None:
        """Raise Conflict when the machine runs now; *why* follows "NAME runs" in the message.

        Asks libvirt again: the user may have answered a question since it was observed.
        """
        if self.again().running:
            raise Conflict(f"{self.name} runs{why}", hint=f"stop it first: armvm stop {self.name}")

    def log_tail(self) -> bytes:
        """Return the end of the serial log; empty while there is none."""
        from armvm.host.console.serial_log import read_tail  # a login needs none of it

        local = is_local(self.uri)
        return read_tail(self.connection, self.instance.serial_log, local=local)


def observed(connection: Connection, domain: Domain) -> Handle:
    """Return a domain's handle. Raises NotFound for one that armvm did not make."""
    return Handle(connection=connection, domain=domain, instance=observe(domain))


def find_machine(connection: Connection, name: str) -> Handle:
    """Return a machine by name. Raises NotFound."""
    return observed(connection, find_domain(connection, name))
