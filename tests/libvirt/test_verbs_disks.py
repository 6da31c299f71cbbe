"""Renaming, copying, resizing and snapshots: whole or not at all, and nothing left over."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml

from armvm.base.errors import ArmvmError
from armvm.base.poll import until
from armvm.base.progress import Quiet
from armvm.guest.cloudinit.seed import read_seed
from armvm.host.domain.handle import find_machine
from armvm.provision.manage.clone import clone
from armvm.provision.manage.rename import rename
from tests.libvirt.world import (
    NVRAM,
    Ended,
    Steps,
    World,
    ended_by_signals,
    raise_libvirt_error,
    signal_myself,
    virsh,
)
from tests.schemas import check
from tests.support import ARMVM, armvm, environment, fresh_name

HOW = {
    "signal": (signal_myself, True),
    "failure": (raise_libvirt_error, False),
}


@pytest.fixture
def other() -> Any:
    """A second name; what was made under it is removed afterwards."""
    chosen = fresh_name()
    yield chosen
    armvm("delete", "--yes", chosen, "--connect", "qemu:///system")


def once_started(world: World, name: str) -> None:
    """Start a machine and pull its plug: it has UEFI variables and a serial log then."""
    world.armvm("start", name, "--no-wait").ok()
    world.armvm("stop", "--force", name).ok()


def scribble(path: Path, what: str) -> None:
    """Write into a disk, as a guest would."""
    command = ["qemu-io", "-f", "qcow2", "-c", f"write -P {ord(what)} 0 64k", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def reads(path: Path, what: str) -> bool:
    """Tell whether a disk begins with what was written."""
    command = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {ord(what)} 0 64k", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "verification failed" not in done.stdout


def definition(name: str) -> str:
    return virsh("dumpxml", "--inactive", name)


def test_everything_that_bears_a_name_follows(
    world: World, image: Path, name: str, other: str
) -> None:
    world.held(name, image)
    once_started(world, name)
    scribble(world.directory / f"{name}.qcow2", "r")
    world.armvm("autostart", name).ok()
    variables = (NVRAM / f"{name}_VARS.fd").read_bytes()
    before = world.armvm("show", name, "--json").json
    kept = world.armvm("ip", name, "--json").json["reserved"]
    world.armvm("rename", name, other).ok()
    assert world.traces(name) == []
    after = world.armvm("show", other, "--json").ok().json
    same = {"uuid", "mac", "host_key", "instance_id", "pool", "image", "autostart", "settings"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert world.armvm("ip", other, "--json").json["reserved"] == kept
    assert name not in definition(other)
    assert (world.directory / f"{other}.nvram").read_bytes() == variables
    assert reads(world.directory / f"{other}.qcow2", "r")
    files = read_seed((world.directory / f"{other}.seed.iso").read_bytes())
    assert yaml.safe_load(files["meta-data"])["local-hostname"] == other
    once_started(world, other)
    # The old name is anybody's, and takes nothing from the renamed one.
    world.held(name, image)
    world.armvm("rename", other, name).failed(5)
    world.armvm("delete", "--yes", name).ok()
    assert reads(world.directory / f"{other}.qcow2", "r")
    world.armvm("rename", other, name).ok()  # with its UEFI variables in the pool by now
    assert world.traces(other) == []
    world.armvm("delete", "--yes", name).ok()
    assert world.traces(name) == []


def test_what_cannot_be_renamed(world: World, image: Path, name: str, other: str) -> None:
    world.held(name, image)
    world.armvm("rename", name, "Bad Name").failed(3)
    world.armvm("rename", name, name).failed(5)
    world.armvm("rename", "nobody-here", other).failed(4)
    world.armvm("start", name, "--no-wait").ok()
    assert "stop it first" in world.armvm("rename", name, other).failed(5).err
    assert "stop it first" in world.armvm("clone", name, other).failed(5).err
    virsh("managedsave", name)
    assert "saved state" in world.armvm("rename", name, other).failed(5).err
    virsh("managedsave-remove", name)
    virsh("snapshot-create-as", name, "theirs", "--disk-only", "--no-metadata")
    for verb in (("rename", name, other), ("clone", name, other), ("snapshot", "create", name)):
        assert "blockcommit" in world.armvm(*verb).failed(5).err
    assert world.traces(other) == []
    (world.directory / f"{name}.theirs").unlink()


@pytest.mark.parametrize("how", ["failure", pytest.param("signal", marks=pytest.mark.slow)])
def test_any_libvirt_call_may_be_the_last_of_a_rename(
    world: World, image: Path, name: str, other: str, how: str
) -> None:
    action, after = HOW[how]
    world.held(name, image)
    once_started(world, name)
    before, traces = definition(name), sorted(world.traces(name))
    at = 0
    while True:
        at += 1
        steps = Steps(at=at, action=action, after=after)
        connection = steps.watch(world.connection)
        error = ended(
            lambda connection=connection: rename(  # type: ignore[misc]
                find_machine(connection, name), other, Quiet()
            )
        )
        step = f"{how}, call {at}: {steps.calls[at - 1 : at]}"
        if len(steps.calls) < at:
            break
        # That of another process, which deletes a machine, goes by itself.
        gone = until(
            lambda: "armvm-nvram-" not in virsh("pool-list", "--all"), timeout=20, interval=0.2
        )
        assert gone, step
        if error is None and forgives(steps):
            world.armvm("rename", other, name).ok()
            before, traces = definition(name), sorted(world.traces(name))
            continue
        if world.traces(other):
            # It was whole; what was left to do is to remove the old files.
            assert "domain " + name not in world.traces(name), step
            break
        assert error is not None, step
        assert definition(name) == before, step
        assert sorted(world.traces(name)) == traces, step
    assert at > 30
    world.armvm("start", other, "--no-wait").ok()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["failure"])
def test_any_libvirt_call_may_be_the_last_of_a_clone(
    world: World, image: Path, name: str, other: str, how: str
) -> None:
    action, after = HOW[how]
    world.held(name, image)
    once_started(world, name)
    before, traces = definition(name), sorted(world.traces(name))
    at = 0
    while True:
        at += 1
        steps = Steps(at=at, action=action, after=after)
        where = world.where(steps)
        error = ended(lambda where=where: clone(where, name, other, Quiet()))  # type: ignore[misc]
        step = f"{how}, call {at}: {steps.calls[at - 1 : at]}"
        assert definition(name) == before, step
        assert sorted(world.traces(name)) == traces, step
        if len(steps.calls) < at:
            break
        if error is None and forgives(steps):
            world.armvm("delete", "--yes", other).ok()
            continue
        assert error is not None, step
        assert world.traces(other) == [], step
    assert error is None
    assert at > 30
    assert len(world.traces(other)) == 5  # overlay, seed, UEFI variables, domain, address


def forgives(steps: Steps) -> bool:
    """Tell whether the call that failed is tried again: a pool made for a moment is forgotten."""
    return steps.calls[steps.at - 1] == "destroy" and steps.calls[steps.at] == "destroy"


def ended(work: Callable[[], Any]) -> BaseException | None:
    """Do something in this process, and return what ended it early."""
    try:
        with ended_by_signals():
            work()
    except (ArmvmError, Ended) as error:
        return error
    return None


def test_a_copy_is_itself(world: World, image: Path, name: str, other: str) -> None:
    world.held(name, image, "--network", "user")
    once_started(world, name)
    world.armvm("forward", "add", name, "8080:80").ok()
    scribble(world.directory / f"{name}.qcow2", "a")
    made = check("clone", world.armvm("clone", name, other, "--json").ok().json)
    assert (made["state"], made["ssh"]) == ("shut off", None)
    scribble(world.directory / f"{name}.qcow2", "b")
    assert reads(world.directory / f"{other}.qcow2", "a")
    original = world.armvm("show", name, "--json").ok().json
    own = {"name", "uuid", "mac", "host_key", "instance_id", "overlay", "seed", "serial_log"}
    assert all(made[key] != original[key] for key in own)
    assert {key: made[key] for key in ("image", "user", "cpus", "settings")} == {
        key: original[key] for key in ("image", "user", "cpus", "settings")
    }
    assert len(world.armvm("forward", "list", other, "--json").json) == 1
    assert (world.directory / f"{other}.nvram").stat().st_size == 64 << 20
    files = read_seed((world.directory / f"{other}.seed.iso").read_bytes())
    assert yaml.safe_load(files["meta-data"]) == {
        **yaml.safe_load(files["meta-data"]),
        "instance-id": made["instance_id"],
        "local-hostname": other,
    }
    once_started(world, other)
    # A machine with a disk of its own besides is not copied: two would write to it.
    extra = world.directory / f"{name}-extra.img"
    extra.write_bytes(bytes(1 << 20))
    virsh("attach-disk", name, extra, "vdc", "--config")
    assert "vdc" in world.armvm("clone", name, fresh_name()).failed(5).err
    extra.unlink()


def test_resize(world: World, image: Path, name: str) -> None:
    world.held(name, image, "--disk", "2G", "--network", "user", "--mem", "512")
    done = check(
        "resize",
        world.armvm(*("resize", name, "--disk", "3G", "--mem", "768", "--cpus", "4", "--json"))
        .ok()
        .json,
    )
    assert [(one["what"], one["before"], one["after"]) for one in done] == [
        ("disk", 2 << 30, 3 << 30),
        ("memory_mib", 512, 768),
        ("cpus", 2, 4),
    ]
    assert "next boot" in done[0]["note"]
    shown = world.armvm("show", name, "--json").json
    assert (shown["cpus"], shown["memory_mib"], shown["settings"]["disk"]) == (4, 768, 3 << 30)
    world.armvm("resize", name, "--cpus", "1").ok()
    assert virsh("vcpucount", name, "--maximum", "--config").strip() == "1"
    smaller = world.armvm("resize", name, "--disk", "2G", "--cpus", "2").failed(3)
    assert "cannot shrink the disk" in smaller.err
    assert world.armvm("show", name, "--json").json["cpus"] == 1, "nothing was changed"
    world.armvm("resize", name).failed(2)
    world.armvm("resize", name, "--mem", "1").failed(3)
    world.armvm("resize", name, "--cpus", "9999").failed(3)
    world.armvm("resize", name, "--disk", "nonsense").failed(3)
    # Running: QEMU takes the disk, and says no to the rest.
    world.armvm("start", name, "--no-wait").ok()
    live = world.armvm(
        *("resize", name, "--disk", "4G", "--mem", "1G", "--cpus", "2", "--json")
    ).ok()
    disk, memory, cpus = live.json
    assert "the guest agent does not answer" in disk["note"]
    assert "Capacity:       4294967296" in virsh("domblkinfo", name, "vda")
    assert (memory["in_effect"], cpus["in_effect"]) == (False, False)
    assert "next start" in memory["note"]
    assert "next start" in cpus["note"]


def test_snapshots(world: World, image: Path, name: str, other: str) -> None:
    disk = world.directory / f"{name}.qcow2"
    world.held(name, image, "--disk", "2G", "--network", "user", "--mem", "512")
    scribble(disk, "1")
    first = check("snapshot create", world.armvm("snapshot", "create", name, "--json").ok().json)
    assert (first["name"], first["state"], first["disk"]) == ("snap-01", "off", 2 << 30)
    scribble(disk, "2")
    world.armvm("resize", name, "--disk", "3G").ok()
    world.armvm("start", name, "--no-wait").ok()
    world.armvm("snapshot", "create", name, "live").ok()
    assert virsh("domblklist", name).split()[-4:-2] == ["vda", str(disk)]
    world.armvm("snapshot", "create", name, "live").failed(5)
    world.armvm("snapshot", "create", name, "../x").failed(3)
    world.armvm("snapshot", "revert", name, "live", "--yes").failed(5)
    world.armvm("stop", "--force", name).ok()
    listed = check("snapshot list", world.armvm("snapshot", "list", name, "--json").ok().json)
    assert [(one["name"], one["state"]) for one in listed] == [
        ("snap-01", "off"),
        ("live", "running"),
    ]
    world.armvm("snapshot", "revert", name, "snap-01").failed(2)  # nobody to be asked
    world.armvm("snapshot", "revert", name, "snap-01", "--yes").ok()
    assert reads(disk, "1")
    assert world.armvm("show", name, "--json").json["settings"]["disk"] == 2 << 30
    world.armvm("snapshot", "revert", name, "live", "--yes").ok()
    assert reads(disk, "2")
    world.armvm("snapshot", "delete", name, "live", "--yes").ok()
    world.armvm("snapshot", "delete", name, "live", "--yes").failed(4)
    assert f"{name}.snap-live.qcow2" not in world.volumes()
    # It goes along with a name, is nothing of a copy's, and goes with the machine.
    world.armvm("rename", name, other).ok()
    world.armvm("clone", other, name).ok()
    assert world.armvm("snapshot", "list", name, "--json").json == []
    world.armvm("delete", "--yes", name).ok()
    world.armvm("snapshot", "revert", other, "snap-01", "--yes").ok()
    assert reads(world.directory / f"{other}.qcow2", "1")
    world.armvm("delete", "--yes", other).ok()
    assert world.traces(name) == world.traces(other) == []


def test_an_interrupted_snapshot_leaves_the_machine_on_its_disk(
    world: World, image: Path, name: str
) -> None:
    from armvm.provision.manage.snapshot import create

    world.held(name, image, "--network", "user", "--mem", "512")
    world.armvm("start", name, "--no-wait").ok()
    volumes = world.volumes()

    class Stopping(Quiet):
        """Is told that something was copied, and ends the process."""

        def update(
            self, done: int | None = None, text: str | None = None, outlook: str | None = None
        ) -> None:
            signal_myself()

    machine = find_machine(world.connection, name)
    error = ended(lambda: create(machine, "one", Stopping()))
    assert isinstance(error, Ended)
    assert virsh("domblklist", name).split()[-4:-2] == [
        "vda",
        str(world.directory / f"{name}.qcow2"),
    ]
    assert world.volumes() == volumes
    assert machine.again().record.snapshots == ()


def test_edit(world: World, image: Path, name: str, tmp_path: Path) -> None:
    world.held(name, image)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "$SED" "$1"\n')
    editor.chmod(0o755)

    def edit(command: str) -> Any:
        variables = {"EDITOR": str(editor), "VISUAL": "", "SED": command, "TMPDIR": str(tmp_path)}
        return world.armvm("edit", name, env=variables)

    assert "not changed" in edit("s/x/x/").ok().out
    edit("s/\\(<vcpu[^>]*>\\)2/\\13/").ok()
    assert world.armvm("show", name, "--json").json["cpus"] == 3
    before = definition(name)
    for command, word in (
        ("s/<on_crash>destroy/<on_crash>fly/", "schema"),
        ("s/<domain/<doman/", "invalid XML"),
        ("s/<armvm:user /<armvm:usr /", "metadata"),
        ("s/seed.iso/other.iso/; s/type='file' device='disk'/type='block' device='disk'/", ""),
        (f"s/<name>{name}/<name>{name}x/", "armvm rename"),
        ("s/<uuid>......../<uuid>00000000/", "UUID"),
    ):
        refused = edit(command).failed(3)
        assert word in refused.err
        assert definition(name) == before
        [kept] = tmp_path.glob(f"armvm-{name}-*.xml")
        assert str(kept) in refused.err
        assert kept.stat().st_mode & 0o777 == 0o600
        kept.unlink()
    failing = world.armvm("edit", name, env={"VISUAL": "false", "TMPDIR": str(tmp_path)})
    failing.failed(12)
    assert list(tmp_path.glob("*.xml")) == []


def test_what_is_not_taken_can_be_edited_again(
    world: World, image: Path, name: str, tmp_path: Path
) -> None:
    """On a terminal: the first try breaks it, the second one begins with what was written."""
    world.held(name, image)
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\n"
        "if grep -q fly $1; then sed -i 's/fly/restart/' $1; "
        "else sed -i 's/<on_crash>destroy/<on_crash>fly/' $1; fi\n"
    )
    editor.chmod(0o755)
    variables = {**world.settings, "VISUAL": str(editor), "TMPDIR": str(tmp_path)}
    child = pexpect.spawn(
        *(ARMVM[0], [*ARMVM[1:], "edit", name]), env=environment(**variables), timeout=60
    )
    child.expect("libvirt rejected the definition")
    child.expect("again")
    child.sendline("y")
    child.expect(f"{name} changed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "<on_crash>restart</on_crash>" in definition(name)
    assert list(tmp_path.glob("*.xml")) == []


def test_another_machines_disk_is_never_taken_for_a_rest(
    world: World, image: Path, name: str, other: str
) -> None:
    """virsh renames a domain, and leaves its files as they are called."""
    world.held(name, image).ok()
    disk = world.directory / f"{name}.qcow2"
    before = disk.read_bytes()
    virsh("domrename", name, other)
    again = ("create", "--name", name, "--image", image, "--no-start")
    assert other in world.armvm(*again).failed(5).err
    assert other in world.armvm("delete", "--yes", name).failed(5).err
    assert other in world.armvm("rename", other, name).failed(5).err
    assert disk.read_bytes() == before
    assert name not in virsh("list", "--all", "--name").split()
    virsh("domrename", other, name)
    world.armvm("rename", name, other).ok()
    assert not disk.exists()
    assert (world.directory / f"{other}.qcow2").read_bytes() == before
