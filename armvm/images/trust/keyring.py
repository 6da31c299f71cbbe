"""Find the certificate of a pinned key: in the system's keyrings, or once on a key server.

The fingerprint identifies the key, and every copy is checked against it: neither the key server
nor the file in the user's directory has to be trusted.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from armvm.base.errors import ArmvmError, ConfigError, FetchFailed, SignatureInvalid, Unreachable
from armvm.base.paths import data_dir, private_dir, write_atomic
from armvm.base.progress import Progress
from armvm.images.fetch import documents
from armvm.images.fetch.http import Web
from armvm.images.trust import packets
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import grouped
from armvm.settings.config_file import top_level
from armvm.settings.names import shown

#: Key servers, in order. Both return user IDs, which gpgv requires; keys.openpgp.org omits
#: them.
SERVERS = ("https://keyserver.ubuntu.com", "https://pgpkeys.eu")

#: The variable and the key in config.toml for other key servers.
VARIABLE, SETTING = "ARMVM_KEYSERVER", "keyserver"

#: Maximum size of a key server's answer, in bytes: keys have been flooded with signatures.
MAX_ANSWER = 4 << 20

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NAME = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?\Z")


#: The hint if a signature is missing or invalid.
WEAKER = "--verify digest skips the signature"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A certificate (binary), and the file that contains it."""

    path: Path
    data: bytes


@dataclass(frozen=True, kw_only=True)
class KeyStore:
    """Finds certificates of pinned keys, and keeps downloaded ones below ``directory``.

    ``servers`` are https URLs. ``http_loopback`` allows plain http to this host itself, where
    nobody can intercept it.
    """

    directory: Path
    servers: tuple[str, ...] = SERVERS
    http_loopback: bool = False

    @classmethod
    def default(
        cls, environ: Mapping[str, str] = os.environ, files: Sequence[Path] = ()
    ) -> KeyStore:
        """The user's own, with the key servers from ``ARMVM_KEYSERVER`` or *files*.

        Raises ConfigError for an invalid list of https URLs.
        """
        if environ.get(VARIABLE):
            servers = _servers(environ[VARIABLE].split(), VARIABLE)
        elif found := top_level(SETTING, files):
            value, origin = found
            servers = _servers([value] if isinstance(value, str) else value, origin)
        else:
            servers = SERVERS
        return cls(directory=data_dir() / "keys", servers=servers)

    def have(self, key: Key) -> list[Copy]:
        """Return a key's certificates on this host: the system's, then the downloaded one.

        They may differ in expiry date and subkeys. A file that cannot be read, or contains
        another key, is skipped; see problems().
        """
        copies: list[Copy] = []
        for path in (*map(Path, key.keyrings), self.path(key)):
            found = _read(path, key)
            if isinstance(found, bytes) and found not in (one.data for one in copies):
                copies.append(Copy(path=path, data=found))
        return copies

    def problems(self, key: Key) -> list[str]:
        """Return why the user's own keyring files cannot be used."""
        looked = [(path, _read(Path(path), key)) for path in key.keyrings if key.own]
        return [
            f"keyring {shown(path, 200)} of the catalog {key.owner} cannot be used: {found}"
            for path, found in looked
            if isinstance(found, str)
        ]

    def fetch(self, web: Web, key: Key, progress: Progress) -> bytes:
        """Return a key's certificate from a key server, and store it.

        Raises SignatureInvalid if the servers do not have it (or answer with another key),
        Unreachable if none answers, ConfigError for a server without https.
        """
        failures: list[ArmvmError] = []
        for server in self.servers:
            self._check(server)
            url = f"{server.rstrip('/')}/pks/lookup?op=get&options=mr&search=0x{key.fingerprint}"
            try:
                found = _answer(web, url, key, progress)
            except (FetchFailed, Unreachable, SignatureInvalid) as error:
                failures.append(error)
                continue
            self._keep(key, found, progress)
            return found
        # The most informative error: a wrong answer, then key not found, then no answer.
        order = (SignatureInvalid, FetchFailed, Unreachable)
        ranked = [error for kind in order for error in failures if isinstance(error, kind)]
        worst = ranked[0] if ranked else None
        if worst is None:
            raise ConfigError("no key server is configured", hint=f"set {VARIABLE}")
        kind = Unreachable if isinstance(worst, Unreachable) else SignatureInvalid
        raise kind(
            f"cannot get the key of {key.owner}: {worst.message}",
            detail=worst.detail or f"expected {grouped(key.fingerprint)}",
            hint=f"{where_from(key)}, or set another key server in {VARIABLE}; {WEAKER}",
        ) from worst

    def _keep(self, key: Key, certificate: bytes, progress: Progress) -> None:
        path = self.path(key)
        try:
            private_dir(path.parent)
            write_atomic(path, certificate)
        except OSError as error:  # it is verified anyway; the next run downloads it again
            progress.warn(f"cannot store the key of {key.owner} at {path}: {error.strerror}")
        else:
            progress.say(f"stored the key of {key.owner} ({grouped(key.fingerprint)}): {path}")

    def path(self, key: Key) -> Path:
        """Return the path of a stored certificate."""
        if not _NAME.match(key.fingerprint):
            raise ValueError(f"not a fingerprint: {key.fingerprint!r}")
        return self.directory / f"{key.fingerprint}.pgp"

    def _check(self, server: str) -> None:
        parts = _url(server)
        if parts == "https" or (self.http_loopback and parts == "loopback"):
            return
        raise ConfigError(
            f"invalid key server {shown(server)}",
            hint=f"use https URLs in {VARIABLE}, for example {SERVERS[0]}",
        )


