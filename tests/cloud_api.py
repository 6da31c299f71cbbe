"""An OpenStack cloud for tests: the requests that openstacksdk makes, answered from memory.

The documents have the form of the API references of keystone (v3), nova (2.1), glance (v2) and
neutron (v2.0). A server whose user-data holds a host key gets a real sshd with that key, at an
address of the loopback.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.ssh_tools import find_sshd
from tests.support import ROOT

PROJECT = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
PASSWORD = "secret of the tests"  # a made-up one
NETWORK = "6d6a7c5e-0d3b-4a86-9a9f-0b4f6a3f6f10"
FLAVOR = "f1"
LOG = (ROOT / "tests/data/serial/debian-12.log").read_bytes().decode(errors="replace")


@dataclass
class Cloud:
    """The state of a cloud. Tests change it, and look at what was asked."""

    work: Path
    url: str = ""
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    ports: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: list[dict[str, Any]] = field(
        default_factory=lambda: [{"id": NETWORK, "name": "net", "status": "ACTIVE"}]
    )
    flavors: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"id": FLAVOR, "name": "arm.small", "vcpus": 2, "ram": 2048, "disk": 10}
        ]
    )
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)  #: what POST /servers sent
    asked: list[str] = field(default_factory=list)
    #: What Nova's next POST /servers answers, and what becomes of its servers: a fault's message.
    refusals: list[tuple[int, str]] = field(default_factory=list)
    fault: str | None = None
    hung: bool = False  #: servers stay in BUILD
    loses_ports: bool = False  #: deleting a server leaves its port
    drops: int = 0  #: how many of the next GETs of servers get no answer
    other_bytes: bool = False  #: Glance stores something else
    log: str = LOG
    result: str = '{"v1": {"datasource": "DataSourceConfigDrive", "errors": []}}'
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def named(self, name: str) -> dict[str, Any]:
        """Return the server with a name."""
        return next(one for one in self.servers.values() if one["name"] == name)

    def config(self, text: str = "") -> Path:
        """Write config.toml and clouds.yaml, and return the directory for XDG_CONFIG_HOME."""
        home = self.work / "config"
        (home / "armvm").mkdir(parents=True, exist_ok=True)
        (home / "openstack").mkdir(exist_ok=True)
        (home / "armvm/config.toml").write_text(
            text
            or '[clouds]\nfarm = { openstack = "test", network = "net", flavor = "arm.small" }\n'
        )
        auth = {
            "auth_url": f"{self.url}/identity/v3",
            "username": "tester",
            "password": PASSWORD,
            "project_name": "tests",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        document = {"clouds": {"test": {"auth": auth, "region_name": "one"}}}
        (home / "openstack/clouds.yaml").write_text(yaml.safe_dump(document))
        return home


@contextmanager
def cloud(work: Path) -> Iterator[Cloud]:
    """Run a cloud; stop it and its servers at the end."""
    state = Cloud(work=work)

    class Handler(_Handler):
        cloud = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        for number in list(state.daemons):
            _stop(state, number)


def user_data(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return armvm's cloud-config in the user-data of a request for a server."""
    text = base64.b64decode(body["user_data"]).decode()
    if not text.startswith("#cloud-config"):
        parts = message_from_string(text).get_payload()
        assert isinstance(parts, list)
        ours = parts[-1]
        assert ours.get_filename() == "armvm.yaml"  # type: ignore[union-attr]
        payload = ours.get_payload(decode=True)  # type: ignore[union-attr]
        assert isinstance(payload, bytes)
        text = payload.decode()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


