"""The domain XML of several machines, each with the same identity, on recorded hosts."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.host.domain.domain_xml import DirectKernel
from armvm.host.facts import HostFacts
from armvm.images.model import FromImage, Verified
from armvm.provision.machine.disks import plan_disks
from armvm.provision.machine.plan import plan
from armvm.settings.disks import ExtraDisk
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem
from tests.expected.conftest import Expected
from tests.unit.host_tools import IDENTITY, KVM_HOST, PUBLIC_KEY, TCG_HOST, facts_of

SOURCE = FromImage(
    reference="ubuntu:24.04",
    location="https://example.org/noble.img",
    digest="sha256:" + "a" * 64,
    size=1000,
    system=OperatingSystem(distro="ubuntu", version="24.04"),
    serial="20260101",
    verified=Verified.CATALOG,
)
FILE = FromImage(reference="/images/<odd> & 'file'.qcow2", location="/images/x.qcow2")
TCG, KVM = facts_of(TCG_HOST), facts_of(KVM_HOST)
SESSION = replace(TCG, uri="qemu:///session")

KERNEL = DirectKernel(
    kernel="/var/lib/libvirt/images/armvm/arm64-01.kernel",
    initrd="/var/lib/libvirt/images/armvm/arm64-01.initrd",
    command_line="root=LABEL=cloudimg-rootfs ro console=ttyAMA0",
)

DISKS = (
    ExtraDisk(name="data", size=20 << 30),
    ExtraDisk(name="logs", size=1 << 30, format="raw"),
)

MACHINES: dict[str, tuple[HostFacts, FromImage, dict[str, Any]]] = {
    "default": (TCG, SOURCE, {}),
    "kvm": (KVM, SOURCE, {"cpus": 4, "memory_mib": 8192}),
    "kvm-max": (KVM, SOURCE, {"cpu_model": "max"}),
    "headless": (TCG, SOURCE, {"headless": True, "memory_mib": 1024, "preset": "minimal"}),
    "fast": (TCG, SOURCE, {"fast": True}),
    "session": (SESSION, SOURCE, {}),
    "named-cpu-and-network": (TCG, SOURCE, {"cpu_model": "neoverse-n1", "network": "lab <1>"}),
    "unknown-system": (TCG, FILE, {"own_key": True, "disk": 40 << 30}),
    "disks": (TCG, SOURCE, {"disks": DISKS}),
    "installer": (TCG, FILE, {"seeded": False, "cdrom": Path("/images/x.iso"), "disks": DISKS}),
    "ignition": (TCG, FILE, {"seeded": False, "ignition": b"{}"}),
}


def xml_of(name: str) -> str:
    facts, source, values = MACHINES[name]
    machine = Machine(**{"name": "arm64-01", "ssh_keys": (PUBLIC_KEY,), **values})
    made = plan(
        machine,
        source,
        facts,
        IDENTITY,
        pool="armvm",
        pool_path="/var/lib/libvirt/images/armvm",
        version="0.1.0",
        now="2026-01-02T03:04:05Z",
    )
    if machine.disks:
        made = plan_disks(None, made)
    if machine.fast:  # the kernel comes from the image, once it is there
        made = replace(made, spec=replace(made.spec, kernel=KERNEL))
    # The port is drawn by lot.
    return replace(made, record=replace(made.record, forward=made.record.forward and 20022)).xml


@pytest.mark.parametrize("name", MACHINES)
def test_the_xml_is_as_recorded(name: str, expected: Expected) -> None:
    expected(f"domain/{name}.xml", xml_of(name))


@pytest.mark.parametrize("name", MACHINES)
def test_the_xml_is_valid_to_libvirts_schema(name: str, tmp_path: Path) -> None:
    validator = shutil.which("virt-xml-validate")
    if validator is None:
        pytest.skip("virt-xml-validate is not installed (libvirt-clients)")
    file = tmp_path / "domain.xml"
    file.write_text(xml_of(name))
    done = subprocess.run(
        [validator, file, "domain"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
