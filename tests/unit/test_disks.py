"""What --add-disk takes, the disks in a domain, and machines without a seed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import ConfigError, Conflict, NotFound, UsageError
from armvm.cli.options import MachineOptions
from armvm.cli.request import check_seedless
from armvm.guest.boot import serial
from armvm.guest.ignition import MAX_BYTES, check
from armvm.guest.ssh import known_hosts
from armvm.guest.ssh.options import verified
from armvm.host import connection as connecting
from armvm.host.connection import Connection
from armvm.host.domain.disks import DiskSpec
from armvm.host.domain.domain_xml import HEADLESS_ROOT_PORTS, build
from armvm.host.storage.pools import find_pool, pool_path
from armvm.host.storage.volumes import (
    create_disk,
    is_disk_of,
    is_volume_of,
    machine_volumes,
)
from armvm.host.xml import at, parse, select, to_text
from armvm.provision.machine.disks import existing, make_one, plan_disks
from armvm.provision.machine.own_disk import clear_volumes, delete_machine_volumes
from armvm.provision.machine.plan import CreatePlan, plan
from armvm.provision.machine.seedless import read_ignition
from armvm.settings.disks import MAX_DISKS, ExtraDisk, disk_size, named, read_disk
from armvm.settings.machine import Machine
from tests.unit.host_tools import IDENTITY, KVM_HOST, RECORD, SPEC, facts_of
from tests.unit.test_provision_plan import SOURCE

pytestmark = pytest.mark.unit

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("20G", ExtraDisk(size=20 * GIB)),
        ("20", ExtraDisk(size=20 * GIB)),
        ("1.5G", ExtraDisk(size=3 * GIB // 2)),
        ("size=20G", ExtraDisk(size=20 * GIB)),
        ("size=1M,name=data,format=raw", ExtraDisk(size=1 << 20, name="data", format="raw")),
        ("/srv/a,b=c.qcow2", ExtraDisk(file="/srv/a,b=c.qcow2")),
        ("data.img", ExtraDisk(file="data.img")),
        ("./20G", ExtraDisk(file="./20G")),
        ("file=/srv/x,name=x_1", ExtraDisk(file="/srv/x", name="x_1")),
        ("sizes/x", ExtraDisk(file="sizes/x")),
    ],
)
def test_a_disk_is_a_size_a_file_or_pairs(text: str, disk: ExtraDisk) -> None:
    assert read_disk(text) == disk


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("20X", "invalid size '20X'"),
        ("0", "out of range"),
        ("9999T", "out of range"),
        ("8193G", "out of range (1M to 8T)"),
        ("size=20G,file=/x", "either size or file"),
        ("name=data", "either size or file"),
        ("size=20G,colour=red", "'colour=red' is not one of size="),
        ("size=20G,size=30G", "size is given twice"),
        ("size=20G,name=data,name=x", "name is given twice"),
        ("size=,name=x", "is not one of"),
        ("size=20G,format=vmdk", "invalid disk format 'vmdk'"),
        ("size=20G,name=root", "cannot be used as the name of a disk"),
        ("size=20G,name=vdc", "cannot be used as the name of a disk"),
        ("size=20G,name=a/../b", "invalid disk name"),
        ("size=20G,name=<x>", "invalid disk name"),
        ("size=20G,name=" + "a" * 21, "invalid disk name"),
    ],
)
def test_other_words_are_explained(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_disk(text)
    assert why in caught.value.message
    assert caught.value.hint


def test_examples_of_a_disks_size_are_in_gib() -> None:
    with pytest.raises(ConfigError) as caught:
        read_disk("20X")
    assert caught.value.hint == "examples: 20 (GiB), 20G, 512M"


def test_the_largest_disk_can_be_attached_again(connection: Connection, tmp_path: Path) -> None:
    size = disk_size("8T")
    assert Machine(name="m", disk=size).disk == size
    path = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    assert existing(connection, ExtraDisk(name="large", file=str(path))).format == "qcow2"


def test_disks_without_a_name_get_one() -> None:
    disks = [ExtraDisk(size=GIB), ExtraDisk(size=GIB, name="disk-02"), ExtraDisk(size=GIB)]
    assert [one.name for one in named(disks)] == ["disk-01", "disk-02", "disk-03"]
    assert named([ExtraDisk(size=GIB)], ["disk-01"])[0].name == "disk-02"
    with pytest.raises(ConfigError, match="two disks have the name a"):
        named([ExtraDisk(size=GIB, name="a")] * 2)
    with pytest.raises(Conflict, match="disk a already exists"):
        named([ExtraDisk(size=GIB, name="a")], ["a"])
    with pytest.raises(ConfigError, match="out of range"):
        Machine(name="m", disks=(ExtraDisk(size=GIB),) * (MAX_DISKS + 1))


def test_a_machine_owns_its_disks_and_no_others() -> None:
    assert is_volume_of("web", "web.disk-data.qcow2")
    assert is_disk_of("web", "web.disk-data.raw")
    for other in ("web_data.qcow2", "web-data.qcow2", "web2.disk-data.qcow2", "web.qcow2"):
        assert not is_disk_of("web", other)
    assert not is_volume_of("web", "web_data.qcow2")


@pytest.fixture
def connection() -> Iterator[Connection]:
    """libvirt's test driver, which forgets what was defined when it is closed."""
    connection = connecting.connect("test:///default")
    yield connection
    connection.close()


