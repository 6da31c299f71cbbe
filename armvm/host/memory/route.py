"""Saving a golden's memory and loading it into clones: one interface, two routes.

``cow`` shares the memory copy-on-write and is much faster; it needs a local connection and
QEMU arguments for which libvirt lacks elements. ``save-image`` uses libvirt's own save and
restore: each clone reads a copy of the image, and any connection works.
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
    """QEMU or libvirt cannot share a machine's memory. The save-image route may still work."""


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """Raise Refused for errors of the route *name*, if there is another route."""
    try:
        yield
    except (DomainError, MissingCapability) as error:
        if name != COW:
            raise
        raise Refused(error.message, detail=error.detail, hint=error.hint) from error


class Route(Protocol):
    """The operations of a route. ``golden`` and the like are names of machines in *pool*."""

    #: The golden's volumes besides overlay and seed: keys of storage.volume_names.
    VOLUMES: tuple[str, ...]

    def why_not(self, *, local: bool) -> str | None:
        """Return why this route cannot be used on a host; None if it can."""

    def prepare(self, domain: etree._Element, memory_path: str) -> None:
        """Prepare the element of a machine that becomes a golden, before its first boot."""

    def save(self, connection: Connection, pool: Pool, domain: Domain) -> str:
        """Save a suspended golden's memory, and return a digest that identifies it.

        The domain must be destroyed afterwards. Raises DomainError and StorageError.
        """

    def load(
        self, connection: Connection, pool: Pool, golden: str, element: etree._Element
    ) -> Domain:
        """Start a clone of *golden* from its element, paused, and return its domain.

        A persistent domain of that name and UUID exists: libvirt returns to its definition when
        the clone stops. Raises DomainError and StorageError; the caller destroys a domain that
        was left running.
        """

    def check(
        self, connection: Connection, pool: Pool, golden: str, element: etree._Element, digest: str
    ) -> str | None:
        """Return what is wrong with a golden's saved memory; None if it is intact."""


_ROUTES: dict[str, ModuleType] = {COW: cow, SAVE_IMAGE: save_image}


def route(name: str) -> Route:
    """Return a route by name. Raises DomainError for an unknown route."""
    module = _ROUTES.get(name)
    if module is None:
        raise DomainError(f"unsupported route for saved memory: {name}")
    return cast("Route", module)


def qemu_version(domain: Domain) -> str:
    """Return the version of the QEMU that runs a domain, with the distribution's suffix."""
    with errors(f"reading the QEMU version of {domain.name()}"):
        answer = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-version"}', 0)
    told = json.loads(answer).get("return", {})
    numbers = told.get("qemu", {})
    version = ".".join(str(numbers.get(key, "?")) for key in ("major", "minor", "micro"))
    return f"{version} {told.get('package', '')}".strip()


def best(*, local: bool) -> str:
    """Return the name of the fastest route that a host supports."""
    return COW if cow.why_not(local=local) is None else SAVE_IMAGE
