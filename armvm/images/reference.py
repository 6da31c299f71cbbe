"""Parse image references, the values of ``--image``. Downloads nothing.

::

    ubuntu:24.04  ubuntu:noble  ubuntu:lts      the newest image of a release in a catalog
    ubuntu:24.04/20260911                       a serial of it
    debian:12@generic  ubuntu:24.04/20260911@daily   another kind of image of that release
    ./x.qcow2  /x.img  ~/x                      a file
    https://…  http://…  file:///…  [#sha256=…] a URL, with its expected digest
    local:debian-12                             an image that armvm builds
    local:debian-12+docker.io                   the same with an additional package
"""

from __future__ import annotations

import difflib
import re
import shlex
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from armvm.base.errors import ConfigError
from armvm.settings.catalogs import DISTROS
from armvm.settings.user_path import absolute

#: Distributions with a built-in catalog. The user's own catalogs are added to these.
CATALOGS = DISTROS

#: Valid forms; the hint of every error about a reference.
HINT = (
    "use ubuntu:24.04, debian:12, fedora:43, alpine:3.22, opensuse:tumbleweed, almalinux:10 (with "
    "/SERIAL or @VARIANT after it), local:debian-12, a file such as ./image.qcow2, or an https:// "
    "URL (with #sha256=HEX, so that it can be verified); list images with: armvm image list "
    "--remote"
)

#: Maximum length of a reference, in characters: PATH_MAX.
MAX_LENGTH = 4096

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_RELEASE = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}\Z")
_SERIAL = re.compile(r"[0-9]{1,12}(?:[.-][a-z0-9]{1,12}){0,5}\Z")
_VARIANT = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_LOCAL = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}\Z")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_IMAGE_SUFFIXES = {".qcow2", ".img", ".raw"}


@dataclass(frozen=True, kw_only=True)
class CatalogReference:
    """A release (``24.04``, ``noble``, ``lts``) in a catalog, or a serial of it.

    ``distro`` is the catalog's name. ``variant`` selects an image other than the default one.
    """

    text: str
    distro: str
    release: str
    serial: str | None = None
    variant: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileReference:
    """A file on this host, as an absolute path; ``digest`` is ``sha256:`` and 64 hex digits."""

    text: str
    path: Path
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class UrlReference:
    """An http(s) URL without its fragment. ``text`` is safe to show: no password, no query."""

    text: str
    url: str
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class LocalReference:
    """An image built on this host, by its name (``debian-12``)."""

    text: str
    name: str


Reference = CatalogReference | FileReference | UrlReference | LocalReference


def parse(text: str, *, cwd: Path | None = None, catalogs: Collection[str] = CATALOGS) -> Reference:
    """Parse an image reference; *catalogs* are the names of all catalogs.

    A bare word is a file only if it exists in *cwd* (default: the current directory) or ends
    like an image. Raises ConfigError for an invalid reference.
    """
    if not text.strip():
        raise ConfigError("the image reference is empty", hint=HINT)
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"the image reference is too long ({len(text)} characters)", hint=HINT)
    _refuse_control(text, text)
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return _file(text, text, cwd)
    scheme, colon, rest = text.partition(":")
    if colon and _WORD.match(scheme):
        if rest.startswith("/") or scheme.lower() in ("http", "https", "file"):
            return _url(text, cwd)
        if scheme == "local":
            return _local(text, rest)
        if scheme in catalogs:
            return _catalog(text, scheme, rest)
    here = (cwd or Path()) / text
    if Path(text).suffix.lower() in _IMAGE_SUFFIXES or "/" in text.split(":")[0] or _exists(here):
        return _file(text, text, cwd)
    near = difflib.get_close_matches(scheme, (*catalogs, "local"), n=1)
    if not colon or not _WORD.match(scheme):
        _refuse(f"invalid image reference {text!r}, and no file with that name exists")
    if near:
        _refuse(f"unknown catalog {scheme!r}; did you mean {near[0]}:{rest}?")
    return _refuse(f"unknown catalog {scheme!r} in the image reference {text!r}")


