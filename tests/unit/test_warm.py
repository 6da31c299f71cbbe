"""Warm start without a guest: orders and their check, arguments, definitions, the choice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from armvm.base.errors import (
    ArmvmError,
    CommandFailed,
    ConfigError,
    DomainError,
    MissingCapability,
    NotReady,
    NotVerified,
    StorageError,
    UsageError,
)
from armvm.base.progress import Plain, Quiet
from armvm.guest.agents import clone_agent, clone_identity, command_server
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.seed import SEED_ROOM, seed_image
from armvm.guest.cloudinit.user_data import MAX_USER_DATA
from armvm.guest.identity import new_identity
from armvm.host.agent import channel
from armvm.host.domain.domain_xml import DomainSpec, build
from armvm.host.domain.golden_domain import Golden, Mark, definition_of_clone, nvram_size
from armvm.host.domain.metadata import Record, from_element, to_element
from armvm.host.facts import Accelerator, HostFacts
from armvm.host.memory import cow
from armvm.host.memory import route as memory
from armvm.host.network.card import Card, plan_cards
from armvm.host.storage.volumes import volume_names
from armvm.host.xml import at, remove, select
from armvm.provision.golden import host_files
from armvm.provision.golden.bake import golden_machine, with_fallback
from armvm.provision.golden.choose import Warm, fits, settings_of, source_of
from armvm.provision.golden.fit import differences, ground_in, ground_of
from armvm.provision.golden.source import FromGolden, FromMachine, source_in
from armvm.provision.image.find import words_for
from armvm.provision.launch.launch import find_source
from armvm.provision.launch.run import check_environment
from armvm.provision.launch.run_commands import guest_words
from armvm.provision.machine.create import Where
from armvm.settings.layers import Layer, resolve
from armvm.settings.machine import Machine
from armvm.settings.networks import Attachment, Kind, attachments
from armvm.settings.verify import Verify
from tests.unit.host_tools import KVM_HOST, TCG_HOST, facts_of

IDENTITY = new_identity("clone")
ORDER = clone_identity.make_order("clone", IDENTITY, user="debian", keys=["ssh-ed25519 AAAA me"])
RECORD = Record(
    version="0",
    created="2026-01-01T00:00:00Z",
    user="debian",
    host_key="ssh-ed25519 AAAA",
    instance_id="iid-1",
    pool="armvm",
    image={"reference": "local:debian-12", "system": "debian 12", "verified": "built-here"},
    settings={"cpu_model": None},
)
SPEC = DomainSpec(
    name="gold",
    uuid="11111111-1111-4111-8111-111111111111",
    cards=(Card(to=Attachment(Kind.USER), mac="52:54:00:00:00:01"),),
    cpus=2,
    memory_mib=1024,
    accelerator=Accelerator.TCG,
    cpu_model="cortex-a57",
    headless=True,
    libosinfo_id=None,
    overlay="/pool/gold.qcow2",
    seed="/pool/gold.seed.iso",
    serial_log="/pool/gold.serial.log",
)
SHAPE = {
    "image": "sha256:00", "cpus": 2, "memory_mib": 1024, "disk": 10 << 30, "cpu": "cortex-a57",
    "headless": True, "autologin": True, "user": "debian", "network": "user", "pool": "armvm",
}  # fmt: skip
NS = {"q": "http://libvirt.org/schemas/domain/qemu/1.0"}


def answer(**changes: Any) -> dict[str, Any]:
    """What a guest says that has done all of ORDER."""
    facts = {
        "hostname": "clone",
        "hostname_file": "clone",
        "machine_id": ORDER["machine_id"],
        "dbus_id": ORDER["machine_id"],
        "boot_id": ORDER["boot_id"],
        "instance_id": ORDER["instance_id"],
        "host_key": ORDER["host_key_public"],
        "time": 1000.0,
    }
    return {**facts, **changes}


def golden(**changes: Any) -> Golden:
    """A golden as it would be found."""
    mark = Mark(
        created="2026-01-01T00:00:00Z", shape=SHAPE, ground={}, state_digest="",
        record=RECORD,
    )  # fmt: skip
    definition = build(SPEC, RECORD)
    channel.add_channels(definition)
    etree.SubElement(at(definition, "devices/disk[1]"), "readonly")
    # As it was when it ran: the firmware that was chosen, and the file of its variables.
    # libvirt adds <firmware> when it defines a golden.
    if definition.find("os/firmware") is None:
        etree.SubElement(at(definition, "os"), "firmware")
    for tag, text in (("loader", "/firmware/CODE.fd"), ("nvram", "/nvram/gold_VARS.fd")):
        etree.SubElement(at(definition, "os"), tag).text = text
    found = Golden(
        name="gold", uuid=SPEC.uuid, mark=mark, definition=definition, overlay=SPEC.overlay,
        seed=SPEC.seed or "", cards=SPEC.cards,
    )  # fmt: skip
    return replace(found, **changes)


def test_an_order_is_new_each_time() -> None:
    again = clone_identity.make_order("clone", IDENTITY, user="debian", keys=[])
    assert again["entropy"] != ORDER["entropy"]
    assert again["boot_id"] != ORDER["boot_id"]
    assert len(bytes.fromhex(ORDER["entropy"])) >= 32
    assert ORDER["machine_id"] == IDENTITY.uuid.replace("-", "")


def test_a_guest_that_did_all_of_it_passes() -> None:
    clone_identity.check(ORDER, answer())
    clone_identity.check(ORDER, answer(dbus_id=None, instance_id=None))


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "gold"}, {"hostname_file": None}, {"machine_id": "0" * 32},
        {"dbus_id": "0" * 32}, {"boot_id": "x"}, {"instance_id": "iid-0"}, {"host_key": ""},
    ],
    ids=str,
)  # fmt: skip
def test_each_difference_is_told(change: dict[str, Any]) -> None:
    with pytest.raises(DomainError, match=next(iter(change))):
        clone_identity.check(ORDER, answer(**change))


@pytest.mark.parametrize("extra", [{"full": True}, {"password_hash": "$2b$x"}], ids=str)
def test_a_golden_that_knows_nothing_of_a_setting_is_of_no_use(extra: dict[str, Any]) -> None:
    order = clone_identity.make_order("clone", IDENTITY, user="debian", keys=[], **extra)
    said = answer(machine_id=order["machine_id"], boot_id=order["boot_id"],
                  dbus_id=order["machine_id"])  # fmt: skip
    with pytest.raises(DomainError, match=r"full|password"):
        clone_identity.check(order, said)
    clone_identity.check(order, {**said, "full": True, "password": True})


class Guest:
    """A guest's clock: words to it and from it take their time, in seconds."""

    def __init__(self, delays: list[float], *, stuck: bool = False) -> None:
        self.now, self.delays, self.stuck, self.offset = 1000.0, delays, stuck, 0.0
        self.asked = 0

    def host_clock(self) -> float:
        return self.now

    def order(self, at: float) -> dict[str, Any]:
        self.now += self.delays.pop(0)
        if not self.stuck:
            self.offset = at - self.now
        return {"time": self.now + self.offset}

    def ask(self, line: bytes) -> bytes:
        self.asked += 1
        return json.dumps(
            self.order(json.loads(line.removeprefix(command_server.MARK))["time"])
        ).encode()


