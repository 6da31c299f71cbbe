"""A network card on a bridge that asks a real DHCP server for its address, as a guest does.

Source: RFC 2131; the frames are sent and received through a packet socket (packet(7)).
"""

from __future__ import annotations

import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5


@dataclass(frozen=True)
class Card:
    """The card's device on the host, and its MAC address."""

    device: str
    mac: str

    def lease(self, limit: float = 20) -> str:
        """Return the address that the DHCP server assigns."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as raw:
            raw.bind((self.device, 0))
            offer = self._ask(raw, _DISCOVER, b"", _OFFER, limit)
            options = b"\x32\x04" + offer[0] + b"\x36\x04" + offer[1]
            acknowledged, _ = self._ask(raw, _REQUEST, options, _ACK, limit)
        return socket.inet_ntoa(acknowledged)

    def _ask(
        self, raw: socket.socket, kind: int, options: bytes, wanted: int, limit: float
    ) -> tuple[bytes, bytes]:
        """Send a message until the server answers; return the address, and the server's."""
        number = secrets.token_bytes(4)
        mac = bytes.fromhex(self.mac.replace(":", ""))
        head = b"\x01\x01\x06\x00" + number + b"\x00\x00\x80\x00" + bytes(16) + mac + bytes(202)
        body = head + _COOKIE + bytes([53, 1, kind]) + b"\x3d\x07\x01" + mac + options + b"\xff"
        udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
        ip += bytes(4) + b"\xff" * 4
        ip = ip[:10] + _checksum(ip) + ip[12:]
        end = time.monotonic() + limit
        while time.monotonic() < end:
            raw.send(b"\xff" * 6 + mac + b"\x08\x00" + ip + udp)
            raw.settimeout(2)
            try:
                while True:
                    answer = raw.recv(2048)[42:]
                    if answer[4:8] == number and answer[:1] == b"\x02":
                        found = _options(answer[240:])
                        assert found[53] == bytes([wanted]), found
                        return answer[16:20], found[54]
            except TimeoutError:
                continue
        raise AssertionError(f"no DHCP server answered {self.mac} in {limit:g} s")


@contextmanager
def card(bridge: str, mac: str) -> Iterator[Card]:
    """Connect a card with the address *mac* to a bridge of the host."""
    name = f"dh{secrets.token_hex(4)}"
    peer = f"{name}p"
    _ip("link", "add", name, "address", mac, "type", "veth", "peer", "name", peer)
    try:
        _ip("link", "set", peer, "master", bridge, "up")
        _ip("link", "set", name, "up")
        yield Card(name, mac)
    finally:
        _ip("link", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def _options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data) and data[at] != 255:
        length = data[at + 1]
        found[data[at]] = data[at + 2 : at + 2 + length]
        at += 2 + length
    return found
