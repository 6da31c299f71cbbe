"""Create is all or nothing: whatever ends it, at whichever step, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import ArmvmError, DomainError, StorageError
from tests.libvirt.world import (
    Ended,
    Reporter,
    Steps,
    World,
    apply,
    ended_by_signals,
    make_image,
    raise_libvirt_error,
    signal_myself,
    virsh,
)
from tests.support import fresh_name

HOW = {
    "signal before": (signal_myself, False),
    "signal after": (signal_myself, True),
    "failure": (raise_libvirt_error, False),
}
#: A signal before a call is nearly one after the call before it.
WAYS = [pytest.param("signal before", marks=pytest.mark.slow), "signal after", "failure"]


def trip(
    world: World, image: Path, name: str, steps: Steps, *, start: bool
) -> BaseException | None:
    """Make a machine, and return what ended that early."""
    try:
        with ended_by_signals():
            apply(world.where(steps), world.plan(name, image), start=start)
    except (ArmvmError, Ended) as error:
        return error
    return None


@pytest.mark.parametrize("how", WAYS)
def test_any_libvirt_call_may_be_the_last(world: World, image: Path, name: str, how: str) -> None:
    action, after = HOW[how]
    world.remove_bases()
    at = 1
    while True:
        steps = Steps(at=at, action=action, after=after)
        error = trip(world, image, name, steps, start=False)
        if len(steps.calls) < at:
            break
        step = f"{how}, call {at}: {steps.calls[at - 1]}"
        assert error is not None, f"{step}: it went on as if nothing had happened"
        assert world.traces(name) == [], step
        assert world.half_bases(image) == [], step
        world.remove_bases()
        at += 1
    assert error is None
    assert at > 25, steps.calls
    assert len(world.traces(name)) == 4  # overlay, seed, domain, address


@pytest.mark.parametrize("how", [pytest.param("signal after", marks=pytest.mark.slow), "failure"])
def test_any_libvirt_call_may_be_the_last_of_a_start(
    world: World, image: Path, name: str, how: str
) -> None:
    action, after = HOW[how]
    steps = Steps()
    assert trip(world, image, name, steps, start=True) is None
    world.armvm("delete", "--yes", name).ok()
    first, last = steps.calls.index("networkLookupByName") + 1, len(steps.calls)
    assert "create" in steps.calls[first - 1 :]
    for at in range(first, last + 1):
        again = Steps(at=at, action=action, after=after)
        error = trip(world, image, name, again, start=True)
        step = f"{how}, call {at}: {steps.calls[at - 1]}"
        assert error is not None, step
        assert world.traces(name) == [], step


@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_an_upload_may_be_interrupted(world: World, name: str, moment: str, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.qcow2", size=8 << 20)
    reporter = Reporter()
    if moment == "middle":
        reporter.on_update = lambda _label, done: signal_myself() if done > 4 << 20 else None
    else:
        setattr(reporter, f"on_{moment}", lambda _label: signal_myself())
    with ended_by_signals(), pytest.raises(Ended):
        apply(world.where(), world.plan(name, image), progress=reporter)
    assert world.traces(name) == []
    assert not world.base_of(image).exists()


@pytest.fixture
def small_pool(world: World) -> Iterator[World]:
    """A pool on a file system of 8 MiB."""
    pool = fresh_name("armvm-tiny")
    directory = Path("/var/lib/libvirt/images") / pool
    virsh("pool-define-as", pool, "dir", "--target", directory)
    virsh("pool-build", pool)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8M,mode=0711", "tmpfs", str(directory)]
    subprocess.run(mount, check=True)
    try:
        virsh("pool-start", pool)
        yield replace(world, pool=pool, directory=directory)
    finally:
        virsh("pool-destroy", pool, check=False)
        virsh("pool-undefine", pool)
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


def fill(directory: Path, *, leave: int = 0) -> None:
    """Fill a file system to the last page but *leave* bytes."""
    with (directory / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            state = os.statvfs(directory)
            left = state.f_bavail * state.f_frsize - leave
            if left < 4096:
                return
            file.write(bytes(min(left, 64 << 10)))


def test_a_full_pool_is_seen_before_the_upload(
    small_pool: World, name: str, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.qcow2", size=9 << 20)
    result = small_pool.armvm("create", "--name", name, "--image", image, "--no-start").failed(9)
    assert "is full" in result.err
    assert small_pool.volumes() == set()
    assert small_pool.traces(name) == []


@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_a_pool_that_becomes_full(
    small_pool: World, name: str, moment: str, tmp_path: Path
) -> None:
    """Somebody else takes the room at the worst time: base (start, middle) or overlay (end)."""
    image = make_image(tmp_path / "image.qcow2", size=4 << 20)
    reporter = Reporter()

    def on_update(_label: str, done: int) -> None:
        if done > 2 << 20:
            fill(small_pool.directory)

    if moment == "middle":
        reporter.on_update = on_update
    else:
        setattr(reporter, f"on_{moment}", lambda _label: fill(small_pool.directory))
    with pytest.raises(StorageError, match=r"(?i)no space|full"):
        apply(small_pool.where(), small_pool.plan(name, image), progress=reporter)
    assert small_pool.traces(name) == []
    assert small_pool.half_bases(image) == []


def test_a_pool_without_room_for_the_seed(small_pool: World, name: str, image: Path) -> None:
    fill(small_pool.directory, leave=100 << 10)
    result = small_pool.armvm("create", "--name", name, "--image", image, "--no-start").failed(9)
    assert "hint: " in result.err
    assert small_pool.volumes() == {"filler"}
    assert small_pool.traces(name) == []


@pytest.fixture
def broken_network() -> Iterator[str]:
    """A network that is defined, but whose bridge cannot be brought up: no such interface."""
    name = fresh_name("armvm-net")
    path = Path("/tmp") / f"{name}.xml"
    path.write_text(
        f"<network><name>{name}</name><forward mode='bridge'/><bridge name='nobridge0'/></network>"
    )
    virsh("net-define", path)
    path.unlink()
    yield name
    virsh("net-destroy", name, check=False)
    virsh("net-undefine", name)


def test_a_network_that_fails_only_at_start(
    world: World, image: Path, name: str, broken_network: str
) -> None:
    result = world.armvm(
        "create", "--name", name, "--image", image, "--network", broken_network, "--no-wait"
    ).failed(10)
    assert "nobridge0" in result.err
    assert world.traces(name) == []


def test_memory_that_the_host_does_not_have(world: World, image: Path, name: str) -> None:
    """QEMU itself refuses to start: only then is it known."""
    result = world.armvm(
        "create", "--name", name, "--image", image, "--mem", "15T", "--no-wait"
    ).failed(10)
    assert "memory" in result.err
    assert world.traces(name) == []


class Stubborn(Steps):
    """A daemon that refuses to destroy."""

    def call(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make one call, or fail."""
        if name == "destroy":
            raise_libvirt_error()
        return super().call(name, function, *args, **options)


def test_what_cannot_be_undone_is_told_and_the_rest_is_undone(
    world: World, image: Path, name: str
) -> None:
    reporter = Reporter()
    planned = world.plan(name, image, memory_mib=15 << 20)
    with pytest.raises(DomainError):
        apply(world.where(Stubborn()), planned, start=True, progress=reporter)
    assert [text for text in reporter.said if "cleanup failed" in text]
    assert world.traces(name) == []
