"""A stand-in for Neutron, with what Nova asks: one network on a Linux bridge, fixed addresses."""

from __future__ import annotations

import json
import re
import secrets
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NETWORK = "6d6a7c5e-0d3b-4a86-9a9f-0b4f6a3f6f10"
SUBNET = "7d6a7c5e-0d3b-4a86-9a9f-0b4f6a3f6f10"
NETWORKS = [
    {
        "id": NETWORK, "name": "net", "status": "ACTIVE", "admin_state_up": True, "mtu": 1500,
        "subnets": [SUBNET], "shared": True, "router:external": False, "tenant_id": "x",
        "project_id": "x", "port_security_enabled": False,
    }
]  # fmt: skip
#: Without DHCP, and so without a port of a DHCP server, the config drive has the address.
SUBNETS = [
    {
        "id": SUBNET, "name": "subnet", "network_id": NETWORK, "cidr": "192.168.77.0/24",
        "gateway_ip": "192.168.77.1", "enable_dhcp": False, "ip_version": 4,
        "dns_nameservers": [], "host_routes": [], "allocation_pools": [],
    }
]  # fmt: skip
PORTS: dict[str, dict[str, Any]] = {}
_VERSIONS = {
    "versions": [
        {
            "id": "v2.0", "status": "CURRENT",
            "links": [{"rel": "self", "href": "http://127.0.0.1:9696/v2.0/"}],
        }
    ]
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of Nova and openstacksdk."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request of any method."""
        data = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        url = urlsplit(self.path)
        path = url.path.rstrip("/").removeprefix("/v2.0")
        code, answer = self._answer(path, parse_qs(url.query), data)
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self, path: str, query: dict[str, list[str]], data: Any) -> tuple[int, Any]:
        if not path:
            return 200, _VERSIONS
        if path == "/networks":
            return 200, {"networks": _matching(NETWORKS, query)}
        if path.startswith("/networks/"):
            return 200, {"network": NETWORKS[0]}
        if path == "/subnets":
            return 200, {"subnets": SUBNETS}
        if path == "/extensions":
            return 200, {"extensions": [{"alias": "binding", "name": "Port Binding"}]}
        if path.startswith("/quotas"):
            return 200, {"quota": {"port": -1, "network": -1}}
        if path == "/ports":
            if self.command == "POST":
                return 201, {"port": _new_port(data["port"])}
            return 200, {"ports": _matching(list(PORTS.values()), query)}
        if match := re.fullmatch("/ports/([^/]+)", path):
            return self._port(match[1], data)
        return 200, {path.strip("/").split("/")[0].replace("-", "_"): []}

    def _port(self, number: str, data: Any) -> tuple[int, Any]:
        port = PORTS.get(number)
        if port is None:
            error = {"type": "PortNotFound", "message": f"Port {number} could not be found."}
            return 404, {"NeutronError": error}
        if self.command == "DELETE":
            del PORTS[number]
            return 204, None
        if self.command == "PUT":
            port |= {key: value for key, value in data["port"].items() if value is not None}
            port["binding:vif_type"] = "bridge"
        return 200, {"port": port}


def _matching(there: list[dict[str, Any]], query: dict[str, list[str]]) -> list[dict[str, Any]]:
    keys = {"id", "device_id", "device_owner", "network_id", "name", "mac_address"} & query.keys()
    return [one for one in there if all(str(one.get(key)) in query[key] for key in keys)]


def _new_port(told: dict[str, Any]) -> dict[str, Any]:
    used = {one["fixed_ips"][0]["ip_address"] for one in PORTS.values()}
    free = next(one for number in range(10, 250) if (one := f"192.168.77.{number}") not in used)
    port = {
        "id": str(uuid.uuid4()), "name": "", "status": "ACTIVE", "admin_state_up": True,
        "device_id": "", "device_owner": "", "tenant_id": "x", "security_groups": [],
        "mac_address": "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
        "fixed_ips": [{"subnet_id": SUBNET, "ip_address": free}],
        "binding:vif_details": {"port_filter": False}, "binding:vnic_type": "normal",
        "binding:profile": {}, "binding:host_id": "",
        **{key: value for key, value in told.items() if value is not None},
        "binding:vif_type": "bridge",
    }  # fmt: skip
    PORTS[str(port["id"])] = port
    return port


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 9696), Handler).serve_forever()
