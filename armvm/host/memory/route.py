"""How a golden's memory is kept and given to its clones: one interface, two routes.

``cow`` shares the memory copy-on-write and is by far the faster one; it needs a local
connection and arguments that libvirt has no elements for. ``save-image`` is libvirt's own
saving and restoring: each clone reads a copy of it, and it goes over any connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Protocol, cast

import libvirt_qemu
from lxml import etree

from armvm.base.errors import DomainError, MissingCapability
from armvm.host.connection import Connection, Domain, Pool, errors
from armvm.host.memory import cow, save_image

COW, SAVE_IMAGE = "cow", "save-image"


class Refused(DomainError):
    """QEMU or libvirt does not share a machine's memory. Its save image is another way."""


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """Turn what QEMU and libvirt refuse of the route *name* into Refused, if there is another."""
    try:
        yield
    except (DomainError, MissingCapability) as error:
        if name != COW:
            raise
        raise Refused(error.message, detail=error.detail, hint=error.hint) from error


class Route(Protocol):
    """What a route can do. ``golden`` and the like are names of machines in *pool*."""

    #: The golden's volumes besides overlay and seed, by the keys of storage.volume_names.
    VOLUMES: tuple[str, ...]

    def why_not(self, *, local: bool) -> str | None:
        """Return why this route cannot be taken on a host; None where it can."""

    def prepare(self, domain: etree._Element, memory_path: str) -> None:
        """Change the element of a machine that is to become a golden, before its first boot."""

    def save(self, connection: Connection, pool: Pool, domain: Domain) -> str:
        """Save a suspended golden's memory, and return a digest of what tells it from another.

        The domain is good for nothing afterwards but to be destroyed. Raises DomainError and
        StorageError.
        """

    def load(
        self, connection: Connection, pool: Pool, golden: str, element: etree._Element
    ) -> Domain:
        """Start a clone of *golden* from its element, paused, and return its domain.

        A persistent domain of that name and UUID exists: libvirt returns to its definition when
        the clone stops. Raises DomainError and StorageError; the caller destroys what may have
        been started.
        """

    def check(
        self, connection: Connection, pool: Pool, golden: str, element: etree._Element, digest: str
    ) -> str | None:
        """Return what is wrong with a golden's saved memory; None where nothing is."""


_ROUTES: dict[str, ModuleType] = {COW: cow, SAVE_IMAGE: save_image}


def route(name: str) -> Route:
    """Return a route by name. Raises DomainError for one that this armvm does not know."""
    module = _ROUTES.get(name)
    if module is None:
        raise DomainError(f"its memory was saved in a way that is unknown here: {name}")
    return cast("Route", module)


def qemu_version(domain: Domain) -> str:
    """Return the version of the QEMU that runs a domain, with its distribution's name for it."""
    with errors(f"asking {domain.name()} for its QEMU"):
        answer = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-version"}', 0)
    told = json.loads(answer).get("return", {})
    numbers = told.get("qemu", {})
    version = ".".join(str(numbers.get(key, "?")) for key in ("major", "minor", "micro"))
    return f"{version} {told.get('package', '')}".strip()


def best(*, local: bool) -> str:
    """Return the name of the fastest route that a host can take."""
    return COW if cow.why_not(local=local) is None else SAVE_IMAGE
