"""A client for OCI registries: the requests that goldens need.

Sources: the OCI distribution specification 1.1; the token authentication of the Docker registry.
oras from PyPI (0.2.43) does not fit: it reads a blob into memory to send it, cannot resume a
download, and encodes manifests itself, so that their digests change.

Everything that a registry answers is untrusted: manifests and blobs are verified by their digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from armvm.base.errors import FetchFailed
from armvm.images.fetch.http import new_session
from armvm.images.fetch.http_errors import Transient, translated
from armvm.images.oci.credentials import credentials
from armvm.images.oci.document import (
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    check_blob,
    describe,
    dump_index,
    load_index,
)
from armvm.images.oci.reference import OciReference

if TYPE_CHECKING:
    from requests import Response, Session

#: Seconds to connect, and for each silence; a registry may verify a large blob before it answers.
_TIMEOUTS = (10.0, 120.0)
_COPY = 1 << 20
#: Bytes to receive at once: if the connection is lost, less than this is lost with it.
_PIECE = 1 << 16
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Registry:
    """A repository in a registry. Methods raise Unreachable and FetchFailed."""

    reference: OciReference
    session: Session = field(default_factory=new_session)
    _authorization: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The reference, for messages."""
        return str(self.reference)

    def manifest(self, wanted: str | None = None) -> tuple[Descriptor, bytes]:
        """Return a manifest, verified if its digest is known; *wanted* is a tag or digest.

        By default it is the reference's. Raises FetchFailed, DigestMismatch, Unreachable.
        """
        wanted = wanted or self.reference.digest or self.reference.tag
        with self._request(
            "GET", f"manifests/{wanted}", headers={"Accept": f"{MANIFEST}, {INDEX}"}, stream=True
        ) as response:
            self._expect(response, {200})
            data = self._limited(response)
        found = describe(data, response.headers.get("Content-Type", MANIFEST).split(";")[0])
        if wanted.startswith("sha256:"):
            check_blob(
                data, Descriptor(media_type=MANIFEST, digest=wanted, size=len(data)), self.name
            )
        return found, data

    def digest(self) -> str:
        """Return the digest of the reference's manifest."""
        return self.reference.digest or self.manifest()[0].digest

    @contextmanager
    def blob(self, blob: Descriptor, start: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield the offset at which the registry starts, and a blob's bytes from there."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        # The Range counts the blob's bytes, so no other encoding may be applied.
        headers["Accept-Encoding"] = "identity"
        with self._request("GET", f"blobs/{blob.digest}", headers=headers, stream=True) as response:
            if start and response.status_code == 416:
                yield 0, iter(())
                return
            self._expect(response, {200, 206})
            yield (start if response.status_code == 206 else 0), response.iter_content(_PIECE)

    def has(self, blob: Descriptor) -> bool:
        """Return whether the repository has a blob."""
        with self._request("HEAD", f"blobs/{blob.digest}") as response:
            if response.status_code == 404:
                return False
            self._expect(response, {200})
            return True

    def put_blob(self, blob: Descriptor, source: bytes | Path, told: Callable[[int], None]) -> None:
        """Send a blob; *told* is called with the bytes sent."""
        with self._request("POST", "blobs/uploads/") as response:
            self._expect(response, {202})
            location = response.headers.get("Location", "")
        url = urljoin(f"{self.reference.url}/blobs/uploads/", location)
        if urlsplit(url).netloc != self.reference.host and urlsplit(url).scheme != "https":
            raise FetchFailed(f"{self.name}: the registry sends uploads to an insecure place")
        url += ("&" if urlsplit(url).query else "?") + urlencode({"digest": blob.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        with self._request(
            "PUT", url, headers=headers, body=lambda: _pieces(source, told)
        ) as response:
            self._expect(response, {201})

    def put_manifest(self, data: bytes, where: str) -> bool:
        """Send a manifest as a tag or digest.

        Returns whether the registry lists it as a referrer of its subject.
        """
        headers = {"Content-Type": MANIFEST}
        if json.loads(data).get("mediaType") == INDEX:
            headers = {"Content-Type": INDEX}
        with self._request(
            "PUT", f"manifests/{where}", headers=headers, body=lambda: data
        ) as response:
            self._expect(response, {201})
            return "OCI-Subject" in response.headers

    def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject has a digest."""
        with self._request(
            "GET", f"referrers/{digest}", headers={"Accept": INDEX}, stream=True
        ) as response:
            if response.status_code == 200:
                return load_index(self._limited(response), self.name)
        return self._tagged_referrers(digest)

    def add_referrer(self, digest: str, referrer: Descriptor) -> None:
        """List a referrer under a tag, for a registry without a list of its own."""
        known = [one for one in self._tagged_referrers(digest) if one.digest != referrer.digest]
        self.put_manifest(dump_index([*known, referrer]), _referrers_tag(digest))

    def _tagged_referrers(self, digest: str) -> tuple[Descriptor, ...]:
        with self._request(
            "GET", f"manifests/{_referrers_tag(digest)}", headers={"Accept": INDEX}, stream=True
        ) as response:
            if response.status_code == 404:
                return ()
            self._expect(response, {200})
            return load_index(self._limited(response), self.name)

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        stream: bool = False,
        body: Callable[[], Any] | None = None,
    ) -> Iterator[Response]:
        """Send a request, with credentials if the registry asks for them."""
        url = path if "://" in path else f"{self.reference.url}/{path}"

        def send() -> Response:
            ours = urlsplit(url).netloc == self.reference.host
            return self.session.request(
                method,
                url,
                headers={**(headers or {}), **(self._authorization if ours else {})},
                data=None if body is None else body(),
                stream=stream,
                timeout=_TIMEOUTS,
            )

        with _errors(url):
            response = send()
            if response.status_code == 401 and self._authorize(response, method):
                response.close()
                response = send()
            with response:
                yield response

    def _authorize(self, response: Response, method: str) -> bool:
        """Get an authorization for what *response* refused; return whether there is a new one."""
        kind, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        known = credentials(self.reference.host)
        before = dict(self._authorization)
        if kind.lower() == "basic" and known is not None:
            import requests.auth

            header = requests.auth._basic_auth_str(*known)
            self._authorization = {"Authorization": header}
        elif kind.lower() == "bearer":
            asked = dict(_CHALLENGE.findall(rest))
            realm = asked.pop("realm", "")
            if urlsplit(realm).scheme != "https" and urlsplit(self.reference.url).scheme == "https":
                raise FetchFailed(f"{self.name}: the registry asks to log in at an insecure place")
            wants = {key: asked[key] for key in ("service", "scope") if key in asked}
            if method not in ("GET", "HEAD"):
                wants["scope"] = f"repository:{self.reference.name}:pull,push"
            with _errors(realm):
                told = self.session.get(realm, params=wants, auth=known, timeout=_TIMEOUTS)
            token: Any = None
            if told.status_code == 200:
                try:
                    answer = told.json()
                    token = answer.get("token") or answer.get("access_token")
                except (ValueError, AttributeError):
                    token = None
            if isinstance(token, str) and token.isascii() and token.isprintable():
                self._authorization = {"Authorization": f"Bearer {token}"}
        return self._authorization != before

    def _expect(self, response: Response, codes: set[int]) -> None:
        code = response.status_code
        if code in codes:
            return
        host = self.reference.host
        hint = {
            401: f"log in: docker login {host} (or podman login {host})",
            403: f"this user may not do that; log in as another: docker login {host}",
            404: "check the name and the tag",
            429: "the registry limits requests: try again later, or log in",
        }.get(code, "try again later")
        raise FetchFailed(
            f"{self.name}: the registry answered {code} {response.reason or ''}".rstrip(), hint=hint
        )

    def _limited(self, response: Response) -> bytes:
        data = b""
        for piece in response.iter_content(1 << 16):
            data += piece
            if len(data) > MAX_DOCUMENT:
                raise FetchFailed(f"{self.name}: the registry sent a document that is too large")
        return data


@contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        with translated(url):
            yield
    except Transient as failure:
        raise failure.error from failure


def _referrers_tag(digest: str) -> str:
    return digest.replace(":", "-")


def _pieces(source: bytes | Path, told: Callable[[int], None]) -> Any:
    """Return a body for requests that is read piece by piece."""
    if isinstance(source, bytes):
        return source
    return _Body(source, told)


class _Body:
    """A file's bytes as the body of a request; its length makes requests send no chunks."""

    def __init__(self, path: Path, told: Callable[[int], None]) -> None:
        self._path, self._told, self._size = path, told, path.stat().st_size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        with self._path.open("rb") as file:
            while piece := file.read(_COPY):
                yield piece
                done += len(piece)
                self._told(done)
