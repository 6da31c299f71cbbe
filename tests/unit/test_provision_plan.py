"""The policy of create, on recorded hosts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from armvm.base.errors import ConfigError, MissingCapability
from armvm.base.result import as_json
from armvm.host.domain.metadata import from_domain
from armvm.host.facts import Accelerator, HostFacts
from armvm.host.network.ssh_forward import PORTS
from armvm.host.xml import at, parse
from armvm.images.model import FromImage, Verified
from armvm.provision.machine.plan import CreatePlan, check_disk, plan, user_of, with_source
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem
from tests.unit.host_tools import IDENTITY, KVM_HOST, PUBLIC_KEY, TCG_HOST, facts_of

SOURCE = FromImage(
    reference="ubuntu:24.04",
    location="https://user:secret@example.org/noble.img",
    digest="sha256:" + "a" * 64,
    size=1000,
    system=OperatingSystem(distro="ubuntu", version="24.04"),
    serial="20260101",
    verified=Verified.CATALOG,
)
TCG, KVM = facts_of(TCG_HOST), facts_of(KVM_HOST)
SESSION = replace(TCG, uri="qemu:///session")


def planned(
    facts: HostFacts = TCG,
    source: FromImage = SOURCE,
    taken: tuple[int, ...] = (),
    **values: Any,
) -> CreatePlan:
    machine = Machine(**{"name": "arm64-01", "ssh_keys": (PUBLIC_KEY,), **values})
    return plan(
        machine,
        source,
        facts,
        IDENTITY,
        pool="armvm",
        pool_path="/pool",
        version="0.1.0",
        now="2026-01-02T03:04:05Z",
        taken_ports=taken,
    )


def test_the_cpu_goes_with_the_accelerator() -> None:
    assert planned(TCG).spec.cpu_model == "cortex-a57"
    assert planned(TCG).spec.accelerator is Accelerator.TCG
    assert planned(KVM).spec.cpu_model == "host-passthrough"
    assert planned(KVM).spec.accelerator is Accelerator.KVM


@pytest.mark.parametrize(
    ("facts", "asked", "model"),
    [
        (TCG, "cortex-a72", "cortex-a72"),
        (TCG, "max", "maximum"),
        (TCG, "maximum", "maximum"),
        (KVM, "max", "maximum"),
        (KVM, "host-passthrough", "host-passthrough"),
        (KVM, "cortex-a710", "cortex-a710"),
    ],
)
def test_a_cpu_may_be_asked_for(facts: HostFacts, asked: str, model: str) -> None:
    assert planned(facts, cpu_model=asked).spec.cpu_model == model


def test_host_passthrough_needs_kvm() -> None:
    with pytest.raises(ConfigError, match="needs KVM") as caught:
        planned(TCG, cpu_model="host-passthrough")
    assert caught.value.hint


@pytest.mark.parametrize("model", ["cortex-a15", "pentium", "arm926", "cortex-a710"])
def test_a_cpu_that_this_host_cannot_give_is_refused_with_those_it_can(model: str) -> None:
    with pytest.raises(ConfigError, match=model) as caught:
        planned(TCG, cpu_model=model)
    assert caught.value.hint is not None
    assert "cortex-a57" in caught.value.hint
    assert "cortex-a15" not in caught.value.hint
    assert caught.value.hint.endswith("max")


def test_the_network_goes_with_the_connection() -> None:
    assert planned(TCG).spec.network == "armvm"
    assert planned(SESSION).spec.network is None
    assert planned(TCG, network="user").spec.network is None
    assert planned(TCG, network="lab").spec.network == "lab"


def test_a_session_has_no_networks() -> None:
    with pytest.raises(ConfigError, match="qemu:///session supports user networking only"):
        planned(SESSION, network="default")
    assert planned(SESSION, network="user").spec.network is None


def test_user_networking_gets_a_port_nobody_has() -> None:
    free = PORTS[17]
    taken = tuple(port for port in PORTS if port != free)
    assert planned(SESSION, taken=taken).record.forward == free
    assert planned(TCG, taken=taken).record.forward is None


def test_the_most_cpus_are_the_hosts() -> None:
    few = replace(TCG, max_cpus=8)
    assert planned(few, cpus=8).spec.cpus == 8
    with pytest.raises(ConfigError, match=r"9 vCPUs .* out of range \(1 to 8 on") as caught:
        planned(few, cpus=9)
    assert caught.value.hint is not None
    assert "--cpus 8" in caught.value.hint


def test_a_host_without_firmware_cannot() -> None:
    with pytest.raises(MissingCapability, match=r"UEFI firmware .* not found") as caught:
        planned(replace(TCG, efi=False))
    assert caught.value.hint is not None
    assert "qemu-efi-aarch64" in caught.value.hint


@pytest.mark.parametrize(
    ("disk", "image", "fits"), [(10, 10, True), (10, 2, True), (10, 11, False), (10, 10.5, False)]
)
def test_an_image_must_fit_the_disk(disk: int, image: float, fits: bool) -> None:
    machine = Machine(name="m", disk=disk << 30)
    if fits:
        check_disk(machine.disk, int(image * (1 << 30)))
        return
    with pytest.raises(ConfigError, match="a disk of 10G is smaller") as caught:
        check_disk(machine.disk, int(image * (1 << 30)))
    assert caught.value.hint is not None
    assert "--disk 11G" in caught.value.hint


def test_the_user_is_the_distributions_unless_asked_for() -> None:
    assert user_of(None, SOURCE) == "ubuntu"
    assert user_of("alice", SOURCE) == "alice"
    assert user_of(None, replace(SOURCE, system=None)) == "armvm"


def test_files_lie_in_the_pool() -> None:
    spec = planned().spec
    assert spec.overlay == "/pool/arm64-01.qcow2"
    assert spec.seed == "/pool/arm64-01.seed.iso"
    assert spec.serial_log == "/pool/arm64-01.serial.log"


def test_the_record_is_what_the_xml_carries_and_says_no_secret() -> None:
    made = planned(user_data="#!SECRET-SCRIPT", password_hash="$2b$SECRET")
    assert from_domain(parse(made.xml)) == made.record
    assert made.record.host_key == " ".join(PUBLIC_KEY.split()[:2])
    assert made.record.image == {
        "reference": "ubuntu:24.04",
        "digest": SOURCE.digest,
        "serial": "20260101",
        "system": "ubuntu 24.04",
        "verified": "catalog-digest",
    }
    for text in (made.xml, json.dumps(as_json(made.summary()))):
        for secret in ("secret", "SECRET", "PRIVATE"):
            assert secret not in text


def test_whose_signature_vouches_for_the_image_is_remembered() -> None:
    key = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"
    made = planned(source=replace(SOURCE, verified=Verified.SIGNATURE, signer=key))
    kept = from_domain(parse(made.xml))
    assert kept is not None
    assert (kept.image["verified"], kept.image["signer"]) == ("signature", key)
    assert "UEC Image Automatic Signing Key" in made.summary().image.provenance
    other = with_source(made, replace(SOURCE, digest="sha256:" + "2" * 64))
    assert other.identity == made.identity
    assert other.record.image["digest"] == other.source.digest
    assert "signer" not in other.record.image


def test_a_path_that_is_no_unicode_is_still_a_plan() -> None:
    odd = replace(SOURCE, reference="/tmp/a\udcff.qcow2", digest=None, system=None)
    assert "/tmp/a?.qcow2" in planned(source=odd).xml


def test_the_summary_is_the_plan_in_plain_words() -> None:
    summary = planned(SESSION, cpus=1, memory_mib=512).summary()
    plain = as_json(summary)
    assert json.loads(json.dumps(plain)) == plain
    assert summary.name == "arm64-01"
    assert summary.accelerator == "tcg"
    assert summary.network == "user"
    assert summary.cpus == 1
    assert summary.connection == "qemu:///session"
    assert summary.host_key.startswith("SHA256:")
    assert summary.warnings == []


def test_warnings() -> None:
    (big,) = planned(memory_mib=TCG.memory_mib + 1).warnings
    assert "more than the host's" in big
    (many,) = planned(cpus=TCG.online_cpus + 1).warnings
    assert f"more than the host's {TCG.online_cpus} CPUs" in many
    (closed,) = planned(ssh_keys=()).warnings
    assert "only with armvm console" in closed
    assert planned(ssh_keys=(), password_hash="$2b$").warnings == ()
    url = "https://images.example/noble.img"
    unverified = replace(SOURCE, reference=url, digest=None, verified=Verified.NOTHING)
    (open_,) = planned(source=unverified).warnings
    assert "not verified" in open_
    assert "secret" not in open_
    file = replace(unverified, reference="./file.qcow2", location="/a/file.qcow2")
    assert planned(source=file).warnings == ()
    # Of a catalog, it was told when its statement was read.
    assert planned(source=replace(SOURCE, verified=Verified.NOTHING)).warnings == ()


def test_a_plan_does_not_depend_on_when_its_xml_is_asked_for() -> None:
    made = planned()
    assert made.xml == made.xml
    assert at(parse(made.xml), "name").text == "arm64-01"


def test_a_disk_that_is_smaller_than_a_known_image_is_refused_by_the_plan() -> None:
    known = replace(SOURCE, virtual_size=64 << 30)
    with pytest.raises(ConfigError, match="smaller than the image's disk"):
        planned(source=known, disk=10 << 30)
    assert planned(source=known, disk=64 << 30).machine.disk == 64 << 30
