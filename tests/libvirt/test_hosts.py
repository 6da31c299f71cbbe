"""``armvm hosts`` and ``list --on``: real daemons, and sockets that hang or refuse."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.libvirt.world import SYSTEM, World, until
from tests.support import Result, fresh_name, spawn
from tests.unit.test_completion import bash

Hosts = Callable[..., dict[str, str]]


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """Writes a configuration with named hosts and returns the environment that uses it."""

    def write(**uris: str) -> dict[str, str]:
        (tmp_path / "armvm").mkdir(exist_ok=True)
        rows = "".join(f'{name} = "{uri}"\n' for name, uri in uris.items())
        (tmp_path / "armvm" / "config.toml").write_text(f"[hosts]\n{rows}")
        return {"XDG_CONFIG_HOME": str(tmp_path)}

    return write


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose connections are accepted by the kernel, and that says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def closed() -> int:
    """A port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def clients_of(port: int) -> list[str]:
    """Return the programs that connect to a port, by their command lines."""
    found = subprocess.run(["pgrep", "-af", f"[s]sh .*{port}"], capture_output=True, text=True)
    return found.stdout.splitlines()


def rows(done: Result) -> dict[str, list[str]]:
    return {words[0]: words for words in map(str.split, done.out.splitlines())}


def test_a_host_that_answers(world: World, hosts: Hosts, image: Path) -> None:
    env, name = hosts(here=SYSTEM), fresh_name()
    [before] = world.armvm("hosts", "--json", env=env).ok().json
    world.held(name, image)
    try:
        [state] = world.armvm("hosts", "here", "--json", env=env).ok().json
        assert state["machines"] >= 1
        assert (state["reachable"], state["reason"], state["accelerator"]) == (True, None, "tcg")
        assert state["uri"] == SYSTEM
        assert state["qemu"] in subprocess.check_output(
            ["qemu-system-aarch64", "--version"], text=True
        )
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        assert 0.9 < state["memory_mib"] / total < 1.1
        assert 0 < state["free_mib"] < state["memory_mib"]
        assert state["cpus"] == before["cpus"] == os.cpu_count()
        text = rows(world.armvm("hosts", env=env).ok())
        assert text["here"][1:3] == ["up", state["libvirt"]]
    finally:
        world.armvm("delete", "--yes", name)


def test_hosts_that_are_down_cost_their_time_out_once(
    world: World, hosts: Hosts, silent: int, closed: int
) -> None:
    env = hosts(
        here=SYSTEM,
        hangs=f"qemu+tcp://127.0.0.1:{silent}/system",
        waits=f"qemu+ssh://root@127.0.0.1:{silent}/system",
        refuses=f"qemu+tcp://127.0.0.1:{closed}/system",
        nowhere="qemu+ssh://root@no-such-host.invalid/system",
        none="qemu:///nothing",
    )
    begun = time.monotonic()
    done = world.armvm("hosts", "--timeout", "4", "--json", env=env).failed(6)
    assert time.monotonic() - begun < 8, "they hung one after another"
    found = {one["name"]: one for one in done.json}
    assert list(found) == ["here", "hangs", "waits", "refuses", "nowhere", "none"]
    assert [name for name, one in found.items() if one["reachable"]] == ["here"]
    assert found["hangs"]["reason"] == found["waits"]["reason"] == "timed out after 4 s"
    assert "refused" in found["refuses"]["reason"]
    assert "ssh: Could not resolve hostname" in found["nowhere"]["reason"]
    assert "\n" not in found["none"]["reason"]
    assert "5 of 6 hosts did not answer: hangs, waits, refuses, nowhere, none" in done.err
    assert not clients_of(silent), "an ssh was left behind"


def test_ctrl_c_does_not_wait_for_them(world: World, hosts: Hosts, silent: int) -> None:
    env = hosts(hangs=f"qemu+ssh://root@127.0.0.1:{silent}/system")
    process = spawn("hosts", "--timeout", "60", env=env)
    until(lambda: clients_of(silent), why="ssh")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGINT
    assert "interrupted" in err
    assert not clients_of(silent)


def test_machines_of_several_hosts(world: World, hosts: Hosts, closed: int, image: Path) -> None:
    down = f"qemu+tcp://127.0.0.1:{closed}/system"
    env, name = hosts(one=SYSTEM, two="qemu:///session", gone=down), fresh_name()
    world.held(name, image)
    try:
        there = world.armvm("list", "--on", "one,two", "--json", env=env).ok().json
        assert [one["on"] for one in there if one["name"] == name] == ["one", "two"]
        [alone] = [
            one
            for one in world.armvm("list", "--on", "one", "--json", env=env).ok().json
            if one["name"] == name
        ]
        assert alone["on"] is None
        done = world.armvm("list", "--on", "all", env=env).failed(6)
        mine = [line.split()[:2] for line in done.out.splitlines() if f" {name} " in line]
        assert mine == [["one", name], ["two", name]]
        assert "1 of 3 hosts did not answer: gone\n    gone: " in done.err
        assert "refused" in done.err
    finally:
        world.armvm("delete", "--yes", name)
    assert "known: one, two, gone" in world.armvm("list", "--on", "one,x", env=env).failed(4).err
    world.armvm("list", "--on", "all", "--connect", SYSTEM, env=env).failed(2)


def test_no_host_has_a_name(world: World, hosts: Hosts) -> None:
    env = hosts()
    assert "config edit" in world.armvm("hosts", env=env).ok().err
    assert world.armvm("hosts", "--json", env=env).ok().json == []
    world.armvm("hosts", "lab1", env=env).failed(4)


def test_completion_asks_the_host_that_was_chosen(
    world: World, hosts: Hosts, closed: int, image: Path
) -> None:
    env = hosts(here=SYSTEM, gone=f"qemu+tcp://127.0.0.1:{closed}/system")
    env |= {"ARMVM_CONNECT": "test:///default"}
    name = fresh_name()
    world.held(name, image)
    try:
        assert bash(f"armvm show --on here {name[:-2]}", **env) == [name]
        assert bash(f"armvm show {name[:-2]}", **env) == []
        assert bash(f"armvm show --on gone {name[:-2]}", **env) == []
        assert bash(f"armvm show --on here --connect x {name[:-2]}", **env) == []
    finally:
        world.armvm("delete", "--yes", name)
