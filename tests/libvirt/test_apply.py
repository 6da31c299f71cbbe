"""``armvm apply``: a fleet file on a real libvirt, with one host that is down."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.libvirt.test_signals import hear
from tests.libvirt.world import SYSTEM, World, until, virsh
from tests.support import Result, fresh_name, spawn


@dataclass(frozen=True, kw_only=True)
class Farm:
    """A fleet file, and two names for the tests' libvirt: one and two. Nobody answers at gone."""

    world: World
    directory: Path
    image: Path
    name: str
    env: dict[str, str] = field(default_factory=dict)

    def write(self, text: str) -> None:
        """Write the file: NAME stands for this test's prefix, IMAGE for an image."""
        text = text.replace("NAME", self.name).replace("IMAGE", f'"{self.image}"')
        (self.directory / "fleet.toml").write_text(f'fleet = "{self.name}"\n{text}')

    def words(self, *more: str) -> list[str | Path]:
        """Return the command's words."""
        return ["apply", self.directory / "fleet.toml", *more]

    def apply(self, *more: str, **options: Any) -> Result:
        """Apply the file; machines are not started."""
        env = options.pop("env", self.env)
        return self.world.armvm(*self.words("--no-start", *more), env=env, **options)

    def there(self) -> list[str]:
        """Return the names of this test's domains, without the prefix."""
        names = [one.name() for one in self.world.connection.listAllDomains(0)]
        start = f"{self.name}-"
        return sorted(one.removeprefix(start) for one in names if one.startswith(start))


@pytest.fixture
def farm(world: World, image: Path, tmp_path: Path) -> Iterator[Farm]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    (tmp_path / "armvm").mkdir()
    (tmp_path / "armvm" / "config.toml").write_text(
        f'[hosts]\none = "{SYSTEM}"\ntwo = "qemu:///session"\n'
        f'gone = "qemu+tcp://127.0.0.1:{port}/system"\n'
    )
    made = Farm(
        world=world,
        directory=tmp_path,
        image=image,
        name=fresh_name("armvm-fl"),
        env={"XDG_CONFIG_HOME": str(tmp_path)},
    )
    yield made
    if made.there():
        world.armvm("delete", "--yes", f"{made.name}-*").ok()
    assert not [one for one in world.volumes() if one.startswith(made.name)]


TWO_HOSTS = """
[machines.NAME-db]
image = IMAGE
mem = 512
[machines.NAME-job]
each = ["one", "two"]
count = 2
image = IMAGE
network = "user"
headless = true
"""
JOBS = ["job-one-01", "job-one-02", "job-two-01", "job-two-02"]


def did(done: Result) -> dict[str, tuple[str, bool]]:
    return {one["name"]: (one["action"], one["done"]) for one in done.json}


def test_applying_twice_changes_nothing(farm: Farm) -> None:
    farm.write(TWO_HOSTS)
    dry = farm.apply("--dry-run", "--json").ok()
    assert set(did(dry).values()) == {("create", False)}
    assert farm.there() == []
    text = farm.apply().ok().out
    assert f"create  -     {farm.name}-db" in text
    assert f"{farm.name}-job-two-02 on two created" in text
    assert farm.there() == ["db", *JOBS]
    before = {name: virsh("dumpxml", f"{farm.name}-{name}") for name in farm.there()}
    volumes = farm.world.volumes()
    assert farm.apply().ok().out == farm.apply("--prune").failed(6).out == "5 machines unchanged\n"
    assert set(did(farm.apply("--json").ok()).values()) == {("same", False)}
    assert {name: virsh("dumpxml", f"{farm.name}-{name}") for name in farm.there()} == before
    assert farm.world.volumes() == volumes


