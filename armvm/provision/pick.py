"""Which machine is meant. Apart from the verbs: `armvm ssh` needs nothing else of theirs."""

from __future__ import annotations

from armvm.errors import ConfigError, NotFound
from armvm.host.connection import Connection, Domain
from armvm.host.instance import Instance, find_domain, instances, observe
from armvm.provision.creator import assert_whole
from armvm.spec.names import shown


def pick(
    connection: Connection, name: str | None, *, unfinished: bool = False
) -> tuple[Domain, Instance]:
    """Return the machine called *name*, or the only one there is.

    Raises NotFound, ConfigError when a name is needed to tell machines apart, and Conflict for one
    that is off and being made, or that a killed create left behind; with *unfinished*, not that.
    """
    domain, instance = _pick(connection, name)
    if not unfinished and not instance.running:
        assert_whole(instance)
    return domain, instance


def _pick(connection: Connection, name: str | None) -> tuple[Domain, Instance]:
    if name is not None:
        domain = find_domain(connection, name)
        return domain, observe(domain)
    found = instances(connection)
    if not found:
        raise NotFound("there is no machine yet", hint="armvm create   makes one")
    if len(found) > 1:
        raise ConfigError(
            "there is more than one machine; which one?",
            hint="name one of " + ", ".join(instance.name for instance in found),
        )
    return find_domain(connection, found[0].name), found[0]


def pick_uuid(connection: Connection, uuid: str) -> tuple[Domain, Instance]:
    """Return the machine with a UUID. Raises NotFound."""
    for instance in instances(connection):
        if instance.uuid == uuid:
            return find_domain(connection, instance.name), instance
    raise NotFound(f"there is no machine with the UUID {shown(uuid)}")


def everything(connection: Connection) -> list[tuple[Domain, Instance]]:
    """Return all machines."""
    return [(find_domain(connection, one.name), one) for one in instances(connection)]