def test_a_clock_that_is_right_is_not_set_again() -> None:
    guest = Guest([0.1])
    assert clone_identity.set_clock(guest.order(1000.0), guest.ask, clock=guest.host_clock) < 0.2
    assert guest.asked == 0


def test_a_slow_hosts_clone_gets_its_clock_set_until_it_is_right() -> None:
    guest = Guest([9.0, 4.0, 0.7, 0.2])
    behind = clone_identity.set_clock(guest.order(1000.0), guest.ask, clock=guest.host_clock)
    assert behind == pytest.approx(-guest.offset)
    assert behind < 0.5
    assert guest.asked == 3


def test_a_host_that_stays_slow_has_its_clone_all_the_same() -> None:
    guest = Guest([5.0] * 20)
    assert 4 < clone_identity.set_clock(guest.order(1000.0), guest.ask, clock=guest.host_clock) < 6
    assert guest.asked == clone_identity.CLOCK_TRIES


@pytest.mark.parametrize("answer", [{"time": 10.0}, {"time": 1e9}, {"time": None}, {}], ids=str)
def test_a_clock_that_cannot_be_set_is_an_error(answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    with pytest.raises(DomainError, match="clock"):
        clone_identity.set_clock(answer, lambda _line: text, clock=lambda: 1000.0)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"error": "OSError"}'])
