"""Registries that answer wrongly: what is sent to whom, how much is read, and what is said."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter

from armvm.base.errors import DigestMismatch, FetchFailed, HostileImage, UsageError
from armvm.base.progress import Quiet
from armvm.images.fetch.http import Web, get
from armvm.images.oci import blobs, document
from armvm.images.oci.blobs import Blobs
from armvm.images.oci.credentials import credentials
from armvm.images.oci.document import MANIFEST, Descriptor, Manifest, describe
from armvm.images.oci.reference import parse
from armvm.images.oci.registry import Refused, Registry
from armvm.provision.golden import signature
from armvm.provision.golden.pull import _signatures

DATA = b"secret memory"
BLOB = describe(DATA, "a/b")
#: Status, headers and body for a method, a path, and request headers in lower case.
Answer = tuple[int, dict[str, str], bytes]
Answers = Callable[["Request"], Answer]


@dataclass(frozen=True)
class Request:
    method: str
    url: str
    headers: dict[str, str]


@dataclass
class Server:
    """A server on loopback, and what it was asked."""

    host: str
    requests: list[Request] = field(default_factory=list)

    @property
    def logins(self) -> set[str]:
        return {one.headers["authorization"] for one in self.requests if "authorization" in
                one.headers}  # fmt: skip

    def registry(self) -> Registry:
        return Registry(parse(f"oci://{self.host}/a:b"))


@contextmanager
def serving(answers: Answers, phrase: str | None = None) -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key.lower(): value for key, value in self.headers.items()}
            found.requests.append(request := Request(self.command, self.path, headers))
            code, more, data = answers(request)
            self.send_response(code, phrase)
            for key, value in {"Content-Length": str(len(data)), **more}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_POST = do_PUT = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Server(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Runs servers; the cache, and docker's file with logins, are the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    with ExitStack() as servers:
        yield lambda *words, **more: servers.enter_context(serving(*words, **more))


def log_in(tmp_path: Path, host: str, password: str = "secret") -> None:
    auth = base64.b64encode(f"ann:{password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def bearer(realm: str) -> Answer:
    return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}, b""


@dataclass
class Secure(BaseAdapter):
    """Answers for https URLs: a server with a certificate that requests trusts needs a real name.

    It notes method, URL and Authorization.
    """

    answers: Callable[[str, str], Answer]
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)

    def send(self, request: Any, *_args: Any, **_options: Any) -> requests.Response:
        self.seen.append((request.method, request.url, request.headers.get("Authorization")))
        code, headers, data = self.answers(request.method, request.url)
        response = requests.Response()
        response.status_code, response.url = code, request.url
        response.headers.update(headers)
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(data), headers=headers, status=code, preload_content=False
        )
        return response

    def close(self) -> None:
        pass

    def registry(self) -> Registry:
        found = Registry(parse("oci://reg.example/a:b"))
        for scheme in ("http://", "https://"):
            found.session.mount(scheme, self)
        return found


# --- to whom the password goes ---


def test_a_password_goes_to_the_registrys_own_realm(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    def answers(request: Request) -> Answer:
        if request.url.startswith("/token"):
            return 200, {}, b'{"access_token": "t"}'
        if request.headers.get("authorization") != "Bearer t":
            return bearer(f"http://{request.headers['host']}/token")
        return 200, {}, b"{}"

    server = serve(answers)
    log_in(tmp_path, server.host, "€")
    assert server.registry().manifest()[1] == b"{}"
    assert base64.b64decode(sorted(server.logins)[0].split()[1]).decode() == "ann:€"


@pytest.mark.parametrize("challenge", ['Bearer realm="http://{}/token"', 'Basic realm="x"'])
def test_another_host_cannot_ask_for_the_password(
    serve: Callable[..., Server], tmp_path: Path, challenge: str
) -> None:
    def evil(request: Request) -> Answer:
        return 401, {"WWW-Authenticate": challenge.format(request.headers["host"])}, b""

    other = serve(evil)
    for code in (301, 302, 303, 307, 308):
        server = serve(
            lambda _request, code=code: (code, {"Location": f"http://{other.host}/"}, b"")
        )
        log_in(tmp_path, server.host)
        with pytest.raises(FetchFailed, match="401"):
            server.registry().manifest()
    assert (len(other.requests), other.logins) == (5, set())


def test_a_redirect_takes_no_authorization_along(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    other = serve(lambda _request: (200, {}, DATA))

    def answers(request: Request) -> Answer:
        if "authorization" not in request.headers:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        if request.method == "POST":
            return 202, {"Location": f"http://{other.host}/upload"}, b""
        return 307, {"Location": f"http://{other.host}/blob"}, b""

    server = serve(answers)
    log_in(tmp_path, server.host)
    registry = server.registry()
    with registry.blob(BLOB) as (_, pieces):
        assert b"".join(pieces) == DATA
    with pytest.raises(FetchFailed, match="200"):
        registry.put_blob(BLOB, DATA, lambda _done: None)
    assert [one.method for one in other.requests] == ["GET", "PUT"]
    assert other.logins == set()


def test_netrc_does_not_replace_a_token(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve(lambda _request: (200, {}, b"{}"))
    server.registry().manifest()
    assert server.logins == set()


def test_https_leads_to_https_only(tmp_path: Path, serve: Callable[..., Server]) -> None:
    log_in(tmp_path, "reg.example")
    moved = Secure(lambda _method, _url: (302, {"Location": "http://reg.example/m"}, b""))
    with pytest.raises(Refused, match="redirects to an insecure URL"):
        moved.registry().manifest()
    upload = Secure(lambda _method, _url: (202, {"Location": "http://reg.example/u"}, b""))
    with pytest.raises(Refused, match="sends uploads to an insecure URL"):
        upload.registry().put_blob(BLOB, DATA, lambda _done: None)
    realm = Secure(lambda _method, _url: bearer("http://reg.example/token"))
    with pytest.raises(Refused, match="sends logins to an insecure URL"):
        realm.registry().manifest()
    for one in (moved, upload, realm):
        assert [(url[:8], login) for _, url, login in one.seen] == [("https://", None)]
    del serve


def test_a_port_is_part_of_the_registry(tmp_path: Path, serve: Callable[..., Server]) -> None:
    log_in(tmp_path, "reg.example")
    urls = iter(["https://reg.example:443/u", "https://reg.example:8443/u"])

    def answers(method: str, _url: str) -> Answer:
        if not secure.seen[-1][2] and method == "POST":
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return (202, {"Location": next(urls)}, b"") if method == "POST" else (201, {}, b"")

    secure = Secure(answers)
    registry = secure.registry()
    for _ in range(2):
        registry.put_blob(BLOB, DATA, lambda _done: None)
    assert [login is not None for method, _, login in secure.seen if method == "PUT"] == [
        True, False
    ]  # fmt: skip
    del serve


# --- invalid answers ---


@pytest.mark.parametrize(
    "answer",
    [
        bearer("http://["), bearer(""), bearer("https:///x"), bearer("ftp://x/"),
        (401, {"WWW-Authenticate": "Bearer"}, b""),
        (302, {"Location": "https://["}, b""), (302, {"Location": "https://x:99999/"}, b""),
        (302, {"Location": "file:///etc/passwd"}, b""), (302, {"Location": "/loop"}, b""),
    ],
    ids=str,
)  # fmt: skip
def test_invalid_places_are_errors(serve: Callable[..., Server], answer: Answer) -> None:
    with pytest.raises(Refused):
        serve(lambda _request: answer).registry().manifest()


def test_an_invalid_place_for_an_upload(serve: Callable[..., Server]) -> None:
    server = serve(lambda _request: (202, {"Location": "https://["}, b""))
    with pytest.raises(Refused, match="sends uploads to an invalid URL"):
        server.registry().put_blob(BLOB, DATA, lambda _done: None)


@pytest.mark.parametrize(
    "token", [b"[" * 200_000, b"", b"[]", b'{"token": 5}', b'{"token": "\\n"}']
)
def test_invalid_tokens_are_none(serve: Callable[..., Server], token: bytes) -> None:
    def answers(request: Request) -> Answer:
        if request.url.startswith("/token"):
            return 200, {}, token
        return bearer(f"http://{request.headers['host']}/token")

    with pytest.raises(Refused, match="401"):
        serve(answers).registry().manifest()


def test_a_long_challenge_takes_no_time() -> None:
    challenge = {"WWW-Authenticate": "Bearer " + "a" * 60_000}
    started = time.monotonic()
    with pytest.raises(Refused):
        Secure(lambda _method, _url: (401, challenge, b"")).registry().manifest()
    assert time.monotonic() - started < 5


def test_answers_are_read_up_to_a_limit(serve: Callable[..., Server]) -> None:
    def endless(request: Request) -> Answer:
        if request.url.startswith("/token"):
            return 200, {"Content-Length": str(1 << 40)}, bytes(document.MAX_DOCUMENT + 1)
        return bearer(f"http://{request.headers['host']}/token")

    with pytest.raises(Refused, match="too large"):
        serve(endless).registry().manifest()
    # Nobody needs the body of these answers.
    for status in (202, 401):
        answer = status, {"Content-Length": str(1 << 40), "Location": "/u"}, b"x"
        server = serve(lambda _request, answer=answer: answer)
        with pytest.raises(FetchFailed, match=str(status)):
            server.registry().put_blob(BLOB, DATA, lambda _done: None)


def test_a_large_blob_is_no_document(serve: Callable[..., Server]) -> None:
    large = Descriptor(media_type="a/b", digest=BLOB.digest, size=document.MAX_DOCUMENT + 1)
    server = serve(lambda _request: (200, {}, b""))
    with pytest.raises(HostileImage, match="too large"):
        Blobs(server.registry(), Quiet()).document(large)
    assert server.requests == []


def test_the_servers_own_words_are_not_shown(serve: Callable[..., Server]) -> None:
    server = serve(lambda _request: (404, {}, b""), phrase="\x1b[2J")
    with pytest.raises(Refused, match=r"answered 404 Not Found$"):
        server.registry().manifest()
    with (
        pytest.raises(FetchFailed, match=r"answered 404 Not Found$"),
        get(Web(), f"http://{server.host}/", verified=False),
    ):
        pass


# --- downloads ---


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_blob_is_asked_for_once(serve: Callable[..., Server], status: int) -> None:
    server = serve(lambda _request: (status, {}, b""))
    with pytest.raises(Refused, match=str(status)):
        Blobs(server.registry(), Quiet()).document(BLOB)
    assert len(server.requests) == 1
    assert [one.name for one in blobs.directory().iterdir() if one.suffix == ".part"] == []


def test_a_busy_registry_is_asked_again(serve: Callable[..., Server]) -> None:
    codes = iter([503, 200])
    server = serve(lambda _request: (next(codes), {}, DATA))
    assert Blobs(server.registry(), Quiet()).document(BLOB) == DATA


def test_a_registry_that_cannot_resume_starts_again(serve: Callable[..., Server]) -> None:
    part = blobs.directory() / f".{BLOB.digest.replace(':', '-')}.part"
    part.write_bytes(b"x")
    server = serve(
        lambda request: (416, {}, b"") if "range" in request.headers else (200, {}, DATA)
    )
    assert Blobs(server.registry(), Quiet()).document(BLOB) == DATA
    assert len(server.requests) == 2


def test_a_changed_blob_is_damage(serve: Callable[..., Server]) -> None:
    server = serve(lambda _request: (200, {}, DATA[:-1] + b"x"))
    with pytest.raises(DigestMismatch):
        Blobs(server.registry(), Quiet()).document(BLOB)


# --- referrers ---


def referrer(**changes: Any) -> dict[str, Any]:
    return {
        "mediaType": MANIFEST,
        "digest": BLOB.digest,
        "size": 5,
        "artifactType": "a/t",
        **changes,
    }


STRANGE = [
    5, {}, referrer(artifactType=None), referrer(artifactType="a/other"),
    referrer(digest="sha512:" + "0" * 128), *[referrer(artifactType="a/x")] * 100,
]  # fmt: skip


def test_strange_referrers_hide_none(serve: Callable[..., Server]) -> None:
    index = document.dump({"schemaVersion": 2, "manifests": [*STRANGE, referrer()]})
    server = serve(lambda _request: (200, {}, index))
    [found] = server.registry().referrers(BLOB.digest, "a/t")
    assert found.digest == BLOB.digest


def test_strange_referrers_are_kept(serve: Callable[..., Server]) -> None:
    index = document.dump({"schemaVersion": 2, "manifests": [referrer(digest="sha512:x"), 5]})
    sent: list[bytes] = []

    class Kept(Registry):
        def put_manifest(self, data: bytes, where: str) -> bool:
            sent.append(data)
            return super().put_manifest(data, where)

    server = serve(lambda request: (200 if request.method == "GET" else 201, {}, index))
    own = Descriptor(media_type=MANIFEST, digest=BLOB.digest, size=5, artifact_type="a/t")
    Kept(parse(f"oci://{server.host}/a:b")).add_referrer(BLOB.digest, own)
    assert [one["digest"] for one in json.loads(sent[0])["manifests"]] == ["sha512:x", own.digest]


def test_signatures_that_cannot_be_read_hide_none(serve: Callable[..., Server]) -> None:
    layer = describe(DATA, signature.MEDIA_TYPE)
    empty = describe(b"{}", "a/b")
    good = document.dump_manifest(
        Manifest(artifact_type=signature.ARTIFACT, config=empty, layers=(layer,))
    )
    answers = {BLOB.digest: b"other", describe(b"[]", "x").digest: b"[]"}
    answers |= {describe(good, "x").digest: good, layer.digest: DATA}
    listed = [referrer(digest=one, artifactType=signature.ARTIFACT) for one in
              ["sha256:" + "0" * 64, *list(answers)[:3]]]  # fmt: skip
    index = document.dump({"schemaVersion": 2, "manifests": listed})

    def answer(request: Request) -> Answer:
        if "/referrers/" in request.url:
            return 200, {}, index
        found = answers.get(request.url.rpartition("/")[2])
        return (404, {}, b"") if found is None else (200, {}, found)

    registry = serve(answer).registry()
    assert _signatures(registry, Blobs(registry, Quiet()), BLOB.digest) == [DATA]


# --- references and logins ---


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("oci://docker.io/debian:12", "https://registry-1.docker.io/v2/library/debian"),
        ("oci://docker.io/me/ci", "https://registry-1.docker.io/v2/me/ci"),
        ("oci://index.docker.io/me/ci", "https://registry-1.docker.io/v2/me/ci"),
        ("oci://ghcr.io/ci", "https://ghcr.io/v2/ci"),
        ("oci://localhost:5000/ci", "http://localhost:5000/v2/ci"),
    ],
)
def test_the_url_of_a_reference(text: str, url: str) -> None:
    assert parse(text).url == url


@pytest.mark.parametrize("text", ["oci://[::::]/a", "oci://h:99999/a", "oci://[1:2:3]/a"])
def test_hosts_that_cannot_exist(text: str) -> None:
    with pytest.raises(UsageError, match="invalid reference"):
        parse(text)


def test_podmans_logins_without_a_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    read: list[str] = []

    def read_bytes(path: Path) -> bytes:
        read.append(str(path))
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert credentials("reg.example") is None
    assert f"/run/containers/{os.getuid()}/auth.json" in read