class _Handler(BaseHTTPRequestHandler):
    cloud: Cloud
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_DELETE = do_GET

    def _handle(self) -> None:
        data = self._body()
        path = urlsplit(self.path).path.rstrip("/")
        query = {key: one[0] for key, one in parse_qs(urlsplit(self.path).query).items()}
        self.cloud.asked.append(f"{self.command} {path}")
        if self.cloud.drops and self.command == "GET" and "/servers" in path:
            self.cloud.drops -= 1
            self.close_connection = True
            return
        code, answer, headers = self._answer(path, query, data)
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self, path: str, query: Mapping[str, str], data: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/identity"):
            return _identity(self.cloud, path, self.command, data)
        if path in ("/compute/v2.1", "/image", "/network"):
            return 200, _versions(self.cloud, path), {}
        if not self.headers.get("X-Auth-Token"):
            return 401, {"error": {"message": "no token"}}, {}
        for pattern, method, function in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match is not None and method == self.command:
                found = function(self.cloud, match, query, data)
                return (*found, {}) if len(found) == 2 else found
        return 404, {"itemNotFound": {"code": 404, "message": f"no route {path}"}}, {}


def _identity(state: Cloud, path: str, method: str, data: bytes) -> tuple[int, Any, dict[str, str]]:
    if method == "GET":
        return 200, {"version": {
            "id": "v3.14", "status": "stable",
            "links": [{"rel": "self", "href": f"{state.url}/identity/v3/"}],
        }}, {}  # fmt: skip
    assert path == "/identity/v3/auth/tokens"
    given = json.loads(data)["auth"]["identity"]["password"]["user"]["password"]
    if given != PASSWORD:
        text = "The request you have made requires authentication."
        return 401, {"error": {"code": 401, "message": text, "title": "Unauthorized"}}, {}
    ends = {"compute": "/compute/v2.1", "image": "/image", "network": "/network"}
    catalog = [
        {
            "type": kind, "name": kind, "id": kind,
            "endpoints": [{
                "interface": "public", "region": "one", "region_id": "one", "id": kind,
                "url": state.url + end,
            }],
        }
        for kind, end in ends.items()
    ]  # fmt: skip
    token = {
        "methods": ["password"],
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2020-01-01T00:00:00.000000Z",
        "user": {"id": "u", "name": "tester", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": PROJECT, "name": "tests", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r", "name": "member"}],
        "catalog": catalog,
    }
    return 201, {"token": token}, {"X-Subject-Token": "gAAAA"}


def _versions(state: Cloud, path: str) -> Any:
    def link(end: str) -> list[dict[str, str]]:
        return [{"rel": "self", "href": f"{state.url}{end}"}]

    if path == "/compute/v2.1":
        return {"version": {
            "id": "v2.1", "status": "CURRENT", "version": "2.93", "min_version": "2.1",
            "updated": "2013-07-23T11:33:21Z", "links": link("/compute/v2.1/"),
        }}  # fmt: skip
    number = "v2.15" if path == "/image" else "v2.0"
    end = "/image/v2/" if path == "/image" else "/network/v2.0/"
    return {"versions": [{"id": number, "status": "CURRENT", "links": link(end)}]}


