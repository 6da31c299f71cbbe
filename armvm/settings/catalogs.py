"""Mirrors and the user's own image catalogs, from the configuration.

::

    [mirrors]
    debian = "https://mirror.example.org/debian-cloud/"

    [images.corp]
    url = "https://images.example.org/{version}/corp-{version}-{arch}.qcow2"
    checksums = "https://images.example.org/{version}/SHA256SUMS"
    signature = "https://images.example.org/{version}/SHA256SUMS.gpg"
    fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567"
    versions = ["2026.1", "2026.2"]

    [images.lab]
    type = "simplestreams"
    url = "https://images.example.org/streams-tree/"
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from armvm.settings.config_file import ConfigFile, read_config
from armvm.settings.names import shown
from armvm.settings.urls import hidden, is_url, tree_url

#: Distributions with a built-in catalog; each can have a mirror.
DISTROS = (
    *("ubuntu", "debian", "fedora", "alpine", "opensuse"),
    *("almalinux", "rocky", "centos", "oraclelinux", "amazonlinux", "kali"),
)

#: Prefixes of image references that are not catalogs.
TAKEN = (*DISTROS, "local", "http", "https", "file")

#: Placeholders allowed in a URL.
PLACEHOLDERS = ("version", "arch", "serial", "variant")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}\Z")
_FINGERPRINT = re.compile(r"(?:[0-9A-F]{40}|[0-9A-F]{64})\Z")
_KEYS = {
    "template": {
        "type", "url", "checksums", "signature", "fingerprint", "keyring", "versions", "distro",
    },
    "simplestreams": {"type", "url", "fingerprint", "keyring", "distro"},
}  # fmt: skip


#: The path of a table, key by key.
_Table = tuple[str, str] | tuple[str]
_MIRRORS = ("mirrors",)


@dataclass(frozen=True, kw_only=True)
class OwnCatalog:
    """A catalog from the user's configuration.

    ``kind`` is ``template`` or ``simplestreams``. URLs of a template contain PLACEHOLDERS in
    braces. ``signature`` is the URL of the checksums' detached signature, or ``clear`` for a
    cleartext signature in the checksums themselves. ``fingerprints`` are the keys that may have
    made it (upper case). ``distro`` is the distribution of the images.
    """

    name: str
    kind: str
    url: str
    checksums: str | None = None
    signature: str | None = None
    fingerprints: tuple[str, ...] = ()
    keyring: str | None = None
    versions: tuple[str, ...] = ()
    distro: str


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Mirrors by distribution (base URLs), and the user's own catalogs."""

    mirrors: Mapping[str, str] = field(default_factory=dict)
    own: tuple[OwnCatalog, ...] = ()


def mirror_variable(distro: str) -> str:
    """Return the environment variable for a distribution's mirror."""
    return f"ARMVM_MIRROR_{distro.upper()}"


def image_config(environ: Mapping[str, str], files: Sequence[Path] = ()) -> ImageConfig:
    """Read mirrors from ``ARMVM_MIRROR_*`` and *files*, catalogs from *files*; the first wins.

    Raises ConfigError with file and key, and PermissionDenied.
    """
    mirrors: dict[str, str] = {}
    for distro in DISTROS:
        variable = mirror_variable(distro)
        if environ.get(variable):
            mirrors[distro] = tree_url(environ[variable], variable)
    own: dict[str, OwnCatalog] = {}
    for path in files:
        file = read_config(path)
        if file is None:
            continue
        reader = _Reader(file)
        for distro, url in reader.mirrors().items():
            mirrors.setdefault(distro, url)
        for catalog in reader.catalogs():
            own.setdefault(catalog.name, catalog)
    return ImageConfig(mirrors=mirrors, own=tuple(own.values()))


