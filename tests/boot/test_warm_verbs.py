"""Goldens made unasked, and deleted under their clones: one story.

A cold create has a golden baked; two clones of it are taken off it and it is deleted. The tests
are its chapters, in order.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from armvm.base.paths import state_dir
from tests.boot.conftest import BOOT_TIMEOUT, POOL
from tests.support import armvm, fresh_name

pytestmark = pytest.mark.slow
CLONE_TIMEOUT = 180
#: A disk size that no other golden has, so that none of another test fits.
SHAPE = ("--preset", "minimal", "--network", "user", "--disk", "6G")


@dataclass(kw_only=True)
class Story:
    """What was made so far, by chapter."""

    image: Path
    prefix: str
    baked: str = ""
    said: str = ""

    @property
    def cold(self) -> str:
        """The machine that was booted."""
        return f"{self.prefix}-cold"

    def shape(self) -> tuple[str | Path, ...]:
        """Options of a machine that the baked golden fits."""
        return (*SHAPE, "--image", self.image)


@pytest.fixture(scope="module")
def story(debian_image: Path) -> Iterator[Story]:
    """The cold machine, booted with ``warm = "auto"``; all that chapters make goes with it."""
    told = Story(image=debian_image, prefix=fresh_name("armvm-verbs"))
    try:
        done = armvm(
            *("create", "--name", told.cold, *told.shape(), "--timeout", str(BOOT_TIMEOUT)),
            env={"ARMVM_WARM": "auto"},
            timeout=BOOT_TIMEOUT + 60,
        ).ok()
        told.said = done.err
        told.baked = next(word for word in done.err.split() if word.startswith("warm-"))
        yield told
    finally:
        names = [one["name"] for one in armvm("list", "--json").json]
        for name in names:
            if name.startswith(told.prefix) or name == told.baked:
                armvm("delete", "--yes", name)
        if told.baked:
            armvm("golden", "delete", "--yes", told.baked)
            (state_dir() / f"{told.baked}.log").unlink(missing_ok=True)


def until_golden(name: str) -> None:
    """Wait for a bake in the background."""
    end = time.monotonic() + BOOT_TIMEOUT
    while name not in armvm("golden", "list").ok().out:
        log = (state_dir() / f"{name}.log").read_text()
        assert time.monotonic() < end, log
        # Earlier bakes of the name have written to it too: the last line is this one's.
        assert not log.rstrip().splitlines()[-1].startswith(("armvm: ", "hint: ")), log
        time.sleep(2)


def backing(name: str) -> str:
    command = ["qemu-img", "info", "-U", str(POOL / f"{name}.qcow2")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next((line for line in out.splitlines() if line.startswith("backing file:")), "")


def ssh(name: str, command: str, timeout: float = 60) -> str:
    return armvm("ssh", name, "--", command, timeout=timeout).ok().out.strip()


def test_the_create_says_so_in_one_line_and_the_bake_ends_well(story: Story) -> None:
    [line] = [line for line in story.said.splitlines() if story.baked in line]
    assert str(state_dir() / f"{story.baked}.log") in line
    armvm("stop", story.cold, timeout=700).ok()
    until_golden(story.baked)


def test_the_next_of_its_shape_is_made_from_it_and_bakes_nothing(story: Story) -> None:
    done = armvm(
        *("create", "--count", "2", "--name-prefix", story.prefix, *story.shape(), "--json"),
        env={"ARMVM_WARM": "auto"},
        timeout=2 * CLONE_TIMEOUT,
    ).ok()
    assert [one["golden"] for one in done.json] == [story.baked] * 2
    assert "baking" not in done.err


def test_never_means_cold(story: Story) -> None:
    name = f"{story.prefix}-never"
    done = armvm(
        *("create", "--name", name, *story.shape(), "--no-wait", "--json"),
        env={"ARMVM_WARM": "never"},
    ).ok()
    assert done.json["golden"] is None
    armvm("delete", "--yes", name).ok()


def test_clones_outlive_their_golden(story: Story, tmp_path: Path) -> None:
    """The first is in its first run, and has the golden's memory mapped; the second is off."""
    first, second = (f"{story.prefix}-0{number}" for number in (1, 2))
    for name in (first, second):
        ssh(name, f"echo {name} | sudo tee /root/mine; sync")
    armvm("stop", "--force", second).ok()
    kept = tmp_path / "second.qcow2"
    whole = ["qemu-img", "convert", "-O", "qcow2", str(POOL / f"{second}.qcow2"), str(kept)]
    subprocess.run(whole, check=True)
    boot = ssh(first, "cat /proc/sys/kernel/random/boot_id")
    out = armvm("golden", "delete", "--yes", "--flatten", story.baked, timeout=300).ok().out
    assert f"{first} no longer needs {story.baked}" in out
    assert list(POOL.glob(f"{story.baked}.*")) == []
    assert all("base-sha256" in backing(name) for name in (first, second))
    # All of its files and much of its memory are read: nothing of the golden's is missing.
    read = "find / -xdev -type f -size -500000c -print0 | xargs -0 cat | wc -c"
    total = ssh(first, f"sudo sh -c 'echo 3 >/proc/sys/vm/drop_caches; {read}'", timeout=400)
    assert int(total) > 100 << 20
    assert ssh(first, "cat /proc/sys/kernel/random/boot_id") == boot
    assert ssh(first, "sudo cat /root/mine") == first
    compared = ["qemu-img", "compare", "-U", str(kept), str(POOL / f"{second}.qcow2")]
    subprocess.run(compared, check=True, capture_output=True)


@pytest.mark.parametrize("number", ["01", "02"], ids=["while it ran", "while it was off"])
def test_a_clone_that_was_flattened_boots(story: Story, number: str) -> None:
    clone = f"{story.prefix}-{number}"
    uuid = armvm("show", clone, "--json").ok().json["uuid"]
    armvm("stop", clone, timeout=700)  # one is off
    armvm(
        *("start", "--wait", clone, "--timeout", str(BOOT_TIMEOUT)), timeout=BOOT_TIMEOUT + 60
    ).ok()
    assert ssh(clone, "cat /etc/machine-id") == uuid.replace("-", "")
    assert ssh(clone, "sudo cat /root/mine") == clone


def test_a_golden_of_a_machine_in_system_mode(story: Story) -> None:
    golden, copy = f"{story.prefix}-gold", f"{story.prefix}-copy"
    try:
        armvm(
            *("golden", "create", golden, "--from", story.cold, "--timeout", str(BOOT_TIMEOUT)),
            timeout=BOOT_TIMEOUT + 300,
        ).ok()
        done = armvm("create", "--from", golden, "--name", copy, timeout=CLONE_TIMEOUT).ok()
        assert f"created from golden {golden}" in done.err
        assert ssh(copy, "hostname") == copy
        assert armvm("show", copy, "--json").ok().json["image"]["reference"] == (
            f"machine:{story.cold}"
        )
    finally:
        armvm("delete", "--yes", copy)
        armvm("golden", "delete", "--yes", golden)
