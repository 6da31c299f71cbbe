"""A client for OCI registries: the requests that goldens need.

Sources: the OCI distribution specification 1.1; the token authentication of the Docker registry.
oras from PyPI (0.2.43) does not fit: it reads a blob into memory to send it, cannot resume a
download, and encodes manifests itself, so that their digests change.

Everything that a registry answers is untrusted: manifests and blobs are verified by their digest.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit

from armvm.base.errors import FetchFailed
from armvm.images.fetch import json_document
from armvm.images.fetch.http import (
    MAX_REDIRECTS,
    REDIRECTS,
    TRANSIENT,
    ignore_redirects,
    new_session,
)
from armvm.images.fetch.http_errors import Transient, status_text, translated
from armvm.images.oci.credentials import credentials
from armvm.images.oci.document import (
    INDEX,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    check_blob,
    describe,
    dump,
    load_entries,
    load_referrers,
)
from armvm.images.oci.reference import OciReference, is_loopback
from armvm.settings.names import shown

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

#: Seconds to connect, and for each silence; a registry may verify a large blob before it answers.
_TIMEOUTS = (10.0, 120.0)
_COPY = 1 << 20
#: Bytes to receive at once: if the connection is lost, less than this is lost with it.
_PIECE = 1 << 16
_AT_FAULT = "the error is in the registry or a proxy"
#: Scheme, host and port of a server.
_Origin: TypeAlias = tuple[str, str, int]
#: The length of a name is limited, because the search is quadratic in it.
_CHALLENGE = re.compile(r'(\w{1,32})="([^"]*)"')


class Refused(FetchFailed):
    """The registry refused a request, or gave an invalid answer: repeating it does not help."""


@dataclass
class Registry:
    """A repository in a registry. Methods raise Unreachable and FetchFailed."""

    reference: OciReference
    session: Session = field(default_factory=new_session)
    _authorization: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ignore_redirects(self.session)

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
            "GET", f"manifests/{wanted}", headers={"Accept": f"{MANIFEST}, {INDEX}"}
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
        with self._request("GET", f"blobs/{blob.digest}", headers=headers) as response:
            cannot_resume = bool(start) and response.status_code == 416
            if not cannot_resume:
                self._expect(response, {200, 206})
                begins = start if response.status_code == 206 else 0
                yield begins, response.raw.stream(_PIECE, decode_content=False)
        if cannot_resume:
            with self.blob(blob) as whole:
                yield whole

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
        url = self._place(f"{self.reference.url}/blobs/uploads/", location, "sends uploads")
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

    def referrers(self, digest: str, artifact_type: str) -> tuple[Descriptor, ...]:
        """Return the manifests of a type whose subject has a digest."""
        path = f"referrers/{digest}?{urlencode({'artifactType': artifact_type})}"
        with self._request("GET", path, headers={"Accept": INDEX}) as response:
            data = self._limited(response) if response.status_code == 200 else None
        return load_referrers(
            self._tagged_referrers(digest) if data is None else data, artifact_type, self.name
        )

    def add_referrer(self, digest: str, referrer: Descriptor) -> None:
        """List a referrer under a tag, for a registry without a list of its own."""
        known = load_entries(self._tagged_referrers(digest), self.name)
        others = [one for one in known if one.get("digest") != referrer.digest]
        index = {
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, referrer.document()],
        }  # fmt: skip
        self.put_manifest(dump(index), _referrers_tag(digest))

    def _tagged_referrers(self, digest: str) -> bytes:
        path = f"manifests/{_referrers_tag(digest)}"
        with self._request("GET", path, headers={"Accept": INDEX}) as response:
            if response.status_code == 404:
                return dump({"schemaVersion": 2, "manifests": []})
            self._expect(response, {200})
            return self._limited(response)

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[], Any] | None = None,
    ) -> Iterator[Response]:
        """Send a request, with credentials if the registry asks for them; the body is not read."""
        url = path if "://" in path else f"{self.reference.url}/{path}"

        def send() -> tuple[Response, str]:
            return self._send(method, url, headers or {}, self._authorization, self._home, body)

        with _errors(url):
            response, answering = send()
            # Only the registry itself may ask: it decides where the password is sent.
            if response.status_code == 401 and _origin(answering) == self._home:
                response.close()
                if self._authorize(response, method):
                    response, _ = send()
            with response:
                yield response

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: Mapping[str, str],
        home: _Origin,
        body: Callable[[], Any] | None = None,
    ) -> tuple[Response, str]:
        """Return the answer to a request, and the URL that gave it.

        Redirects are followed; *authorization* is sent to the server *home* only.
        """
        # 301 to 303 would turn an upload into a GET.
        follows = REDIRECTS if method in ("GET", "HEAD") else {307, 308}
        for _ in range(MAX_REDIRECTS + 1):
            ours = authorization if _origin(url) == home else {}
            response = self.session.request(
                method,
                url,
                # The digest and the Range count the bytes that the registry has.
                headers={"Accept-Encoding": "identity", **headers, **ours},
                auth=_unchanged,
                data=None if body is None else body(),
                stream=True,
                timeout=_TIMEOUTS,
                allow_redirects=False,
            )
            target = response.headers.get("Location")
            if response.status_code not in follows or not target:
                return response, url
            response.close()
            url = self._place(url, target, "redirects", reading=method in ("GET", "HEAD"))
        raise Refused(f"{self.name}: the registry redirects more than {MAX_REDIRECTS} times")

    @property
    def _home(self) -> _Origin:
        return _origin(self.reference.url)

    def _place(self, base: str, text: str, what: str, *, reading: bool = False) -> str:
        """Return a URL that a server gave. Raises Refused if it is invalid or insecure.

        A registry on this host may use plain http here, and for *reading*, which sends no password,
        on any host.
        """
        try:
            url = urljoin(base, text)
            scheme, host, _ = _origin(url)
        except ValueError:
            scheme = host = ""
        if not host:
            raise Refused(
                f"{self.name}: the registry {what} to an invalid URL: {shown(text)}", hint=_AT_FAULT
            )
        plain = self._home[0] == scheme == "http"
        if scheme != "https" and not (plain and (reading or is_loopback(urlsplit(url).netloc))):
            raise Refused(
                f"{self.name}: the registry {what} to an insecure URL: "
                f"{shown(f'{scheme}://{host}')}",
                hint=_AT_FAULT,
            )
        return url

    def _authorize(self, response: Response, method: str) -> bool:
        """Get an authorization for what *response* refused; return whether there is a new one."""
        kind, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        known = credentials(self.reference.host)
        basic = {} if known is None else {"Authorization": _basic(*known)}
        before = dict(self._authorization)
        if kind.lower() == "basic" and basic:
            self._authorization = basic
        elif kind.lower() == "bearer":
            asked = dict(_CHALLENGE.findall(rest))
            wants = {key: asked[key] for key in ("service", "scope") if key in asked}
            if method not in ("GET", "HEAD"):
                wants["scope"] = f"repository:{self.reference.repository}:pull,push"
            token = self._token(asked.get("realm", ""), wants, basic)
            if token is not None:
                self._authorization = {"Authorization": f"Bearer {token}"}
        return self._authorization != before

    def _token(self, realm: str, wants: dict[str, str], basic: dict[str, str]) -> str | None:
        """Return a token from the service at *realm*; None if it gives none."""
        url = self._place("", realm, "sends logins")
        url += ("&" if urlsplit(url).query else "?") + urlencode(wants)
        with _errors(url):
            told, _ = self._send("GET", url, {}, basic, _origin(url))
            with told:
                if told.status_code in TRANSIENT:
                    raise FetchFailed(
                        f"{self.name}: the registry's login service failed: "
                        f"{status_text(told.status_code)}",
                        hint="try again later",
                    )
                if told.status_code != 200:
                    return None
                data = self._limited(told)
        try:
            answer = json_document.load(data)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            return None
        return token if isinstance(token, str) and token.isascii() and token.isprintable() else None

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
        lasting = 400 <= code < 500 and code not in TRANSIENT
        raise (Refused if lasting else FetchFailed)(
            f"{self.name}: the registry answered {status_text(code)}", hint=hint
        )

    def _limited(self, response: Response) -> bytes:
        data = b""
        for piece in response.raw.stream(_PIECE, decode_content=False):
            data += piece
            if len(data) > MAX_DOCUMENT:
                raise Refused(f"{self.name}: the registry sent a document that is too large")
        return data


@contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        with translated(url):
            yield
    except Transient as failure:
        raise failure.error from failure


def _origin(url: str) -> _Origin:
    """Return a URL's scheme, host and port. Raises ValueError."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", parts.port or default


def _basic(user: str, password: str) -> str:
    """Return the header for HTTP's basic authentication, in UTF-8 (RFC 7617, section 2.1)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode(errors="replace")).decode()


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    """Keep requests from adding a password of its own, from ~/.netrc or a URL."""
    return request


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