def test_a_dry_run_finds_what_is_missing(farm: Farm) -> None:
    farm.write(
        '[machines.NAME-a]\nfrom = "no-golden"\n'
        '[machines.NAME-b]\nimage = "/no/such.qcow2"\n'
        '[machines.NAME-c]\non = "one"\nimage = IMAGE\nnetwork = "no-network"\n'
        '[machines.NAME-d]\nimage = IMAGE\npool = "no-pool"\n'
        "[machines.NAME-e]\nimage = IMAGE\n"
        '[machines.NAME-f]\nimage = "ubuntu:24.04"\n'
    )
    # ARMVM_POOL would replace the file's pool; the proxy makes every catalog fail.
    env = {**farm.env, "ARMVM_POOL": "", "HTTPS_PROXY": "http://127.0.0.1:1"}
    dry = farm.apply("--dry-run", "--json", env=env)
    errors = {one["name"].rpartition("-")[2]: one["error"] for one in dry.failed(4).json}
    for key, name in (("a", "no-golden"), ("b", "such"), ("c", "no-network"), ("d", "no-pool")):
        assert name in errors[key]
    assert (errors["e"], errors["f"]) == (None, None)
    assert farm.there() == []


def test_what_create_takes_arrives(farm: Farm) -> None:
    (farm.directory / "data.yaml").write_text("#cloud-config\npackages: [tree]\n")
    farm.write(
        '[machines.NAME-x]\non = "one"\nimage = IMAGE\ncpus = 3\nmem = "1G"\ndisk = "7G"\n'
        'user = "alice"\nuser-data = "data.yaml"\npreset = "minimal"\nautologin = false\n'
    )
    farm.apply().ok()
    shown = farm.world.armvm("show", f"{farm.name}-x", "--json").ok().json
    assert (shown["cpus"], shown["memory_mib"], shown["user"]) == (3, 1024, "alice")
    settings = shown["settings"]
    assert (settings["disk"], settings["headless"], settings["autologin"], settings["preset"]) == (
        *(7 << 30, True, False, "minimal"),
    )
    assert f"name='{farm.name}' machine='{farm.name}-x' source='{farm.image}'" in virsh(
        "dumpxml", f"{farm.name}-x"
    ).replace('"', "'")


def test_other_settings_are_reported_and_left(farm: Farm) -> None:
    farm.write("[machines.NAME-a]\nimage = IMAGE\n[machines.NAME-b]\nimage = IMAGE\n")
    farm.apply().ok()
    farm.write(
        "[machines.NAME-a]\nimage = IMAGE\nmem = 512\n"
        "[machines.NAME-b]\nimage = IMAGE\nheadless = true\n"
    )
    done = farm.apply().ok()
    assert "mem 2048 → 512" in done.out
    assert f"armvm resize {farm.name}-a --mem 512" in done.err
    assert f"armvm delete {farm.name}-b" in done.err
    farm.world.armvm("resize", f"{farm.name}-a", "--mem", "512").ok()
    actions = did(farm.apply("--json").ok())
    assert actions == {f"{farm.name}-a": ("same", False), f"{farm.name}-b": ("differs", False)}


def test_prune_deletes_what_this_file_made_and_asks(farm: Farm) -> None:
    farm.write(TWO_HOSTS)
    farm.apply().ok()
    farm.world.held(f"{farm.name}-hand", farm.image)
    farm.world.armvm("clone", f"{farm.name}-db", f"{farm.name}-copy").ok()
    farm.write('[machines.NAME-job]\neach = ["two"]\ncount = 1\nimage = IMAGE\nnetwork = "user"\n'
               "headless = true\n")  # fmt: skip
    everything = farm.there()
    done = farm.apply().ok()
    assert "surplus" in done.out
    assert f"delete it: armvm apply {farm.directory}/fleet.toml --prune" in done.err
    refused = farm.apply("--prune").failed(2)
    assert "permanently deletes" in refused.err
    assert f"{farm.name}-job-one-01 on two" in refused.err
    assert farm.there() == everything
    # The host that is down is asked too: a machine of this fleet may be there.
    done = farm.apply("--prune", "--yes").failed(6)
    assert f"{farm.name}-job-one-01 on two deleted" in done.out, "both are one libvirt"
    assert "gone did not answer" in done.err
    assert farm.there() == ["copy", "hand", "job-two-01"]