class _Reader:
    """The tables of one configuration file."""

    def __init__(self, file: ConfigFile) -> None:
        self.file = file

    def mirrors(self) -> dict[str, str]:
        table = self.file.document.get("mirrors", {})
        for distro in table:
            if distro not in DISTROS:
                self._refuse(_MIRRORS, distro, "unknown distribution", DISTROS)
        return {
            distro: tree_url(self._text(url, _MIRRORS, distro), self._where(_MIRRORS, distro))
            for distro, url in table.items()
        }

    def catalogs(self) -> list[OwnCatalog]:
        found = []
        for name, table in self.file.document.get("images", {}).items():
            where = ("images", name)
            if not isinstance(table, dict):
                self._refuse(where, None, "expected a table")
            if not _NAME.match(name) or name in TAKEN:
                self._refuse(where, None, "invalid catalog name: use a-z, 0-9 and '-'")
            found.append(self._catalog(name, where, table))
        return found

    def _catalog(self, name: str, where: _Table, table: dict[str, Any]) -> OwnCatalog:
        kind = table.get("type", "template")
        if not isinstance(kind, str) or kind not in _KEYS:
            self._refuse(where, "type", "unknown type: use simplestreams, or omit the key")
        for key in table:
            if key not in _KEYS[kind]:
                self._refuse(where, key, "unknown key", sorted(_KEYS[kind]))
        if "url" not in table:
            self._refuse(where, None, "url is required")
        fingerprints = tuple(
            one.replace(" ", "").upper() for one in self._texts(table, where, "fingerprint")
        )
        for one in fingerprints:
            if not _FINGERPRINT.match(one):
                self._refuse(where, "fingerprint", "expected 40 or 64 hexadecimal digits")
        versions = self._texts(table, where, "versions")
        for one in versions:
            if not _VERSION.match(one):
                self._refuse(where, "versions", f"invalid version {shown(one)}")
        distro = self._text(
            table.get("distro", "ubuntu" if kind != "template" else name), where, "distro"
        )
        if not _NAME.match(distro):
            self._refuse(where, "distro", "expected a word such as debian or rocky: a-z, 0-9, '-'")
        if kind == "simplestreams":
            url = tree_url(self._text(table["url"], where, "url"), self._where(where, "url"))
            checksums = signature = None
        else:
            url, checksums, signature = self._urls(where, table, versions, fingerprints)
        return OwnCatalog(
            name=name,
            kind=kind,
            url=url,
            checksums=checksums,
            signature=signature,
            fingerprints=fingerprints,
            keyring=self._text(table["keyring"], where, "keyring") if "keyring" in table else None,
            versions=versions,
            distro=distro,
        )

    def _urls(
        self,
        where: _Table,
        table: dict[str, Any],
        versions: tuple[str, ...],
        fingerprints: tuple[str, ...],
    ) -> tuple[str, str | None, str | None]:
        url = self._template(where, table, "url")
        if "{version}" not in url and len(versions) != 1:
            self._refuse(where, "url", "{version} is required unless versions has one entry")
        checksums = self._template(where, table, "checksums") if "checksums" in table else None
        signature = None
        if "signature" in table:
            signature = table["signature"]
            if signature != "clear":
                signature = self._template(where, table, "signature")
            if checksums is None or not fingerprints:
                self._refuse(where, "signature", "requires checksums and fingerprint")
        elif fingerprints:
            self._refuse(where, "fingerprint", "requires signature")
        return url, checksums, signature

    def _template(self, where: _Table, table: dict[str, Any], key: str) -> str:
        text = self._text(table[key], where, key)
        bare = text
        for name in PLACEHOLDERS:
            bare = bare.replace(f"{{{name}}}", "x")
        if "{" in bare or "}" in bare:
            self._refuse(
                where, key, "braces hold " + ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            )
        host = text.partition("://")[2].partition("/")[0]
        if "#" in text:
            self._refuse(where, key, f"{hidden(text.partition('#')[0])} has a fragment (#…)")
        if not is_url(bare, query=True) or "{" in host:
            self._refuse(where, key, f"{hidden(text)} is not an http(s) URL")
        return text

    def _texts(self, table: dict[str, Any], where: _Table, key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        return tuple(
            self._text(one, where, key) for one in (value if isinstance(value, list) else [value])
        )

    def _text(self, value: Any, where: _Table, key: str) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            self._refuse(where, key, "expected a string")
        return str(value)

    def _where(self, table: _Table, key: str) -> str:
        return f"{self.file.place}: [{'.'.join(table)}] {key}"

    def _refuse(
        self, table: _Table, key: str | None, why: str, known: Collection[str] = ()
    ) -> NoReturn:
        self.file.refuse(table, key, why, known)
