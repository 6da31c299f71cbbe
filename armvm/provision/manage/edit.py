"""Edit a machine's definition, and check it before libvirt gets it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from lxml import etree

from armvm.base import editor
from armvm.base.errors import ArmvmError, ConfigError, Conflict
from armvm.host.connection import Connection, Domain
from armvm.host.domain import lifecycle
from armvm.host.domain.instance import inactive_xml, reading
from armvm.host.xml import parse


def edit(connection: Connection, domain: Domain, again: Callable[[ArmvmError], bool]) -> bool:
    """Let the user edit a machine's definition, and return whether it changed.

    After each error, *again* decides whether to continue editing. Only the owner can read the
    draft. Raises the errors of `take` and of the editor.
    """
    before = inactive_xml(domain)
    descriptor, name = tempfile.mkstemp(prefix=f"armvm-{domain.name()}-", suffix=".xml")
    draft = Path(name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(before)
    return editor.edit(
        draft, before.encode(), lambda: take(connection, domain, before, draft), again
    )


def take(connection: Connection, domain: Domain, before: str, path: Path) -> bool:
    """Define a machine from the file at *path*; return whether the definition changed.

    *before* is the definition that was edited. Raises ConfigError if the file does not define
    this machine or violates libvirt's schema, Conflict if someone else changed the machine
    during the edit. On an error the machine stays unchanged.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if text.strip() == before.strip():
        return False
    _check(domain, text)
    if inactive_xml(domain) != before:
        raise Conflict(
            f"{domain.name()} was changed by someone else during the edit",
            hint=f"edit the current definition: armvm edit {domain.name()}",
        )
    try:
        lifecycle.define(connection, text, domain.name())
    except ArmvmError as error:
        raise ConfigError(
            "libvirt rejected the definition", detail=error.detail or error.message, hint=error.hint
        ) from error
    return True


def _check(domain: Domain, text: str) -> None:
    try:
        document = parse(text)
    except etree.XMLSyntaxError as error:
        raise ConfigError("invalid XML", detail=str(error.msg)) from error
    name, uuid = domain.name(), domain.UUIDString()
    if document.tag != "domain" or (document.findtext("uuid") or "").strip() != uuid:
        raise ConfigError(
            "the definition has another UUID, so it is for another machine",
            hint=f"keep <uuid>{uuid}</uuid>; to create a second machine use armvm clone",
        )
    if (document.findtext("name") or "").strip() != name:
        raise ConfigError(
            "the definition has another name",
            hint=f"rename the machine and its files with: armvm rename {name} NEW",
        )
    reading(document)
