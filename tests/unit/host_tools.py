"""What the tests of host and provision share: a host as it was recorded, a machine's identity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt

from armvm.guest.identity import Identity, KeyPair
from armvm.host.domain.domain_xml import DomainSpec
from armvm.host.domain.instance import Instance
from armvm.host.domain.metadata import Record
from armvm.host.facts import Accelerator, HostFacts, observe
from armvm.host.network.card import Card
from armvm.settings.networks import Attachment, Kind

RECORDED = Path(__file__).resolve().parents[1] / "data" / "capabilities"
#: Hosts whose capabilities are recorded there.
TCG_HOST, KVM_HOST = "debian12-x86_64-tcg", "aarch64-kvm"

PUBLIC_KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVnOk1OBsJpQO3mNDUGBW3Sk1zVtWOFl3SqZHqpQ+Tz root@arm64-01"
)
IDENTITY = Identity(
    uuid="11111111-2222-4333-8444-555555555555",
    instance_id="iid-11111111-2222-4333-8444-555555555555",
    mac="52:54:00:12:34:56",
    host_key=KeyPair(
        private="-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        public=PUBLIC_KEY,
    ),
)

SPEC = DomainSpec(
    name="arm64-01",
    uuid=IDENTITY.uuid,
    cards=(Card(to=Attachment(Kind.NETWORK, "default"), mac=IDENTITY.mac),),
    cpus=2,
    memory_mib=2048,
    accelerator=Accelerator.TCG,
    cpu_model="cortex-a57",
    headless=False,
    libosinfo_id="http://ubuntu.com/ubuntu/24.04",
    overlay="/pool/arm64-01.qcow2",
    seed="/pool/arm64-01.seed.iso",
    serial_log="/pool/arm64-01.serial.log",
)
RECORD = Record(
    version="0.1.0",
    created="2026-01-02T03:04:05Z",
    user="ubuntu",
    host_key=" ".join(PUBLIC_KEY.split()[:2]),
    instance_id=IDENTITY.instance_id,
    pool="armvm",
    image={"reference": "ubuntu:24.04", "digest": "sha256:" + "0" * 64, "verified": "none"},
    settings={"cpus": 2, "memory_mib": 2048},
)
#: A running machine, as libvirt tells of it; tests change what they are about.
INSTANCE = Instance(
    name="m",
    uuid="u",
    state="running",
    cpus=2,
    memory_mib=1024,
    cards=(),
    cpu="cortex-a57",
    accelerator="qemu",
    overlay=None,
    seed=None,
    serial_log=None,
    autostart=False,
    record=RECORD,
)


@dataclass(frozen=True, kw_only=True)
class RecordedHost:
    """A connection that answers what a host once answered."""

    name: str
    uri: str = "qemu:///system"
    version: int = 9_000_000
    has_virt: bool = True

    def getURI(self) -> str:
        return self.uri

    def getLibVersion(self) -> int:
        return self.version

    def getInfo(self) -> list[Any]:
        return ["x86_64", 7258, 2, 2596, 1, 1, 2, 1]

    def getCapabilities(self) -> str:
        return (RECORDED / f"{self.name}.capabilities.xml").read_text()

    def getDomainCapabilities(
        self, emulator: str | None, arch: str, machine: str, kind: str
    ) -> str:
        assert (emulator, arch, machine) == (None, "aarch64", "virt")
        text = (RECORDED / f"{self.name}.domcapabilities.xml").read_text()
        if not self.has_virt or f"<domain>{kind}</domain>" not in text:
            raise libvirt.libvirtError("invalid argument: KVM is not supported on this host")
        return text


def facts_of(name: str, **changes: Any) -> HostFacts:
    """Return the facts of a recorded host, with some of them changed."""
    return replace(observe(RecordedHost(name=name)), **changes)