def _list_servers(state: Cloud, _match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    return 200, {"servers": list(state.servers.values())}


def _create_server(state: Cloud, _match: Any, _query: Any, data: bytes) -> tuple[int, Any]:
    body = json.loads(data)["server"]
    if state.refusals:
        code, text = state.refusals.pop(0)
        return code, {"forbidden" if code == 403 else "badRequest": {"code": code, "message": text}}
    number = str(uuid.uuid4())
    state.bodies[body["name"]] = body
    address = ".".join(["127", *(str(1 + secrets.randbelow(250)) for _ in range(3))])
    flavor = next(one for one in state.flavors if one["id"] == body["flavorRef"])
    state.servers[number] = {
        "id": number, "name": body["name"], "status": "BUILD", "tenant_id": PROJECT,
        "created": "2026-11-29T10:00:00Z", "metadata": body["metadata"],
        "image": {"id": body["imageRef"]}, "addresses": {}, "accessIPv4": "", "accessIPv6": "",
        "flavor": {"original_name": flavor["name"], "vcpus": flavor["vcpus"], "ram": flavor["ram"],
                   "disk": flavor["disk"], "ephemeral": 0, "swap": 0, "extra_specs": {}},
        "OS-EXT-STS:power_state": 0, "OS-EXT-STS:task_state": "spawning",
    }  # fmt: skip
    port = str(uuid.uuid4())
    state.ports[port] = {"id": port, "device_id": number, "network_id": body["networks"][0]["uuid"]}
    threading.Timer(0.1, _built, (state, number, address)).start()
    return 202, {"server": {"id": number, "links": [], "adminPass": "x"}}


def _built(state: Cloud, number: str, address: str) -> None:
    server = state.servers.get(number)
    if server is None or state.hung:
        return
    if state.fault is not None:
        server |= {"status": "ERROR", "fault": {"code": 500, "message": state.fault}}
        return
    server["addresses"] = {"net": [{
        "addr": address, "version": 4, "OS-EXT-IPS:type": "fixed",
        "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01",
    }]}  # fmt: skip
    _boot(state, number)


def _boot(state: Cloud, number: str) -> None:
    """Run the server's sshd, and then call it active."""
    server = state.servers[number]
    if os.geteuid() == 0:
        state.daemons[number] = _sshd(state, server)
    server["status"] = "ACTIVE"


def _sshd(state: Cloud, server: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Run an sshd with the host key and the accounts of the server's user-data."""
    told = user_data(state.bodies[server["name"]])
    work = state.work / f"guest-{server['id']}"
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    key, authorized, passwd = work / "host", work / "authorized", work / "passwd"
    key.write_text(told["ssh_keys"]["ed25519_private"])
    key.chmod(0o600)
    account = told["users"][0]
    authorized.write_text("\n".join(account["ssh_authorized_keys"]) + "\n")
    accounts = [
        f"{account['name']}:x:0:0::{home}:/bin/sh",
        "root:x:0:0:root:/root:/bin/sh",
        "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin",
    ]
    passwd.write_text("\n".join(accounts) + "\n")
    (work / "result.json").write_text(state.result)
    address = server["addresses"]["net"][0]["addr"]
    config = work / "sshd_config"
    config.write_text(
        f"Port 22\nListenAddress {address}\nHostKey {key}\nAuthorizedKeysFile {authorized}\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    program, env = find_sshd()
    script = (
        f"mount --bind {passwd} /etc/passwd && mount -t tmpfs -o mode=755 run /run && "
        f"mkdir /run/sshd /run/cloud-init && cp {work}/result.json /run/cloud-init && "
        f"exec {program} -D -E {work}/log -f {config}"
    )
    running = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], env={**os.environ, **env}
    )
    end = time.monotonic() + 20
    log = work / "log"
    while "listening" not in (log.read_text() if log.exists() else ""):
        assert running.poll() is None, log
        assert time.monotonic() < end, log
        time.sleep(0.02)
    return running


def _stop(state: Cloud, number: str) -> None:
    daemon = state.daemons.pop(number, None)
    if daemon is not None:
        daemon.terminate()
        daemon.wait()


def _get_server(state: Cloud, match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    server = state.servers.get(match[1])
    return (404, _missing(match[1])) if server is None else (200, {"server": server})


def _delete_server(state: Cloud, match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    if match[1] not in state.servers:
        return 404, _missing(match[1])
    _stop(state, match[1])
    del state.servers[match[1]]
    if not state.loses_ports:
        for number in [one["id"] for one in state.ports.values() if one["device_id"] == match[1]]:
            del state.ports[number]
    return 204, None


def _missing(number: str) -> Any:
    return {"itemNotFound": {"code": 404, "message": f"Instance {number} could not be found."}}


def _act(state: Cloud, match: Any, _query: Any, data: bytes) -> Any:
    server = state.servers.get(match[1])
    if server is None:
        return 404, _missing(match[1])
    ((verb, told),) = json.loads(data).items()
    if verb == "os-getConsoleOutput":
        return 200, {"output": state.log}
    if verb == "os-stop":
        _stop(state, match[1])
        server["status"] = "SHUTOFF"
        return 202, None
    if verb in ("os-start", "reboot"):
        _stop(state, match[1])
        threading.Timer(0.1, _boot, (state, match[1])).start()
        server["status"] = "REBOOT" if verb == "reboot" else "SHUTOFF"
        return 202, None
    if verb == "createImage":
        image = _image(state, told["name"], {**told["metadata"], "instance_uuid": match[1]})
        threading.Timer(0.1, image.update, ({"status": "active", "size": 4096},)).start()
        return 202, {"image_id": image["id"]}
    if verb == "rebuild":
        server["status"] = "REBUILD"
        server["image"] = {"id": told["imageRef"]}
        threading.Timer(0.3, server.update, ({"status": "SHUTOFF"},)).start()
        return 202, {"server": server}
    return 400, {"badRequest": {"code": 400, "message": f"unknown action {verb}"}}


def _image(state: Cloud, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    number = str(uuid.uuid4())
    state.images[number] = {
        "id": number, "name": name, "status": "queued", "owner": PROJECT, "size": None,
        "visibility": "private", "created_at": "2026-11-29T10:00:00Z", **properties,
    }  # fmt: skip
    return state.images[number]


def _list_images(state: Cloud, _match: Any, query: Any, _data: bytes) -> tuple[int, Any]:
    # Not by owner: what other projects share is listed by a cloud that filters badly.
    name = query.get("name")
    found = [one for one in state.images.values() if name in (None, one["name"])]
    return 200, {"images": found}


def _create_image(state: Cloud, _match: Any, _query: Any, data: bytes) -> tuple[int, Any]:
    told = json.loads(data)
    return 201, _image(state, told.pop("name"), told)


def _get_image(state: Cloud, match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    found = state.images.get(match[1])
    return (404, {"message": "not found"}) if found is None else (200, found)


def _put_image(state: Cloud, match: Any, _query: Any, data: bytes) -> tuple[int, Any]:
    data = data[:-1] + b"?" if state.other_bytes else data
    state.images[match[1]] |= {
        "status": "active",
        "size": len(data),
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(data).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return 204, None


def _delete_image(state: Cloud, match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    return (204, None) if state.images.pop(match[1], None) else (404, {"message": "not found"})


def _list_flavors(state: Cloud, _match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    return 200, {"flavors": state.flavors}


def _list_networks(state: Cloud, _match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    return 200, {"networks": state.networks}


def _list_ports(state: Cloud, _match: Any, query: Any, _data: bytes) -> tuple[int, Any]:
    device = query.get("device_id")
    return 200, {"ports": [one for one in state.ports.values() if one["device_id"] == device]}


def _delete_port(state: Cloud, match: Any, _query: Any, _data: bytes) -> tuple[int, Any]:
    return (204, None) if state.ports.pop(match[1], None) else (404, {"message": "not found"})


_NOVA, _GLANCE, _NEUTRON = "/compute/v2.1", "/image/v2", "/network/v2.0"
_ROUTES: list[tuple[str, str, Any]] = [
    (f"{_NOVA}/servers(?:/detail)?", "GET", _list_servers),
    (f"{_NOVA}/servers", "POST", _create_server),
    (f"{_NOVA}/servers/([^/]+)", "GET", _get_server),
    (f"{_NOVA}/servers/([^/]+)", "DELETE", _delete_server),
    (f"{_NOVA}/servers/([^/]+)/action", "POST", _act),
    (f"{_NOVA}/flavors/detail", "GET", _list_flavors),
    (f"{_GLANCE}/images", "GET", _list_images),
    (f"{_GLANCE}/images", "POST", _create_image),
    (f"{_GLANCE}/images/([^/]+)", "GET", _get_image),
    (f"{_GLANCE}/images/([^/]+)", "DELETE", _delete_image),
    (f"{_GLANCE}/images/([^/]+)/file", "PUT", _put_image),
    (f"{_NEUTRON}/networks", "GET", _list_networks),
    (f"{_NEUTRON}/ports", "GET", _list_ports),
    (f"{_NEUTRON}/ports/([^/]+)", "DELETE", _delete_port),
]
