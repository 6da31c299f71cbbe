"""Further disks, installers and machines without a seed, on a real libvirt."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import (
    ArmvmError,
    ConfigError,
    Conflict,
    HostileImage,
    MissingCapability,
    NotFound,
)
from armvm.host.domain.handle import find_machine
from armvm.provision.manage.disk import add, check_removable
from armvm.settings.disks import ExtraDisk, read_disk
from tests.libvirt.world import World, until, virsh
from tests.support import armvm, fresh_name
from tests.unit.test_iso import make_iso

GIB = 1 << 30


@pytest.fixture
def other() -> Any:
    """A second name; what was made under it is removed afterwards."""
    chosen = fresh_name()
    yield chosen
    armvm("delete", "--yes", chosen, "--connect", "qemu:///system")


def make_disk(path: Path, *options: str, size: str = "8M") -> Path:
    command = ["qemu-img", "create", "-q", *(options or ("-f", "qcow2")), str(path), size]
    subprocess.run(command, check=True)
    return path


def named(world: World, machine: str) -> dict[str, dict[str, Any]]:
    rows = world.armvm("disk", "list", machine, "--json").ok().json
    return {row["name"]: row for row in rows}


def test_disks_are_made_with_the_machine_and_go_with_it(
    world: World, image: Path, name: str, tmp_path: Path
) -> None:
    kept = make_disk(world.directory / f"kept-{tmp_path.name}.qcow2")
    pairs = "size=2G,name=data,format=raw"
    plan = ("create", "--name", name, "--image", image, "--dry-run", "--json")
    planned = world.armvm(*plan, "--add-disk", pairs).ok().json
    assert f"{world.directory}/{name}.disk-data.raw" in planned["volumes"]
    world.held(name, image, "--add-disk", "1G", "--add-disk", pairs, "--add-disk", str(kept))
    rows = named(world, name)
    assert list(rows) == ["root", "seed", "disk-01", "data", "disk-02"]
    assert [row["target"] for row in rows.values()] == ["vda", "vdb", "vdc", "vdd", "vde"]
    assert (rows["disk-01"]["size"], rows["data"]["size"]) == (GIB, 2 * GIB)
    assert (rows["data"]["format"], rows["data"]["allocated"] < GIB) == ("raw", True)
    assert [row["made"] for row in rows.values()] == [True] * 4 + [False]
    assert rows["root"]["backing"].startswith(f"{world.directory}/base-")
    assert rows["disk-02"]["file"] == str(kept)
    told = world.armvm("delete", name, "--yes").ok().out
    assert f"kept {kept}" in told
    assert world.traces(name) == []
    assert kept.is_file()
    kept.unlink()


@pytest.mark.slow
def test_a_failed_create_leaves_no_disk(world: World, image: Path, name: str) -> None:
    before = world.volumes() - world.bases()
    tried = ("create", "--name", name, "--image", image, "--no-start", "--add-disk", "1G")
    assert "not found" in world.armvm(*tried, "--add-disk", "/none/x.img").failed(4).err
    assert world.volumes() - world.bases() == before
    assert world.traces(name) == []


def refused(world: World, machine: str, what: str | Path, kind: type[ArmvmError]) -> str:
    """Try to add a disk; return the message of the error."""
    with pytest.raises(ArmvmError) as caught:
        add(find_machine(world.connection, machine), read_disk(str(what)))
    assert type(caught.value) is kind, caught.value
    return caught.value.message


def test_files_that_cannot_be_attached_are_refused(
    world: World, image: Path, name: str, other: str, tmp_path: Path
) -> None:
    world.held(name, image, "--add-disk", "size=1G,name=data")
    world.held(other, image)
    base = next(iter(world.bases()))
    inside = make_disk(tmp_path / "base.qcow2")
    options = ("-f", "qcow2", "-b", str(inside), "-F", "qcow2")
    backed = make_disk(tmp_path / "backed.qcow2", *options)
    external = make_disk(
        tmp_path / "external.qcow2", "-f", "qcow2", "-o", f"data_file={tmp_path}/data.raw"
    )
    packed = tmp_path / "disk.gz"
    packed.write_bytes(b"\x1f\x8b" + bytes(2000))
    for what, kind, why in (
        (world.directory / f"{name}.disk-data.qcow2", Conflict, f"is in use by {name}"),
        (world.directory / f"{name}.qcow2", Conflict, f"is in use by {name}"),
        (world.directory / f"{other}.seed.iso", Conflict, f"is in use by {other}"),
        (world.directory / base, Conflict, "is the backing file of"),
        (tmp_path, ConfigError, "it is a directory"),
        ("/dev/null", ConfigError, "not a regular file"),
        (tmp_path / "absent", NotFound, "not found"),
        ("20X", ConfigError, "invalid size '20X'"),
        (backed, HostileImage, "it names a backing file"),
        (external, HostileImage, "external data file"),
        (packed, HostileImage, "gzip-compressed"),
        (f"file={inside},format=qcow2,size=1G", ConfigError, "either size or file"),
        ("size=1G,name=seed", ConfigError, "cannot be used as the name"),
    ):
        told = refused(world, other, what, kind)
        assert why in told, told
    assert list(named(world, other)) == ["root", "seed"]
    assert "already exists" in refused(world, name, "size=1G,name=data", Conflict)
    link = tmp_path / "link"
    link.symlink_to(world.directory / f"{name}.disk-data.qcow2")
    assert f"in use by {name}" in world.armvm("disk", "add", other, link).failed(5).err


def test_a_file_that_qemu_has_open_is_refused(
    world: World, image: Path, name: str, tmp_path: Path
) -> None:
    world.held(name, image)
    file = make_disk(tmp_path / "x.raw", "-f", "raw")
    command = ["qemu-io", "-f", "raw", str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        user.stdin.write("length\n")
        user.stdin.flush()
        user.stdout.readline()
        assert "in use by a QEMU process" in refused(world, name, file, Conflict)
        user.stdin.close()
    world.armvm("disk", "add", name, str(file)).ok()


def test_disks_of_a_stopped_machine(world: World, image: Path, name: str) -> None:
    world.held(name, image, "--headless")
    added = world.armvm("disk", "add", name, "size=1G,name=data", "--json").ok().json
    assert (added["target"], added["size"], added["made"]) == ("vdc", GIB, True)
    for number in range(9):  # more than there are free slots
        machine = find_machine(world.connection, name)
        add(machine, ExtraDisk(size=1 << 20, name=f"more{number}"))
    grown = world.armvm("disk", "grow", name, "data", "2G", "--json").ok().json
    assert grown["size"] == 2 * GIB
    told = world.armvm("disk", "grow", name, "vdc", "1G").failed(3).err
    assert "cannot shrink the disk data" in told
    assert "armvm resize" in world.armvm("disk", "grow", name, "root", "90G").failed(3).err
    assert "known: root, seed, data" in world.armvm("disk", "grow", name, "x", "9G").failed(4).err
    for essential in ("root", "vda", "seed"):
        with pytest.raises(Conflict, match="cannot be removed"):
            check_removable(find_machine(world.connection, name), essential)
    told = world.armvm("disk", "remove", name, "data", stdin="").failed(2).err
    assert "permanently deletes" in told
    assert f"{name}.disk-data.qcow2" in world.volumes()
    world.armvm("disk", "remove", name, "more1", "--yes").ok()
    assert f"{name}.disk-more1.qcow2" not in world.volumes()
    out = world.armvm("disk", "remove", name, "data", "--keep").ok().out
    kept = world.directory / f"{name}_data.qcow2"
    assert f"kept {kept}" in out
    assert kept.is_file()
    world.armvm("disk", "add", name, str(kept)).ok()
    assert "kept" in world.armvm("disk", "remove", name, "disk-01").ok().out, "never deleted"
    assert kept.is_file()
    kept.unlink()


def test_disks_of_a_running_machine(world: World, blank_image: Path, name: str) -> None:
    world.held(name, blank_image, "--network", "user", "--preset", "minimal")
    world.armvm("start", name, "--no-wait").ok()
    world.armvm("disk", "add", name, "size=1G,name=data").ok()
    for live in ((), ("--inactive",)):
        assert f"{name}.disk-data.qcow2" in virsh("dumpxml", *live, name)
    world.armvm("disk", "grow", name, "data", "3G").ok()
    assert named(world, name)["data"]["size"] == 3 * GIB
    told = ""
    for number in range(14):
        try:
            add(find_machine(world.connection, name), ExtraDisk(size=1 << 20, name=f"x{number}"))
        except MissingCapability as error:
            told = f"{error.message} {error.hint}"
            assert f"{name}.disk-x{number}.qcow2" not in world.volumes()
            break
    assert "no free PCIe port" in told
    assert f"armvm stop {name}" in told
    world.armvm("stop", "--force", name).ok()
    assert named(world, name)["data"]["attached"]


@pytest.mark.slow
def test_a_clone_and_a_renamed_machine_have_the_disks(
    world: World, image: Path, name: str, other: str, tmp_path: Path
) -> None:
    world.held(name, image, "--add-disk", "size=1G,name=data")
    warned = world.armvm("snapshot", "create", name).ok().err
    assert "the root disk only, not: data" in warned
    world.armvm("clone", name, other).ok()
    rows = named(world, other)
    assert rows["data"]["file"] == f"{world.directory}/{other}.disk-data.qcow2"
    assert rows["data"]["made"]
    third = fresh_name()
    try:
        world.armvm("rename", other, third).ok()
        assert named(world, third)["data"]["file"].endswith(f"/{third}.disk-data.qcow2")
        assert named(world, name)["data"]["file"].endswith(f"/{name}.disk-data.qcow2")
        assert world.traces(other) == []
    finally:
        world.armvm("delete", third, "--yes").ok()
    assert world.traces(third) == []
    told = world.armvm("golden", "create", "--from", name).failed(5).err
    assert "further disks, which a golden would not copy: data" in told
    attached = make_disk(tmp_path / "x.qcow2")
    world.armvm("disk", "add", name, str(attached)).ok()
    told = world.armvm("clone", name, other).failed(5).err
    assert f"armvm disk remove {name} vdd" in told


@pytest.mark.slow
def test_a_fleet_has_disks(world: World, image: Path, name: str, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    table = f'fleet = "lab"\n[machines.{name}]\nimage = "{image}"\npool = "{world.pool}"\n'
    fleet.write_text(table + 'add-disk = ["1G", "size=2G,name=data"]\n')
    world.armvm("apply", str(fleet), "--no-start").ok()
    assert {"disk-01", "data"} < named(world, name).keys()
    fleet.write_text(table + 'count = 2\nadd-disk = "./x.img"\n')
    assert "cannot share a file" in world.armvm("apply", str(fleet)).failed(3).err


@pytest.mark.slow
def test_an_installer_boots_from_its_cdrom(world: World, name: str, tmp_path: Path) -> None:
    iso = make_iso(tmp_path / "a.iso", "BOOTAA64.EFI")
    foreign = make_iso(tmp_path / "b.iso", "BOOTX64.EFI")
    create = ("create", "--name", name, "--network", "user", "--headless", "--cdrom")
    assert "is not an arm64 boot medium" in world.armvm(*create, foreign).failed(8).err
    assert "not found for --cdrom" in world.armvm(*create, tmp_path / "c.iso").failed(4).err
    assert "--fast cannot be used" in world.armvm(*create, iso, "--fast").failed(2).err
    out = world.armvm(*create, iso, "--disk", "2G").ok().out
    assert f"armvm console {name}" in out
    rows = named(world, name)
    assert list(rows) == ["root", "cdrom"]
    assert (rows["root"]["size"], rows["root"]["backing"]) == (2 * GIB, None)
    assert rows["cdrom"]["made"]
    log = world.directory / f"{name}.serial.log"
    # The loader is random bytes: the firmware tries the disk, then the CD-ROM.
    until(lambda: "CDROM" in log.read_text(errors="replace").upper(), why="the CD-ROM's turn")
    shown = world.armvm("show", name, "--json").ok().json
    assert (shown["seed"], shown["host_key"]) == (None, None)
    world.armvm("disk", "remove", name, "cdrom", "--yes").ok()
    world.armvm("stop", "--force", name).ok()
    assert list(named(world, name)) == ["root"]
    told = world.armvm("clone", name, f"{name}-2").failed(5).err
    assert "no cloud-init seed" in told
    world.armvm("delete", name, "--yes").ok()
    assert world.traces(name) == []


def test_ignition_reaches_qemu(world: World, blank_image: Path, name: str, tmp_path: Path) -> None:
    config = tmp_path / "config.ign"
    config.write_text('{"ignition": {"version": "3.4.0"}}\n')
    create = ("create", "--name", name, "--image", blank_image, "--network", "user", "--headless")
    world.armvm(*create, "--ignition", config, "--no-wait").ok()
    file = world.directory / f"{name}.ignition"
    assert file.read_bytes() == config.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    (pid,) = virsh("qemu-monitor-command", name, "--hmp", "info name").splitlines()[:1]
    assert pid
    command = Path(f"/run/libvirt/qemu/{name}.pid").read_text()
    line = Path(f"/proc/{command.strip()}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert "opt/com.coreos/config" in line
    assert "ds=nocloud" not in line
    told = world.armvm("wait", name, "--timeout", "5").failed(11).err
    assert "login prompt" in told or "nothing to boot" in told
    config.write_text("variant: fcos\n")
    world.armvm("delete", name, "--yes").ok()
    assert "is not JSON" in world.armvm(*create, "--ignition", config).failed(3).err
    assert world.traces(name) == []