def where_from(key: Key) -> str:
    """Return how to get a key's file, as the start of a hint."""
    if key.package:
        return f"install the package that has the key: {key.package}"
    return "set keyring = FILE in config.toml to a file with the key"


def _read(path: Path, key: Key) -> bytes | str:
    """Return a key's certificate from a file, or why it cannot be used."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "it is not a regular file"
        if status.st_size > packets.MAX_KEYS:
            return f"it is too large ({status.st_size} bytes)"
        found = _find(packets.certificates(path.read_bytes()), key)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return f"not a key file: {error}"
    return found or f"it does not contain the key {grouped(key.fingerprint)}"


def _find(certificates: list[packets.Certificate], key: Key) -> bytes | None:
    """Return a key's certificate from the certificates in a file."""
    for certificate in certificates:
        if certificate.fingerprint == key.fingerprint and certificate.named:
            return certificate.data
    return None


def _answer(web: Web, url: str, key: Key, progress: Progress) -> bytes:
    data = documents.document(web, url, progress=progress, limit=MAX_ANSWER)
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        others = packets.certificates(data)
    except ValueError as error:
        raise FetchFailed(f"{host} answered without a key ({error})") from error
    if (found := _find(others, key)) is not None:
        return found
    if any(other.fingerprint == key.fingerprint for other in others):
        raise FetchFailed(f"{host} has the key without its user ID, which gpgv requires")
    raise SignatureInvalid(
        f"{host} answered with another key",
        detail="\n".join(
            [f"expected {grouped(key.fingerprint)}"]
            + [f"answered {grouped(other.fingerprint)}" for other in others[:5]]
        ),
    )


def _servers(values: Any, origin: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{origin}: expected a URL or a list of URLs for {SETTING}")
    for one in values:
        if _url(one) != "https":
            raise ConfigError(
                f"{origin}: invalid key server {shown(one)}",
                hint=f"expected an https URL, for example {SERVERS[0]}",
            )
    return tuple(values)


def _url(server: str) -> str | None:
    """Return the access to a server: ``https``, ``loopback`` (http), or None."""
    try:
        parts = urlsplit(server)
        sound = parts.hostname and parts.port != 0 and server.isprintable() and " " not in server
    except ValueError:
        return None
    if not sound or parts.query or parts.fragment:
        return None
    if parts.scheme == "http":
        return "loopback" if parts.hostname in _LOOPBACK else None
    return "https" if parts.scheme == "https" else None
