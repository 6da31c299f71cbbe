"""Edit a machine's definition; it is checked before libvirt gets it."""

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

    *again* is asked with each error whether to edit on. The draft is a file that only its owner
    can read. Raises what `take` does, and the editor's errors.
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
    """Define a machine as the file at *path* says; return whether that is anything new.

    *before* is the definition that was edited. Raises ConfigError for what is no definition of
    this machine, or none that libvirt's schema allows; Conflict when somebody else changed it
    meanwhile. The machine is as it was then.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if text.strip() == before.strip():
        return False
    _check(domain, text)
    if inactive_xml(domain) != before:
        raise Conflict(
            f"somebody else has changed {domain.name()} meanwhile",
            hint="look at what it is now: armvm xml, and edit that",
        )
    try:
        lifecycle.define(connection, text, domain.name())
    except ArmvmError as error:
        raise ConfigError(
            "libvirt does not take it", detail=error.detail or error.message, hint=error.hint
        ) from error
    return True


def _check(domain: Domain, text: str) -> None:
    try:
        document = parse(text)
    except etree.XMLSyntaxError as error:
        raise ConfigError("it is no XML", detail=str(error.msg)) from error
    name, uuid = domain.name(), domain.UUIDString()
    if document.tag != "domain" or (document.findtext("uuid") or "").strip() != uuid:
        raise ConfigError(
            "it defines another machine: the UUID is not the same",
            hint=f"<uuid>{uuid}</uuid> stays as it is; armvm clone makes another machine",
        )
    if (document.findtext("name") or "").strip() != name:
        raise ConfigError(
            "it defines a machine of another name",
            hint=f"armvm rename {name} NEW   renames it, with its files",
        )
    reading(document)
