"""The everyday commands on machines that need not boot."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from armvm.guest.cloudinit.seed import read_seed
from armvm.host.connection import SESSION, SYSTEM, effective_uri
from armvm.host.domain.instance import observe, set_record
from armvm.provision.machine.pick import pick_many
from armvm.provision.machine.unfinished import myself
from tests.libvirt.test_killed import in_child
from tests.libvirt.test_signals import running, uploading
from tests.libvirt.world import KEY, World, make_image, until, virsh
from tests.support import fresh_name


def rules(name: str) -> list[int]:
    """Return the loopback ports that lead to a running guest's ssh, as QEMU tells it."""
    told = virsh("qemu-monitor-command", name, "--hmp", "info usernet")
    return [
        int(port) for port in re.findall(r"HOST_FORWARD.*127\.0\.0\.1\s+(\d+)\s+\S+\s+22", told)
    ]


def test_list_and_show(world: World, image: Path, name: str) -> None:
    world.held(name, image, "--cpus", "3", "--mem", "1G")
    (line,) = [one for one in world.armvm("list", "--json").ok().json if one["name"] == name]
    assert line == {
        "name": name,
        "state": "shut off",
        "cpus": 3,
        "memory_mib": 1024,
        "image": str(image),
        "networks": ["armvm"],
        "network": "armvm",
        "ssh": None,
        "via": None,
        "on": None,
    }
    shown = world.armvm("show", name, "--json").ok().json
    assert shown["pool"] == world.pool
    assert shown["overlay"] == str(world.directory / f"{name}.qcow2")
    assert shown["image"]["digest"].startswith("sha256:")
    assert shown["ssh"] is None
    assert shown["uuid"] == virsh("domuuid", name).strip()
    assert shown["host_key"].startswith("SHA256:")


def test_start_and_stop(world: World, image: Path, name: str) -> None:
    world.held(name, image)
    world.armvm("stop", name).ok()  # it is off already
    world.armvm("start", name, "--no-wait").ok()
    assert "already running" in world.armvm("start", name, "--no-wait").failed(5).err
    second = world.armvm("create", "--name", name, "--image", image).failed(5)
    assert f"armvm delete {name}" in second.err
    waited = world.armvm("wait", name, "--timeout", "2").failed(11)
    assert name in waited.err
    world.armvm("stop", "--timeout", "1", name).failed(11)  # nobody in there hears it
    world.armvm("stop", "--force", name).ok()
    world.armvm("stop", "--force", name).ok()
    assert world.armvm("ssh", name).failed(10).err.startswith(f"armvm: {name} is not running")
    assert world.armvm("console", name).failed(10).err.startswith(f"armvm: {name} is not running")
    off = world.armvm("wait", name).failed(10).err
    assert off.startswith(f"armvm: {name} is not running")
    assert off.endswith(f"start it first: armvm start {name}\n")
    world.armvm("delete", "--yes", name).ok()
    world.armvm("delete", "--yes", name).failed(4)
    assert world.traces(name) == []


def test_a_time_out_keeps_the_machine(world: World, image: Path, name: str) -> None:
    command = ("create", "--name", name, "--image", image, "--timeout", "1")
    assert "firmware" in world.armvm(*command).failed(11).err
    assert virsh("domstate", name).strip() == "running"


def test_a_name_may_be_left_out_where_there_is_no_doubt(
    world: World, image: Path, name: str
) -> None:
    """Others may have machines on this host: the answer depends on how many there are."""
    world.held(name, image)
    second = f"{name}-2"
    try:
        alone = world.armvm("show", "--json")
        if alone.code == 0:
            assert alone.json["name"] == name
        else:
            assert name in alone.failed(3).err
        world.held(second, image)
        told = world.armvm("show").failed(3)
        assert name in told.err
        assert second in told.err
    finally:
        world.armvm("delete", "--yes", second)


