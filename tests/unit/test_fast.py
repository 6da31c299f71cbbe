"""Fast machines: the kernel's command line on an emulated host and with KVM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.progress import Quiet
from armvm.host.facts import HostFacts
from armvm.images.model import FromImage, Image
from armvm.provision.machine.fast import traded, with_kernel
from armvm.provision.machine.plan import CreatePlan, plan
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem
from tests.images_tools import bootable_image, debian_tree
from tests.unit.host_tools import IDENTITY, KVM_HOST, PUBLIC_KEY, TCG_HOST, facts_of

pytestmark = pytest.mark.unit

TCG, KVM = facts_of(TCG_HOST), facts_of(KVM_HOST)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = bootable_image(tmp_path / "image.qcow2", debian_tree())
    digest = "sha256:" + "6" * 64
    source = FromImage(
        reference="debian:12",
        location=str(path),
        digest=digest,
        system=OperatingSystem(distro="debian", version="12"),
    )
    size = path.stat().st_size
    return Image(source=source, path=path, digest=digest, size=size, virtual_size=40 << 20)


def planned(facts: HostFacts, image: Image, distro: str = "debian") -> CreatePlan:
    system = OperatingSystem(distro=distro, version="12")
    machine = Machine(name="quick", ssh_keys=(PUBLIC_KEY,), fast=True)
    made = plan(
        *(machine, replace(image.source, system=system), facts, IDENTITY),
        pool="armvm",
        pool_path="/var/lib/libvirt/images/armvm",
        version="0.1.0",
        now="2026-01-02T03:04:05Z",
    )
    return with_kernel(made, image, Quiet())[0]


def words(made: CreatePlan) -> list[str]:
    assert made.spec.kernel is not None
    return made.spec.kernel.command_line.split()


def test_only_an_emulated_machine_boots_without_page_table_isolation(image: Image) -> None:
    emulated, native = planned(TCG, image), planned(KVM, image)
    assert [word for word in words(emulated) if word not in words(native)] == ["kpti=0"]
    assert "do not speculate" in (traded(emulated.record) or {})["kpti"]
    assert "kpti" not in (traded(native.record) or {})


def test_the_kernel_sets_up_the_network_of_debian_alone(image: Image) -> None:
    own = {"ip=dhcp", "network-config=disabled"}
    assert own <= set(words(planned(TCG, image)))
    assert not own & set(words(planned(TCG, image, "ubuntu")))
    assert "kpti=0" in words(planned(TCG, image, "ubuntu"))
