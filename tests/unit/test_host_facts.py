"""What a host can do, read from recorded capabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base.errors import MissingCapability
from armvm.host.facts import Accelerator, cpu_is_64_bit, observe
from tests.unit.host_tools import KVM_HOST, RECORDED, TCG_HOST, RecordedHost


def test_an_x86_host_emulates() -> None:
    facts = observe(RecordedHost(name=TCG_HOST))
    assert facts.accelerator is Accelerator.TCG
    assert facts.arch == "x86_64"
    assert facts.emulator == "/usr/bin/qemu-system-aarch64"
    assert facts.machine_type == "virt-7.2"
    assert facts.max_cpus == 512
    assert facts.memory_mib == 7258
    assert facts.libvirt_version == "9.0.0"
    assert facts.efi
    assert {"cortex-a57", "cortex-a72", "neoverse-n1", "max", "cortex-a15"} <= facts.cpu_models


def test_an_arm_host_with_kvm_uses_it() -> None:
    facts = observe(RecordedHost(name=KVM_HOST))
    assert facts.accelerator is Accelerator.KVM
    assert facts.arch == "aarch64"
    assert facts.machine_type == "virt-8.2"


def test_an_accelerator_knows_its_cpu_and_its_patience() -> None:
    assert Accelerator.TCG.default_cpu == "cortex-a57"
    assert Accelerator.KVM.default_cpu == "host-passthrough"
    assert Accelerator.TCG.patience == 10 * Accelerator.KVM.patience
    assert [one.value for one in Accelerator] == ["kvm", "qemu"]


def test_a_host_without_the_emulator_is_told_what_to_install(tmp_path: Path) -> None:
    text = (RECORDED / f"{TCG_HOST}.capabilities.xml").read_text()

    class Bare(RecordedHost):
        def getCapabilities(self) -> str:
            return text.replace("aarch64", "riscv64")

    with pytest.raises(MissingCapability, match=r"emulator .* not found") as caught:
        observe(Bare(name=TCG_HOST))
    assert caught.value.hint is not None
    assert "qemu-system-arm" in caught.value.hint


def test_a_host_without_the_virt_machine() -> None:
    with pytest.raises(MissingCapability, match="'virt' machine"):
        observe(RecordedHost(name=TCG_HOST, has_virt=False))


def test_a_host_without_firmware_is_seen() -> None:
    text = (RECORDED / f"{TCG_HOST}.domcapabilities.xml").read_text()

    class Bare(RecordedHost):
        def getDomainCapabilities(
            self, emulator: str | None, arch: str, machine: str, kind: str
        ) -> str:
            return text.replace("<value>efi</value>", "")

    assert not observe(Bare(name=TCG_HOST)).efi


def test_the_libvirt_that_cannot_start_named_cpus_is_refused() -> None:
    with pytest.raises(MissingCapability, match=r"11\.2\.0"):
        observe(RecordedHost(name=TCG_HOST, version=11_002_000))
    assert observe(RecordedHost(name=TCG_HOST, version=11_003_000)).libvirt_version == "11.3.0"
    # With KVM no named CPU is used.
    assert observe(RecordedHost(name=KVM_HOST, version=11_002_000)).accelerator is Accelerator.KVM


@pytest.mark.parametrize(
    ("host", "version", "limited"),
    [
        (TCG_HOST, 8_000_000, True),
        (TCG_HOST, 12_008_000, True),
        (TCG_HOST, 7_010_000, False),
        (KVM_HOST, 9_000_000, False),
    ],
)
def test_only_emulation_by_a_libvirt_that_can_has_a_limit_of_translated_code(
    host: str, version: int, limited: bool
) -> None:
    assert observe(RecordedHost(name=host, version=version)).tb_cache is limited


@pytest.mark.parametrize(
    ("uri", "session", "local"),
    [
        ("qemu:///system", False, True),
        ("qemu:///session", True, True),
        ("qemu+ssh://root@host/system", False, False),
        ("qemu+ssh://host/session", True, False),
    ],
)
def test_facts_tell_whose_daemon_it_is(uri: str, session: bool, local: bool) -> None:
    facts = observe(RecordedHost(name=TCG_HOST, uri=uri))
    assert (facts.session, facts.local) == (session, local)


SIXTY_FOUR = (
    "cortex-a35 cortex-a53 cortex-a55 cortex-a57 cortex-a72 cortex-a76 cortex-a78ae cortex-a710 "
    "cortex-a720 neoverse-n1 neoverse-n2 neoverse-v1 a64fx max cortex-x1 cortex-r82"
).split()
THIRTY_TWO = (
    "arm1026 arm1136 arm1136-r2 arm1176 arm11mpcore arm926 arm946 cortex-a7 cortex-a8 cortex-a9 "
    "cortex-a15 cortex-a17 cortex-a5 cortex-m0 cortex-m3 cortex-m4 cortex-m33 cortex-m55 cortex-m7 "
    "cortex-r5 cortex-r5f cortex-r52 pxa250 pxa270-a0 sa1100 sa1110 ti925t"
).split()


@pytest.mark.parametrize("model", SIXTY_FOUR)
def test_these_cpus_run_arm64(model: str) -> None:
    assert cpu_is_64_bit(model)


@pytest.mark.parametrize("model", THIRTY_TWO)
def test_these_cpus_do_not(model: str) -> None:
    assert not cpu_is_64_bit(model)


def test_every_recorded_cpu_is_in_one_of_the_lists() -> None:
    models = observe(RecordedHost(name=TCG_HOST)).cpu_models
    assert models <= {*SIXTY_FOUR, *THIRTY_TWO, *(m for m in models if m.startswith("pxa"))}