def test_nonsense_from_a_guest_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(CommandFailed):
        clone_identity.read_facts(text)


def test_the_guests_half_is_python_without_our_package() -> None:
    argv = clone_identity.guest_command("facts")
    source = argv[argv.index("-c") + 1]
    compile(source, "agent", "exec")
    assert "import armvm" not in source
    assert "from armvm" not in source
    done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, check=True)
    assert "machine_id" in clone_identity.read_facts(done.stdout.decode())
    assert [f"/dev/virtio-ports/{name}" for name in channel.NAMES] == [*command_server.CHANNELS]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.1.1\tgold\tgold\n", "127.0.1.1 clone\n"),
        ("127.0.0.1 localhost\n127.0.1.1 gold.lan gold\n", "127.0.1.1 gold.lan clone\n"),
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1 clone\n"),
        ("# gold\n", "# gold\n127.0.1.1 clone\n"),
        ("", "127.0.1.1 clone\n"),
        ("127.0.1.1 golden\n", "127.0.1.1 golden\n127.0.1.1 clone\n"),
    ],
)
def test_the_hosts_file(before: str, after: str) -> None:
    assert clone_agent.hosts(before, "gold", "clone").endswith(after)


@given(st.text(alphabet="gold127.01 \t#\n", max_size=60))
def test_the_hosts_file_names_the_clone_and_stays_so(text: str) -> None:
    once = clone_agent.hosts(text, "gold", "clone")
    assert any("clone" in line.split()[1:] for line in once.splitlines())
    assert clone_agent.hosts(once, "gold", "clone") == once


def test_a_golden_in_the_making_keeps_its_memory_in_a_file() -> None:
    domain = build(replace(SPEC, memory_file="/pool/a,b.memory"), RECORD)
    words = [arg.get("value") for arg in domain.findall("q:commandline/q:arg", NS)]
    assert words == [
        "-object",
        f"memory-backend-file,id=armvm-memory,size={1 << 30},mem-path=/pool/a,,b.memory,share=on",
        "-machine",
        "memory-backend=armvm-memory",
    ]
    assert at(domain, "devices/memballoon").get("model") == "none"
    assert len(at(domain, "devices/memballoon")) == 0


def test_an_ordinary_machine_has_none_of_it() -> None:
    domain = build(SPEC, RECORD)
    assert domain.find("q:commandline", NS) is None
    assert at(domain, "devices/memballoon").get("model") == "virtio"