def define(connection: Connection, name: str, *files: str) -> None:
    """Define a domain with the disks *files*."""
    disks = "".join(
        f'<disk type="file"><source file="{file}"/><target dev="vd{letter}"/></disk>'
        for file, letter in zip(files, "abc", strict=False)
    )
    connection.defineXML(
        f'<domain type="test"><name>{name}</name><memory>1</memory><os><type>hvm</type></os>'
        f"<devices>{disks}</devices></domain>"
    )


def test_a_disk_that_another_machine_uses_is_kept(connection: Connection) -> None:
    pool = find_pool(connection, "default-pool")
    assert pool is not None
    data = create_disk(pool, "a.disk-data.qcow2", 1 << 20, "qcow2")
    create_disk(pool, "a.disk-logs.qcow2", 1 << 20, "qcow2")
    create_disk(pool, "a.qcow2", 1 << 20, "qcow2")
    define(connection, "b", "/pool/b.qcow2", data.path())
    define(connection, "a", f"{pool_path(pool)}/a.qcow2")
    with pytest.raises(Conflict, match="but b uses it"):
        clear_volumes(connection, pool, "a")
    with pytest.raises(Conflict, match="already exists, and b uses it"):
        make_one(pool, "a", ExtraDisk(name="data", size=1 << 20))
    assert sorted(delete_machine_volumes(pool, "a")) == ["a.disk-logs.qcow2", "a.qcow2"]
    assert set(machine_volumes(pool, "a")) == {".disk-data.qcow2"}
    connection.lookupByName("b").undefine()
    assert clear_volumes(connection, pool, "a") == ["a.disk-data.qcow2"]