def test_a_name_that_somebody_has_is_left(farm: Farm) -> None:
    farm.world.held(f"{farm.name}-a", farm.image)
    farm.write("[machines.NAME-a]\nimage = IMAGE\n[machines.NAME-b]\nimage = IMAGE\n")
    done = farm.apply().failed(5)
    assert "was not made for the fleet" in done.err
    assert farm.there() == ["a", "b"]
    farm.apply("--prune", "--yes", "--dry-run").failed(6)
    farm.write("")
    farm.apply("--prune", "--yes").failed(6)
    assert farm.there() == ["a"]


def test_a_failure_on_one_host_leaves_the_others_done(farm: Farm) -> None:
    farm.write(
        '[machines.NAME-lost]\non = "gone"\nimage = IMAGE\n'
        '[machines.NAME-bad]\non = "one"\nimage = "/no/such.qcow2"\n'
        '[machines.NAME-good]\non = "two"\nimage = IMAGE\n'
    )
    done = farm.apply("--json").failed(6)
    assert did(done) == {
        f"{farm.name}-lost": ("unknown", False),
        f"{farm.name}-bad": ("create", False),
        f"{farm.name}-good": ("create", True),
    }
    assert "/no/such.qcow2" in {one["name"]: one for one in done.json}[f"{farm.name}-bad"]["error"]
    assert "gone did not answer" in done.err
    assert "/no/such.qcow2" in done.err
    assert f"(not created: {farm.name}-bad)" in done.err
    assert farm.there() == ["good"]
    # Once it can be made, only it is.
    (farm.directory / "fleet.toml").write_text(
        (farm.directory / "fleet.toml").read_text().replace("/no/such.qcow2", str(farm.image))
    )
    assert did(farm.apply("--json").failed(6)) == {
        f"{farm.name}-lost": ("unknown", False),
        f"{farm.name}-bad": ("create", True),
        f"{farm.name}-good": ("same", False),
    }


def test_a_host_that_hangs_costs_its_time_out(farm: Farm) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        config = farm.directory / "armvm" / "config.toml"
        uri = f"qemu+tcp://127.0.0.1:{server.getsockname()[1]}/system"
        config.write_text(f'[hosts]\none = "{SYSTEM}"\nhangs = "{uri}"\n')
        farm.write('[machines.NAME-a]\neach = ["hangs", "one"]\nimage = IMAGE\n')
        begun = time.monotonic()
        done = farm.apply().failed(6)
        assert time.monotonic() - begun < 25
    assert "hangs did not answer: timed out after 10 s" in done.err
    assert farm.there() == ["a-one"]


@pytest.mark.parametrize("when", ["created", "waited for"])
def test_ctrl_c_removes_what_is_half_made(farm: Farm, when: str) -> None:
    farm.write(
        '[machines.NAME-a]\neach = ["one", "two"]\nimage = IMAGE\nnetwork = "user"\nmem = 512\n'
        'preset = "minimal"\n'
    )
    env = {**farm.world.settings, **farm.env}
    process = spawn(*map(str, farm.words("--parallel", "1")), env=env)
    # An image that cannot boot never becomes ready.
    if when == "created":
        until(lambda: farm.there(), why="a machine")
    else:
        hear(process, f"one: {farm.name}-a-one: starting")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    if when == "waited for":
        assert f"one: interrupted: removing {farm.name}-a-one" in err
    assert farm.there() == []


def test_a_file_that_is_wrong_changes_nothing(farm: Farm) -> None:
    farm.write("[machines.NAME-a]\nimage = IMAGE\nmem = 1\n")
    assert "mem" in farm.apply().failed(3).err
    farm.write('[machines.NAME-a]\non = "lab9"\n')
    assert "known: one, two, gone" in farm.apply().failed(3).err
    assert farm.world.armvm("apply", farm.directory / "none.toml").failed(4)
    assert farm.there() == []
