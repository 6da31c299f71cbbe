"""Real signals to the real program: exit code 128 + n, and nothing left."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.libvirt.world import World, until

ENDINGS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@contextmanager
def running(world: World, *args: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run armvm; whatever happens, it does not outlive the block."""
    process = world.spawn(*args)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


def hear(process: subprocess.Popen[str], words: str) -> None:
    """Read a process's standard error until it says *words*."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def uploading(world: World, image: Path, *, size: int = 16 << 20) -> Callable[[], bool]:
    """Return whether some of an image's base is there."""
    base = world.base_of(image)
    return lambda: base.exists() and base.stat().st_size > size


@pytest.mark.parametrize(("number", "code"), ENDINGS)
def test_a_signal_while_the_base_is_uploaded(
    world: World, big_image: Path, name: str, number: signal.Signals, code: int
) -> None:
    world.remove_bases()
    command = ("create", "--name", name, "--image", big_image, "--no-start")
    with running(world, *command) as process:
        until(uploading(world, big_image), why="the upload")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert "armvm: interrupted" in err
    assert "Traceback" not in err
    assert world.traces(name) == []
    assert world.bases() == set()


def test_impatience(world: World, big_image: Path, name: str) -> None:
    """Ctrl-C again and again, while it cleans up."""
    world.remove_bases()
    command = ("create", "--name", name, "--image", big_image, "--no-start")
    with running(world, *command) as process:
        until(uploading(world, big_image), why="the upload")

        def again() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        until(again, why="its end")
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert world.traces(name) == []
    assert world.bases() == set()


@pytest.mark.parametrize(("number", "code"), ENDINGS[:2])
def test_a_signal_while_it_is_waited_for(
    world: World, image: Path, name: str, number: signal.Signals, code: int
) -> None:
    """The guest cannot boot, so the waiting would go on; nearly every look at it fails."""
    with running(world, "create", "--name", name, "--image", image) as process:
        hear(process, f"{name}: starting")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert f"removing {name}" in err
    assert world.traces(name) == []


def test_a_signal_in_waiting_for_another_upload(world: World, big_image: Path, name: str) -> None:
    """Ending the one that waits does not touch the base that the other one writes."""
    world.remove_bases()
    second = f"{name}-2"
    with running(world, "create", "--name", name, "--image", big_image, "--no-start") as first:
        until(uploading(world, big_image), why="the upload")
        first.send_signal(signal.SIGSTOP)
        with running(
            world, "create", "--name", second, "--image", big_image, "--no-start"
        ) as waiter:
            hear(waiter, "that is copying this image")
            waiter.send_signal(signal.SIGINT)
            waiter.communicate(timeout=60)
        assert waiter.returncode == 130
        assert world.traces(second) == []
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert world.half_bases(big_image) == []