def test_a_clones_first_run_has_the_goldens_devices_and_its_own_names() -> None:
    spec = replace(
        SPEC, name="clone", uuid=IDENTITY.uuid,
        cards=(Card(to=Attachment(Kind.USER), mac="52:54:00:00:00:02"),),
        overlay="/pool/clone.qcow2", seed="/pool/clone.seed.iso",
        serial_log="/pool/clone.serial.log",
    )  # fmt: skip
    found = golden()
    domain = definition_of_clone(found, spec, replace(RECORD, golden="gold"))
    cow.clone_arguments(domain, "/pool/gold.memory")
    text = etree.tostring(domain, encoding="unicode")
    assert text.count("gold.") == 1, "of the golden's files, only its memory is left"
    assert domain.findtext("name") == "clone"
    assert domain.find("devices/disk[1]/readonly") is None
    assert domain.find("devices/disk[2]/readonly") is not None
    words = [arg.get("value") for arg in domain.findall("q:commandline/q:arg", NS)]
    assert words[-2:] == ["-incoming", "defer"]
    assert ",share=off" in str(words[1])
    assert at(domain, "devices/interface/mac").get("address") == SPEC.mac, "slirp knows this one"
    assert found.definition.findtext("name") == "gold", "the golden's own definition is untouched"
    kinds = [element.tag for element in at(domain, "devices")]
    assert kinds == [element.tag for element in at(found.definition, "devices")]


def test_a_clone_of_several_networks_has_its_own_on_each_but_user_networking() -> None:
    def cards(first: str, last: int) -> tuple[Card, ...]:
        return plan_cards(attachments(f"{first},user"), f"52:54:00:00:00:{last:02x}")

    before = replace(SPEC, cards=cards("armvm", 1))
    found = replace(golden(), definition=build(before, RECORD), cards=before.cards)
    spec = replace(before, name="clone", cards=cards("bridge=br0", 5))
    domain = definition_of_clone(found, spec, replace(RECORD, golden="gold"))
    first, second = select(domain, "devices/interface")
    assert (first.get("type"), at(first, "source").get("bridge")) == ("bridge", "br0")
    assert at(first, "mac").get("address") == spec.cards[0].mac
    assert at(first, "link").get("state") == "down", "until it has its own identity"
    assert at(second, "mac").get("address") == before.cards[1].mac, "slirp knows this one"
    assert second.find("link") is None


def test_a_guest_must_change_every_card() -> None:
    macs = [("52:54:00:00:00:01", "52:54:00:00:00:05"), ("52:54:00:00:00:02", "52:54:00:00:00:06")]
    order = clone_identity.make_order("clone", IDENTITY, user="debian", keys=[], macs=macs)
    facts = answer(**{key: order[key] for key in ("machine_id", "boot_id")})
    facts |= {"host_key": order["host_key_public"]}
    clone_identity.check(order, {**facts, "mac": [new for _, new in macs]})
    with pytest.raises(DomainError, match="did not apply its new identity: mac"):
        clone_identity.check(order, {**facts, "mac": [macs[0][1], macs[1][0]]})


def test_a_disposable_clone_writes_nothing_to_the_disk_in_earnest() -> None:
    driver = "devices/disk[1]/driver"
    disposable = definition_of_clone(golden(), SPEC, RECORD, disposable=True)
    assert at(disposable, driver).get("cache") == "unsafe"
    assert disposable.find("os/nvram") is None
    assert at(disposable, "os/loader").get("stateless") == "yes"
    assert "firmware" not in at(disposable, "os").attrib, "libvirt 11.3 would look for another one"
    assert disposable.find("os/firmware") is None
    kept = definition_of_clone(golden(), SPEC, RECORD)
    assert at(kept, "os").get("firmware") == "efi"
    assert at(kept, driver).get("cache") is None
    assert at(kept, "os/loader").get("stateless") is None
    assert at(kept, "os/nvram").text is None, "libvirt makes it one of its own"


def test_a_clone_has_its_variables_where_its_definition_says() -> None:
    spec = replace(SPEC, nvram="/pool/clone.nvram")
    assert nvram_size(golden()) == 64 << 20
    for domain in (build(spec, RECORD), definition_of_clone(golden(), spec, RECORD)):
        assert [one.text for one in domain.findall("os/nvram")] == ["/pool/clone.nvram"]
    other = golden()
    at(other.definition, "os/nvram").set("format", "qcow2")
    assert nvram_size(other) is None, "only a raw one can begin as a hole"
    remove(at(other.definition, "os/nvram"))
    assert nvram_size(other) is None