def test_the_next_free_name(world: World, image: Path) -> None:
    def planned() -> str:
        command = ("create", "--image", image, "--dry-run", "--json")
        return str(world.armvm(*command).ok().json["name"])

    first = planned()
    assert re.fullmatch(r"arm64-\d\d+", first)
    try:
        made = world.armvm("create", "--image", image, "--no-start", "--json").ok().json["name"]
        assert made == first
        assert planned() != first
    finally:
        world.armvm("delete", "--yes", first)


def test_an_image_in_use_is_not_removed(world: World, name: str, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.qcow2")
    world.held(name, image)
    base = world.base_of(image)
    digest = base.name.removeprefix("base-sha256-").removesuffix(".qcow2")
    assert f"{name}.qcow2" in world.armvm("image", "rm", digest).failed(5).err
    assert base.exists()
    world.armvm("delete", "--yes", name).ok()
    assert base.exists()  # for the next machine
    world.armvm("image", "rm", digest).ok()
    assert not base.exists()
    world.armvm("image", "rm", digest).failed(4)


def test_the_forward_to_ssh(world: World, image: Path, name: str) -> None:
    command = ("create", "--name", name, "--image", image, "--network", "user", "--no-wait")
    made = world.armvm(*command, "--json").ok().json
    port = made["ssh"]["port"]
    assert made["ssh"]["host"] == "127.0.0.1"
    assert rules(name) == [port]
    world.armvm("stop", "--force", name).ok()
    world.armvm("start", name, "--no-wait").ok()
    assert rules(name) == [port]
    virsh("destroy", name)
    virsh("start", name)
    assert rules(name) == []
    # Nobody answers in there, but ssh finds the way in again.
    world.armvm("stop", "--force", name).ok()
    with socket.create_server(("127.0.0.1", port)):
        said = world.armvm("start", name, "--no-wait").ok().err
    (other,) = rules(name)
    assert other != port
    assert str(other) in said
    assert world.armvm("show", name, "--json").ok().json["ssh"]["port"] == other


@pytest.mark.timeout(120)
def test_ssh_makes_the_forward_that_virsh_does_not(world: World, image: Path, name: str) -> None:
    world.held(name, image, "--network", "user")
    virsh("start", name)
    assert rules(name) == []
    process = world.spawn("ssh", name, "--", "true")
    try:
        from tests.libvirt.world import until

        until(lambda: rules(name), why="the forward")
    finally:
        virsh("destroy", name)  # which also ends ssh's connection
        process.communicate(timeout=60)
    assert process.returncode == 255


def test_what_the_pool_holds_is_private(world: World, image: Path, name: str) -> None:
    keys = world.directory.parent / f"{fresh_name()}.pub"
    keys.write_text(KEY)
    try:
        world.held(name, image, "--user", "alice", "--ssh-key", keys)
    finally:
        keys.unlink()
    seed = world.directory / f"{name}.seed.iso"
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    assert stat.S_IMODE((world.directory / f"{name}.qcow2").stat().st_mode) == 0o600
    files = read_seed(seed.read_bytes())
    assert {"user-data", "meta-data", "network-config"} <= set(files)
    meta = yaml.safe_load(files["meta-data"])
    shown = world.armvm("show", name, "--json").ok().json
    assert meta["local-hostname"] == name
    assert meta["instance-id"] == shown["instance_id"]
    user_data = files["user-data"].decode()
    assert user_data.startswith("#cloud-config\n")
    assert "alice" in user_data
    assert KEY.split()[1] in user_data
    public = yaml.safe_load(user_data)["ssh_keys"]["ed25519_public"]
    assert public.split()[1] in virsh("dumpxml", name)
    assert "PRIVATE" not in virsh("dumpxml", name)
    world.armvm("start", name, "--no-wait").ok()
    world.armvm("stop", "--force", name).ok()
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600


def test_the_default_connection_is_told_as_it_is_used(world: World) -> None:
    """Anybody may open the system daemon's socket here, but polkit refuses him."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    assert effective_uri({})[0] == SYSTEM

    def work() -> None:
        os.environ["HOME"] = "/nonexistent"
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        if effective_uri({}) == (SESSION, "permission denied by the system daemon"):
            os.kill(os.getpid(), signal.SIGUSR1)  # what in_child can tell

    assert in_child(work) == signal.SIGUSR1


@pytest.mark.slow
def test_several_machines_by_patterns(world: World, image: Path, name: str) -> None:
    """Not by --all: other machines of this host's are none of the tests'."""
    names = [f"{name}-{number}" for number in (1, 2)]
    for one in names:
        world.held(one, image, "--network", "user")
    fit = f"{name}-*"
    try:
        assert world.armvm("start", "--no-wait", fit).ok().out.count("is starting") == 2
        again = world.armvm("start", "--no-wait", fit).ok()
        assert again.out == "", "they run already"
        rows = world.armvm("top", "--once", "--interval", "0.1", fit, "--json").ok().json
        assert sorted(row["name"] for row in rows) == names
        (row,) = world.armvm("top", "--once", "--interval", "0.1", names[0], "--json").ok().json
        assert row["name"] == names[0]
        listed = world.armvm("forward", "list", "--json").ok().json
        assert {one["machine"] for one in listed} >= set(names)
        stopped = world.armvm("stop", "--force", fit, names[0]).ok().out
        assert stopped == "".join(f"{one} is off\n" for one in names)
        for verb in ("stop", "start", "restart", "top", "delete"):
            assert "no machine matches" in world.armvm(verb, f"{name}-x*").failed(4).err, verb
        world.armvm("stop", "--all", names[0]).failed(2)
        world.armvm("delete", "--yes").failed(2)
        assert names[1] in world.armvm("delete", fit).failed(2).err, "nobody can be asked"
    finally:
        assert world.armvm("delete", "--yes", fit).ok().out.count(" deleted") == 2
    assert world.traces(f"{name}-1") == []


def test_all_machines_but_those_that_somebody_makes(
    world: World, big_image: Path, image: Path, name: str
) -> None:
    world.remove_bases()
    world.held(f"{name}-w", image, "--network", "user")
    said: list[str] = []
    command = ("create", "--name", name, "--image", big_image, "--no-start")
    try:
        with running(world, *command) as process:
            until(uploading(world, big_image), why="the upload")
            found = pick_many(world.connection, [], every=True, said=said.append)
            picked = {one.name for one in found}
            process.terminate()
            process.communicate(timeout=60)
        assert f"{name}-w" in picked
        assert name not in picked
        assert any(name in text for text in said)
    finally:
        world.armvm("delete", "--yes", f"{name}-w").ok()


def test_a_read_only_pool_says_what_helps(world: World, image: Path, name: str) -> None:
    pool = fresh_name("armvm-pool")
    directory = Path("/var/lib/libvirt/images") / pool
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", pool, directory], check=True)
    virsh("pool-define-as", pool, "dir", "--target", directory)
    try:
        virsh("pool-start", pool)
        words = ("create", "--name", name, "--image", image, "--no-start", "--pool", pool)
        err = world.armvm(*words).failed(9).err
        assert "Read-only file system" in err
        assert "--pool NAME" in err
        assert world.traces(name) == []
    finally:
        virsh("pool-destroy", pool, check=False)
        virsh("pool-undefine", pool)
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


def test_a_machine_under_way_is_no_host_of_ssh_yet(world: World, image: Path, name: str) -> None:
    """It may be a golden in the end, which nobody logs in to."""
    world.held(name, image)
    domain = world.connection.lookupByName(name)

    def known() -> list[str]:
        return [one["name"] for one in world.armvm("ssh-config", "--json").ok().json["machines"]]

    assert name in known()
    record = observe(domain).record
    set_record(domain, replace(record, creator=myself()))
    try:
        assert name not in known()
        assert "being created" in world.armvm("ssh-config", name).failed(5).err
    finally:  # or it would not be removed
        set_record(domain, record)