def test_a_leftover_disk_is_not_attached_to_a_new_machine_of_its_name(
    connection: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "a.disk-data.raw"
    file.write_bytes(bytes(1 << 20))
    disks = (ExtraDisk(name="data", file=str(file)),)

    def planned(name: str) -> CreatePlan:
        machine = Machine(name=name, disks=disks)
        there: dict[str, Any] = {
            "pool": "p",
            "pool_path": str(tmp_path),
            "version": "1",
            "now": "2026-01-02",
        }
        return plan_disks(connection, plan(machine, SOURCE, facts_of(KVM_HOST), IDENTITY, **there))

    assert planned("b").spec.disks[0].file == str(file)
    with pytest.raises(Conflict, match="creating a removes the volumes"):
        planned("a")


def test_disks_follow_the_seed_in_the_definition() -> None:
    disks = (
        DiskSpec(name="data", file="/pool/<&>.qcow2", format="qcow2"),
        DiskSpec(name="logs", file="/pool/logs.raw", format="raw"),
    )
    document = parse(to_text(build(replace(SPEC, disks=disks, headless=True), RECORD)))
    found = select(document, "devices/disk")
    assert [at(one, "target").get("dev") for one in found] == ["vda", "vdb", "vdc", "vdd"]
    assert at(found[2], "source").get("file") == "/pool/<&>.qcow2"
    assert (found[2].findtext("serial"), found[3].findtext("serial")) == ("data", "logs")
    assert at(found[3], "driver").get("type") == "raw"
    ports = select(document, "devices/controller[@model='pcie-root-port']")
    assert len(ports) == HEADLESS_ROOT_PORTS + 2, "the disks leave the free ports free"


def test_an_installer_has_an_empty_disk_first_and_a_read_only_cdrom() -> None:
    spec = replace(SPEC, seed=None, cdrom="/pool/x.cdrom.iso", ignition="/pool/x.ignition")
    document = parse(to_text(build(spec, RECORD)))
    root, cdrom = select(document, "devices/disk")
    assert (at(root, "boot").get("order"), at(cdrom, "boot").get("order")) == ("1", "2")
    assert cdrom.get("device") == "cdrom"
    assert at(cdrom, "target").get("bus") == "scsi"
    assert cdrom.find("readonly") is not None
    assert at(document, "devices/controller[@type='scsi']").get("model") == "virtio-scsi"
    assert "ds=nocloud" not in to_text(document)
    entry = at(document, "sysinfo[@type='fwcfg']/entry")
    assert (entry.get("name"), entry.get("file")) == ("opt/com.coreos/config", "/pool/x.ignition")


def test_options_that_need_a_seed_are_refused() -> None:
    iso = Path("x.iso")
    for options, asked in (
        (MachineOptions(ssh_key=[Path("x")]), "--ssh-key"),
        (MachineOptions(user_data=[Path("x")]), "--user-data"),
        (MachineOptions(password=True), "--password"),
        (MachineOptions(fast=True), "--fast"),
        (MachineOptions(image="debian:12"), "--image"),
    ):
        with pytest.raises(UsageError, match=f"{asked} cannot be used with --cdrom"):
            check_seedless(options, None, iso, None)
    with pytest.raises(UsageError, match="--from cannot be used with --no-seed"):
        check_seedless(MachineOptions(), "gold", None, None)
    with pytest.raises(UsageError, match="--cdrom cannot be used with --ignition"):
        check_seedless(MachineOptions(), None, iso, iso)
    check_seedless(
        MachineOptions(user="alice", image="debian:12", fast=False, headless=True), None, None, iso
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"variant: fcos\nversion: 1.5.0\n", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "ignition.version not found"),
        (b'{"ignition": "3.4.0"}', "ignition.version not found"),
        (b'{"ignition": {"version": "three"}}', "invalid ignition.version"),
        (b'{"ignition": {"version": 3}}', "invalid ignition.version"),
        (b" " * (MAX_BYTES + 1), "is larger than 1 MiB"),
    ],
)
def test_only_an_ignition_configuration_is_one(tmp_path: Path, data: bytes, why: str) -> None:
    file = tmp_path / "config.ign"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=why):
        read_ignition(file)


def test_an_ignition_configuration_is_passed_on_unchanged(tmp_path: Path) -> None:
    good = b'{"ignition": {"version": "3.4.0"}, "passwd": {}}\n'
    assert check(good, "x") == good
    with pytest.raises(NotFound, match="not found for --ignition"):
        read_ignition(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is not a file"):
        read_ignition(tmp_path)


def test_without_a_seed_ssh_keeps_the_first_host_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = known_hosts.write("1-2", "")
    told = verified(user="u", host_key="", alias="a", known_hosts=file, identity=None)
    assert told["StrictHostKeyChecking"] == "accept-new"
    file.write_text("a ssh-ed25519 AAAA\n")
    assert known_hosts.write("1-2", "").read_text() == "a ssh-ed25519 AAAA\n"
    told = verified(user="u", host_key="ssh-rsa A", alias="a", known_hosts=file, identity=None)
    assert told["StrictHostKeyChecking"] == "yes"


def test_a_login_prompt_is_one_of_the_latest_boot() -> None:
    shown = "Booting Linux on physical CPU\n\nDebian GNU/Linux 12 box ttyAMA0\n\nbox login: "
    assert serial.has_login_prompt(shown)
    assert serial.has_login_prompt(shown + "root (automatic login)\n")
    assert not serial.has_login_prompt(shown + "\nreboot: Restarting system\n")
    assert not serial.has_login_prompt("Booting Linux on physical CPU\nLast login: Mon Nov 30\n")