def test_memory_that_cannot_be_shared_is_saved_the_other_way() -> None:
    said = io.StringIO()
    tried = []

    def attempt(route: str) -> Golden:
        tried.append(route)
        with memory.refusals(route):
            if route == memory.COW:
                raise MissingCapability("QEMU refuses migrate: not to a file", detail="fd")
        return golden()

    assert with_fallback(memory.COW, attempt, Plain(said)).name == "gold"
    assert tried == [memory.COW, memory.SAVE_IMAGE]
    assert "QEMU refuses migrate: not to a file: fd" in said.getvalue()
    assert "--save-image" in said.getvalue()


def test_a_cure_that_is_known_is_told_with_the_other_way() -> None:
    said = io.StringIO()

    def attempt(route: str) -> Golden:
        if route == memory.COW:
            raise memory.Refused("AppArmor denies QEMU access to its memory file", hint="sudo cure")
        return golden()

    with_fallback(memory.COW, attempt, Plain(said))
    assert "(AppArmor denies QEMU access to its memory file)" in said.getvalue()
    assert "create the golden again after: sudo cure\n" in said.getvalue()


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (memory.SAVE_IMAGE, DomainError("no room for it")),
        (memory.COW, NotReady("it does not boot")),
        (memory.COW, StorageError("no space")),
    ],
)
def test_what_another_route_does_not_mend_is_told_at_once(first: str, error: ArmvmError) -> None:
    tried = []

    def attempt(route: str) -> Golden:
        tried.append(route)
        with memory.refusals(route):
            raise error

    with pytest.raises(type(error), match=error.message):
        with_fallback(first, attempt, Quiet())
    assert tried == [first]


def test_arguments_given_twice_are_there_once() -> None:
    domain = build(SPEC, RECORD)
    cow.golden_arguments(domain, "/one")
    cow.golden_arguments(domain, "/two")
    assert len(select(domain, "*[local-name()='commandline']")) == 1


def test_a_clone_remembers_its_golden() -> None:
    record = replace(RECORD, golden="gold")
    assert from_element(to_element(record)) == record
    assert from_element(to_element(RECORD)) == RECORD


def test_memory_and_state_go_with_a_machines_volumes() -> None:
    assert {"gold.memory", "gold.state"} <= set(volume_names("gold").values())


def test_differences_are_told_in_words() -> None:
    assert differences(SHAPE, SHAPE) == []
    assert differences({**SHAPE, "cpus": 4}, SHAPE) == ["cpus 2 (requested: 4)"]


def test_a_goldens_settings_are_a_layer_that_gives_its_shape() -> None:
    settings = settings_of(golden())
    assert settings.pop("preset") is None, "that of its machine; this one's record has none"
    layers = [Layer(origin="the golden gold", values=settings)]
    values = {key: setting.value for key, setting in resolve(layers).items()}
    assert (values["mem"], values["disk"], values["cpus"]) == (1024, 10 << 30, 2)
    assert (values["network"], values["headless"], values["user"]) == ("user", True, "debian")


def test_a_goldens_image_needs_no_second_look() -> None:
    source = source_of(golden(), Machine(name="clone", image="local:debian-12"))
    assert isinstance(source, FromGolden)
    assert source.digest == "sha256:00"
    assert source.system is not None
    assert source.system.default_user == "debian"
    assert source_of(golden(), Machine(name="clone", image="ubuntu:24.04")) is None


def test_a_machines_golden_is_told_by_its_digest() -> None:
    one = golden()
    record = replace(one.mark.record, image={"reference": "machine:web-01", "system": "debian 12"})
    shape = {**one.mark.shape, "image": "machine:0-0 2026"}
    source = source_in(replace(one, mark=replace(one.mark, record=record, shape=shape)))
    assert isinstance(source, FromMachine)
    assert (source.machine, source.digest) == ("web-01", "machine:0-0 2026")
    assert isinstance(source_in(one), FromGolden)


