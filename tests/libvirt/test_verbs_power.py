"""Restarting, suspending, following and forwarding machines that need not boot."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libvirt.world import World, make_image, virsh
from tests.schemas import check
from tests.support import fresh_name


@pytest.fixture(scope="module")
def running(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A machine with user networking that runs, with nothing in it."""
    name = fresh_name("armvm-verbs")
    image = make_image(tmp_path_factory.mktemp("image") / "empty.qcow2")
    try:
        world.held(name, image, "--network", "user", "--headless", "--mem", "512")
        world.armvm("start", name, "--no-wait").ok()
        yield name
    finally:
        world.armvm("delete", "--yes", name)


def test_suspend_and_resume(world: World, running: str) -> None:
    for _ in range(2):
        world.armvm("suspend", running).ok()
        assert virsh("domstate", running).strip() == "paused"
    deaf = world.armvm("restart", running).failed(10)
    assert f"armvm resume {running}" in deaf.err
    for _ in range(2):
        resumed = world.armvm("resume", running).ok()
        assert virsh("domstate", running).strip() == "running"
    assert "guest agent" not in resumed.err  # it ran already
    world.armvm("suspend", running).ok()
    assert "the guest agent does not answer" in world.armvm("resume", running).ok().err


def test_a_reset_is_seen_and_told(world: World, running: str) -> None:
    listening = world.spawn("events", running, "--json", "--count", "4", "--timeout", "60")
    time.sleep(2)
    world.armvm("restart", "--force", "--no-wait", running).ok()
    world.armvm("suspend", running).ok()
    world.armvm("restart", "--force", "--no-wait", running).ok()
    assert virsh("domstate", running).strip() == "running"
    out, _ = listening.communicate(timeout=60)
    assert listening.returncode == 0
    told = [check("events", json.loads(line)) for line in out.splitlines()]
    assert {one["name"] for one in told} == {running}
    assert {one["uuid"] for one in told} == {virsh("domuuid", running).strip()}
    words = [one["event"] for one in told]
    assert words == ["rebooted", "suspended", "rebooted", "resumed"]


def test_a_power_cycle_starts_another_qemu(world: World, running: str) -> None:
    before = virsh("domid", running)
    world.armvm("suspend", running).ok()
    assert "is suspended" in world.armvm("restart", "--power-cycle", running).failed(10).err
    world.armvm("restart", "--force", "--power-cycle", "--no-wait", running).ok()
    assert virsh("domstate", running).strip() == "running"
    assert virsh("domid", running) != before
    # A new QEMU gets the settings that the definition has now.
    assert "<tb-cache" in virsh("dumpxml", running)


def test_a_guest_that_hears_nothing_is_not_said_to_have_restarted(
    world: World, running: str
) -> None:
    late = world.armvm("restart", running, "--timeout", "1").failed(11)
    assert f"armvm restart --force {running}" in late.err
    world.armvm("restart", "--force", "--no-wait", running).ok()


def test_events_end_by_ctrl_c_with_0_and_by_time(world: World, name: str) -> None:
    following = world.spawn("events", name)
    time.sleep(2)
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=10) == ("", "")
    assert following.returncode == 0
    assert world.armvm("events", name, "--timeout", "0.2").ok().out == ""
    missed = world.armvm("events", name, "--timeout", "0.2", "--count", "1").failed(11)
    assert "0 of 1" in missed.err


def test_a_machine_is_followed_from_before_it_is_made(world: World, image: Path, name: str) -> None:
    following = world.spawn("events", "--timeout", "12")
    only = world.spawn("events", name, "--count", "2", "--timeout", "60")
    time.sleep(2)
    world.held(name, image)
    world.armvm("delete", "--yes", name).ok()
    out, _ = only.communicate(timeout=60)
    words = [line.split(maxsplit=2)[1:] for line in out.splitlines()]
    assert words == [
        [name, "defined added"],
        [name, "undefined removed"],
    ]
    assert f"{name}  defined added" in following.communicate(timeout=60)[0]


def test_autostart(world: World, running: str) -> None:
    assert "starts with the host" in world.armvm("autostart", running).ok().out
    assert world.armvm("show", running, "--json").json["autostart"] is True
    world.armvm("autostart", running, "--off").ok()
    assert world.armvm("show", running, "--json").json["autostart"] is False


def test_top(world: World, running: str) -> None:
    rows = check("top", world.armvm("top", "--once", "--interval", "0.5", "--json").ok().json)
    [ours] = [row for row in rows if row["name"] == running]
    assert ours["cpu_percent"] is not None
    assert ours["resident"] > 10 << 20
    assert ours["net_receive"] is None
    assert rows == sorted(rows, key=lambda row: (-(row["cpu_percent"] or 0), row["name"]))
    table = world.armvm("top", "--once", "--interval", "0.2").ok().out
    assert running in table
    live = world.spawn("top", "--interval", "0.2", "--json")
    assert live.stdout is not None
    assert running in live.stdout.readline()
    live.send_signal(signal.SIGINT)
    live.communicate(timeout=10)
    assert live.returncode == 0