def is_serial(text: str) -> bool:
    """Return whether *text* looks like a serial: ``20260911``, ``20250316-2053``, ``1.14``."""
    return _SERIAL.match(text) is not None


def catalog_text(
    distro: str, release: str, *, serial: str | None = None, variant: str | None = None
) -> str:
    """Return the reference with these parts, as parse() reads it."""
    text = f"{distro}:{release}" + (f"/{serial}" if serial else "")
    return f"{text}@{variant}" if variant else text


def parse_sha256(text: str) -> str | None:
    """Return ``sha256:`` and lower-case hex digits, or None if *text* is not a hex sha256."""
    return f"sha256:{text.lower()}" if _SHA256.match(text) else None


def public_url(url: str) -> str:
    """Return a URL for messages and metadata: no user name, password, query or fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(malformed URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _catalog(text: str, distro: str, rest: str) -> CatalogReference:
    body, at, variant = rest.partition("@")
    release, slash, serial = body.partition("/")
    if not _RELEASE.match(release):
        _refuse(f"invalid release of {distro} in {text!r}")
    if slash and not is_serial(serial):
        _refuse(f"invalid serial {serial!r} in {text!r} (expected a date such as 20260911)")
    if at and not _VARIANT.match(variant):
        _refuse(f"invalid variant {variant!r} in {text!r} (expected a word such as daily)")
    return CatalogReference(
        text=text, distro=distro, release=release, serial=serial or None, variant=variant or None
    )


def _local(text: str, name: str) -> LocalReference:
    if not _LOCAL.match(name):
        _refuse(f"invalid name of a local image: {text!r}")
    return LocalReference(text=text, name=name)


def _url(text: str, cwd: Path | None) -> Reference:
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port  # each may raise ValueError
        decoded = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise ConfigError(f"invalid URL {text!r}: {error}", hint=HINT) from error
    if parts.scheme == "oci":
        raise ConfigError(
            f"{text!r} must be pulled first",
            hint=f"armvm image pull {shlex.quote(text)} --as NAME, then use --image local:NAME",
        )
    if parts.scheme not in ("http", "https", "file"):
        _refuse(f"unsupported scheme {parts.scheme}:// in {text!r}")
    digest = _fragment(parts, text)
    if parts.scheme == "file":
        if host not in (None, "", "localhost") or not decoded.startswith("/") or parts.query:
            _refuse(f"invalid file URL {text!r} (expected file:///PATH)")
        return _file(text, decoded, cwd, digest)
    if not host or " " in text:
        _refuse(f"invalid image URL {text!r}")
    bare = urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))
    return UrlReference(text=public_url(bare), url=bare, digest=digest)


def _fragment(parts: SplitResult, text: str) -> str | None:
    if not parts.fragment:
        return None
    kind, _, value = parts.fragment.partition("=")
    digest = parse_sha256(value) if kind.lower() == "sha256" else None
    if digest is None:
        _refuse(f"invalid fragment in {text!r} (expected #sha256= and 64 hex digits)")
    return digest


def _file(text: str, path: str, cwd: Path | None, digest: str | None = None) -> FileReference:
    _refuse_control(path, text)
    try:
        expanded = Path(path).expanduser() if path.startswith("~") else Path(path)
    except RuntimeError as error:
        raise ConfigError(f"{text!r}: {error}", hint=HINT) from error
    whole = cwd / expanded if cwd else absolute(expanded)
    _refuse_control(str(whole), str(whole))
    return FileReference(text=text, path=whole, digest=digest)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long
        return False


def has_control(text: str) -> bool:
    """Return whether text has characters that must not reach terminals, headers or XML."""
    # XML does not allow the last two.
    return any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in "\ufffe\uffff" for c in text)


def _refuse_control(value: str, text: str) -> None:
    if has_control(value):
        raise ConfigError(f"the image reference {text[:80]!a} has control characters", hint=HINT)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message, hint=HINT)