def test_a_goldens_packages_are_read_from_its_record() -> None:
    one = golden()
    image = {**one.mark.record.image, "packages": "gcc  make -y ../x a;b G++ g++"}
    mark = replace(one.mark, record=replace(one.mark.record, image=image))
    assert source_in(replace(one, mark=mark)).packages == ("gcc", "make", "g++")
    assert source_in(one).packages == ()


def test_a_golden_is_held_against_what_is_asked_for_now() -> None:
    machine = Machine(name="clone", image="local:debian-12")
    key = "D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"

    def found(image: dict[str, str], asked: Verify | None, made_of: str = "sha256:00") -> str:
        one = golden()
        record = replace(one.mark.record, image={**one.mark.record.image, **image})
        shape = {**one.mark.shape, "image": made_of}
        one = replace(one, mark=replace(one.mark, record=record, shape=shape))
        where = Where(connection=None, facts=facts_of(TCG_HOST), verify=asked)
        return words_for(find_source(where, machine, Quiet(), one))

    signed, weak = {"verified": "signature", "signer": key}, {"verified": "catalog-digest"}
    assert "Ubuntu" in found(signed, Verify.SIGNATURE)
    assert "local build" in found({}, Verify.SIGNATURE)
    for asked in (None, Verify.DIGEST, Verify.NONE):
        assert "without a signature" in found(weak, asked)
    with pytest.raises(NotVerified, match="verify = signature"):
        found(weak, Verify.SIGNATURE)
    # One made from a machine's disk was not fetched.
    assert found({"verified": "none"}, Verify.SIGNATURE, "machine:1 2026-01-01T00:00:00Z")


def test_from_and_cold_exclude_each_other() -> None:
    with pytest.raises(UsageError):
        Warm(asked="gold", cold=True)


def test_without_a_command_a_login_shell_runs() -> None:
    shell = ["sh", "-c", 'exec "$SHELL" -l']
    assert guest_words([], []) == shell
    assert guest_words([], ["A=b"]) == ["env", "A=b", *shell]
    assert guest_words(["make"], ["CC=gcc -O2"]) == ["env", "CC=gcc -O2", "make"]


@pytest.mark.parametrize("text", ["", "CC", "=x", "1A=x", "A B=x", "A=\0"])
def test_what_sets_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        check_environment([text])


def test_why_not() -> None:
    assert cow.why_not(local=True) is None
    assert "remote" in str(cow.why_not(local=False))


def test_facts_are_json_that_the_host_reads() -> None:
    facts = clone_identity.read_facts(json.dumps(clone_agent.facts()))
    assert {"hostname", "machine_id", "random", "time"} <= facts.keys()


@pytest.mark.parametrize("extra", [{"user_data": "#cloud-config\n"}, {"password_hash": "$2b$x"}])
def test_a_golden_has_nothing_that_its_clones_did_not_ask_for(extra: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="every clone"):
        golden_machine(Machine(name="golden-01", **extra))  # type: ignore[arg-type]


def test_the_seed_of_a_running_clone_lets_its_host_key_stay() -> None:
    machine = Machine(name="clone", user_data="#cloud-config\npackages: [git]\n")
    keys = {
        clone: yaml.safe_load(compose(machine, IDENTITY, "debian", clone=clone).user_data)
        for clone in (False, True)
    }
    assert keys[False]["ssh_deletekeys"] is True
    assert keys[True]["ssh_deletekeys"] is False
    assert keys[True]["ssh_keys"] == keys[False]["ssh_keys"]


def test_the_largest_user_data_fits_a_goldens_seed() -> None:
    text = "#!/bin/sh\n".ljust(MAX_USER_DATA, "#")
    seed = seed_image(compose(Machine(name="clone", user_data=text), IDENTITY, "debian"))
    assert len(seed) <= SEED_ROOM