def free_port() -> int:
    """Return a port that nothing listens at just now."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_forward_lives_through_a_stop(world: World, running: str) -> None:
    port = free_port()
    made = check("forward add", world.armvm("forward", "add", running, f"{port}:80", "--json").json)
    assert made["active"] is True
    rule = f"127.0.0.1  {port}"
    usernet = virsh("qemu-monitor-command", running, "--hmp", "info usernet")
    assert " ".join(rule.split()) in " ".join(usernet.split())
    world.armvm("stop", "--force", running).ok()
    [ssh, other] = check("forward list", world.armvm("forward", "list", running, "--json").json)
    assert (ssh["ssh"], ssh["active"]) == (True, False)
    assert (other["forward"], other["active"]) == (f"{port}:80", False)
    off = world.armvm("ip", running).failed(10)
    assert "is not running" in off.err
    world.armvm("start", running, "--no-wait").ok()
    found = check("ip", world.armvm("ip", running, "--json").ok().json)
    assert [one["active"] for one in found["forwards"]] == [True, True]
    assert found["reachable"] is False
    lines = world.armvm("ip", running).ok().out.splitlines()
    assert lines == [f"127.0.0.1:{ssh['host_port']}", f"127.0.0.1:{port}"]
    # virsh starts it without: whatever of ours reaches it next sets them up.
    virsh("destroy", running)
    virsh("start", running)
    assert [one["active"] for one in world.armvm("forward", "list", running, "--json").json] == [
        True,
        True,
    ]
    world.armvm("forward", "remove", running, str(port)).ok()
    usernet = virsh("qemu-monitor-command", running, "--hmp", "info usernet")
    assert str(port) not in usernet
    world.armvm("forward", "remove", running, str(port)).failed(4)


def test_forwards_that_cannot_be(world: World, running: str, image: Path, name: str) -> None:
    import socket

    [ssh] = world.armvm("forward", "list", running, "--json").ok().json
    world.armvm("forward", "remove", running, ssh["forward"]).failed(5)
    taken = world.armvm("forward", "add", running, f"{ssh['host_port']}:80").failed(5)
    assert running in taken.err
    world.armvm("forward", "add", running, "80").failed(3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused = world.armvm("forward", "add", running, f"{port}:80").failed(5)
        assert "host" in refused.err
        assert len(world.armvm("forward", "list", running, "--json").json) == 1
        # Recorded while it is off, and the port is not to be had: the start says so.
        world.armvm("stop", "--force", running).ok()
        world.armvm("forward", "add", running, f"{port}:80").ok()
        assert f"{port}:80" in world.armvm("start", running, "--no-wait").ok().err
    world.armvm("forward", "remove", running, f"{port}:80").ok()
    world.held(name, image)  # on armvm's network
    own = world.armvm("forward", "add", name, "8080:80").failed(3)
    assert "needs no forward" in own.err
    assert world.armvm("forward", "list", name, "--json").ok().json == []
    found = check("ip", world.armvm("ip", name, "--json").ok().json)
    assert found["reserved"] in world.armvm("ip", name).failed(10).err


@pytest.mark.slow
def test_start_waits_for_all_and_leaves_them_running(world: World, image: Path, name: str) -> None:
    """Nothing is in there: they are waited for to the end, or until Ctrl-C."""
    names = [name, f"{name}-2"]
    try:
        for one in names:
            world.held(one, image, "--network", "user", "--headless", "--mem", "512")
        missing = world.armvm("start", name, "no-such", "--timeout", "1").failed(4)
        assert "machine 'no-such' not found" in missing.err
        assert virsh("domstate", name).strip() == "shut off"
        late = world.armvm("start", *names, "--timeout", "2").failed(11)
        for one in names:
            assert f"{one} is not ready" in late.err
            assert virsh("domstate", one).strip() == "running"
        assert "already running" in world.armvm("start", name).failed(5).err
        for one, *words in ((names[0], "restart", "--force"), (names[1], "start")):
            if words == ["start"]:
                world.armvm("stop", "--force", one).ok()
            waiting = world.spawn(*words, one)
            assert waiting.stderr is not None
            while f"{one}: starting" not in (line := waiting.stderr.readline()):
                assert line
            waiting.send_signal(signal.SIGINT)
            _, said = waiting.communicate(timeout=60)
            assert waiting.returncode == 130
            assert f"{one} keeps running: armvm wait {one}" in said
            assert virsh("domstate", one).strip() == "running"
    finally:
        world.armvm("delete", "--yes", *names)
