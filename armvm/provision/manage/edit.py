"""Editing a machine's definition: what is written is looked at before libvirt takes it."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path

from lxml import etree

from armvm.base import process, programs
from armvm.base.errors import ArmvmError, CommandFailed, ConfigError, Conflict
from armvm.host.connection import Connection, Domain
from armvm.host.domain import lifecycle
from armvm.host.domain.instance import inactive_xml, reading
from armvm.host.xml import parse
from armvm.settings.names import shown

#: What Debian's editor(1) and POSIX offer where nothing is chosen.
_USUAL = ("editor", "vi")


def begin(domain: Domain) -> Path:
    """Write a machine's definition to a file that only its owner can read, and return its path."""
    descriptor, path = tempfile.mkstemp(prefix=f"armvm-{domain.name()}-", suffix=".xml")
    with os.fdopen(descriptor, "w") as file:
        file.write(inactive_xml(domain))
    return Path(path)


def run_editor(path: Path) -> None:
    """Open a file in the user's editor: $VISUAL, else $EDITOR. Raises CommandFailed."""
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        words = shlex.split(chosen) if chosen else [_usual()]
    except ValueError as error:
        raise ConfigError(f"$VISUAL or $EDITOR is {shown(str(chosen))}: {error}") from error
    code = process.passthrough([*words, path])
    if code != 0:
        raise CommandFailed(
            f"the editor {words[0]} ended with {code}", hint="$VISUAL or $EDITOR chooses another"
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


def _usual() -> str:
    for one in _USUAL[:-1]:
        try:
            return programs.find(one)
        except ArmvmError:
            continue
    return _USUAL[-1]