def emulator_in(directory: Path, version: str = "7.2.22 (Debian 1:7.2)") -> Path:
    """A program that prints a version as QEMU does, and counts how often it was asked."""
    path = directory / "qemu-system-aarch64"
    path.write_text(
        f"#!/bin/sh\necho x >> {directory}/asked\necho 'QEMU emulator version {version}'\n"
    )
    path.chmod(0o755)
    return path


def made_on(host: HostFacts, loader: Path, **changes: str) -> Golden:
    """A golden as it would have been made on a host."""
    found = golden()
    at(found.definition, "os/loader").text = str(loader)
    ground = {**ground_of(host, str(loader)), **changes}
    return replace(found, mark=replace(found.mark, ground=ground))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[HostFacts, Path]:
    """The facts of a local host, and its firmware."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    loader = tmp_path / "CODE.fd"
    loader.write_bytes(b"firmware")
    emulator = str(emulator_in(tmp_path))
    return facts_of(TCG_HOST, uri="qemu:///system", emulator=emulator), loader


def on(facts: HostFacts) -> Where:
    return Where(connection=None, facts=facts, pool="armvm")


def test_a_golden_fits_wherever_the_same_qemu_and_firmware_are(
    host: tuple[HostFacts, Path], tmp_path: Path
) -> None:
    here, loader = host
    made = made_on(here, loader)
    assert made.mark.ground["QEMU"] == "7.2.22 Debian 1:7.2"
    assert fits(on(here), made) is None
    # New files with the same contents, as on another host.
    os.utime(loader, (1, 1))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    there = replace(here, emulator=str(emulator_in(moved)))
    assert fits(on(there), made) is None


def test_what_differs_is_told_with_both_values(
    host: tuple[HostFacts, Path], tmp_path: Path
) -> None:
    here, loader = host
    other = {"QEMU": "8.2.0 Fedora", "firmware": "sha256:" + "0" * 64, "machine type": "virt-8.2"}
    reason = str(fits(on(here), made_on(here, loader, **other)))
    digest = "sha256:" + hashlib.sha256(b"firmware").hexdigest()[:12]
    assert reason.split("; ") == [
        "machine type virt-7.2 here, virt-8.2 where it was made",
        "QEMU 7.2.22 Debian 1:7.2 here, 8.2.0 Fedora where it was made",
        f"firmware {digest} here, sha256:000000000000 where it was made",
    ]
    loader.unlink()
    assert f"firmware {loader} (not readable) here" in str(
        fits(on(here), made_on(here, loader, firmware="sha256:" + "0" * 64))
    )


@pytest.mark.parametrize(
    ("there", "fit"),
    [("9.0.0", True), ("8.10.0", True), ("9.0.1", False), ("10.0.0", False), ("?", False)],
)
def test_libvirt_may_be_newer(host: tuple[HostFacts, Path], there: str, fit: bool) -> None:
    facts, loader = host
    assert facts.libvirt_version == "9.0.0"
    reason = fits(on(facts), made_on(facts, loader, libvirt=there))
    assert reason == (None if fit else f"libvirt 9.0.0 here, {there} where it was made")


def test_with_kvm_the_hosts_cpu_counts(tmp_path: Path) -> None:
    kvm = facts_of(KVM_HOST, uri="qemu+ssh://far/system")
    assert kvm.cpu == "ARM Neoverse-N1"
    made = made_on(kvm, tmp_path / "CODE.fd")
    assert fits(on(kvm), made) is None
    assert fits(on(replace(kvm, cpu="ARM Cortex-A76")), made) == (
        "CPU ARM Cortex-A76 here, ARM Neoverse-N1 where it was made"
    )


def test_files_on_a_remote_host_are_not_compared(host: tuple[HostFacts, Path]) -> None:
    near, loader = host
    far = replace(near, uri="qemu+ssh://far/system")
    assert {"QEMU", "firmware"} <= ground_of(near, "").keys() - ground_of(far, "").keys()
    for made in (made_on(near, loader), made_on(far, loader)):
        assert fits(on(near), made) is None
        assert fits(on(far), made) is None


def test_the_files_are_read_once(host: tuple[HostFacts, Path], tmp_path: Path) -> None:
    facts, loader = host
    first = ground_of(facts, str(loader))
    assert ground_of(facts, str(loader)) == first
    assert (tmp_path / "asked").read_text() == "x\n"
    emulator_in(tmp_path, "8.0.0")
    loader.write_bytes(b"newer")
    changed = ground_of(facts, str(loader))
    assert changed["QEMU"] == "8.0.0"
    assert changed["firmware"] != first["firmware"]


def test_a_damaged_cache_is_ignored(host: tuple[HostFacts, Path], tmp_path: Path) -> None:
    facts, loader = host
    first = ground_of(facts, str(loader))
    for text in ("", "[]", '{"version x": 3}', "[" * 100000):
        (tmp_path / "cache/armvm" / host_files.MEMORY).write_text(text)
        assert ground_of(facts, str(loader)) == first


def test_a_qemu_that_does_not_run_has_no_version(
    host: tuple[HostFacts, Path], tmp_path: Path
) -> None:
    facts, loader = host
    for emulator in (tmp_path / "missing", emulator_in(tmp_path)):
        if emulator.exists():
            emulator.write_text("#!/bin/sh\nexit 1\n")
        assert "QEMU" not in ground_of(replace(facts, emulator=str(emulator)), str(loader))


def test_an_older_armvms_golden_fits_as_long_as_its_firmware_is_the_same_file(
    host: tuple[HostFacts, Path],
) -> None:
    facts, loader = host
    status = loader.stat()
    made = made_on(facts, loader)
    ground = {
        "machine type": facts.machine_type,
        "libvirt": "9.0.0",
        "QEMU": "/usr/bin/qemu, 1 bytes, changed 1",
        "QEMU version": "7.2.22 Debian 1:7.2",
        "firmware": f"{loader}, {status.st_size} bytes, changed {status.st_mtime_ns}",
    }
    old = replace(made, mark=replace(made.mark, ground=ground))
    assert fits(on(facts), old) is None
    assert ground_in(old) == {
        key: value for key, value in made.mark.ground.items() if key != "accelerator"
    }
    loader.write_bytes(b"firmware of another size")
    assert "of an older file where it was made" in str(fits(on(facts), old))


def test_a_golden_without_the_channels_is_an_older_armvms() -> None:
    where = on(facts_of(TCG_HOST, uri="qemu:///system"))
    old = golden(definition=build(SPEC, RECORD))
    assert fits(where, golden()) is None
    assert "made by an older armvm" in str(fits(where, old))


@pytest.mark.parametrize("time", ["1" + "0" * 400, "Infinity", "-Infinity", "NaN", "[]", "null"])
def test_a_clock_of_any_value_is_an_error_of_the_guest(time: str) -> None:
    with pytest.raises(DomainError, match="clock"):
        clone_identity.renew(
            lambda _: b'{"renewed": true, "time": %s}\n' % time.encode(), user="u", keys=[]
        )


@pytest.mark.parametrize("mac", [5, "52:54:00:00:00:05", {}, None])
def test_macs_of_any_type_are_an_error_of_the_guest(mac: Any) -> None:
    macs = [("52:54:00:00:00:01", "52:54:00:00:00:05")]
    order = clone_identity.make_order("clone", IDENTITY, user="debian", keys=[], macs=macs)
    facts = answer(**{key: order[key] for key in ("machine_id", "boot_id")}, mac=mac)
    with pytest.raises(DomainError, match=r"identity: .*mac"):
        clone_identity.check(order, facts)
