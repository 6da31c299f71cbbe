"""Two at once: one name has one winner, one image is uploaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.libvirt.world import World, make_image


@pytest.mark.parametrize("attempt", range(4))
def test_one_name_has_one_winner(world: World, image: Path, name: str, attempt: int) -> None:
    command = ("create", "--name", name, "--image", image, "--no-start")
    racers = [world.spawn(*command) for _ in range(3)]
    errors = [racer.communicate(timeout=120)[1] for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 5, 5], errors
    for racer, error in zip(racers, errors, strict=True):
        if racer.returncode:
            assert f"armvm: {name} already exists" in error
    assert len(world.traces(name)) == 4  # overlay, seed, domain, address
    world.armvm("delete", "--yes", name).ok()
    assert world.traces(name) == []


def test_one_dead_machines_leftovers_have_one_winner(world: World, image: Path, name: str) -> None:
    from tests.libvirt.test_killed import killed_at

    for _ in range(3):
        world.remove_bases()
        assert killed_at(world, image, name, 14, after=True)
        assert world.traces(name)
        command = ("create", "--name", name, "--image", image, "--no-start")
        racers = [world.spawn(*command) for _ in range(2)]
        errors = [racer.communicate(timeout=120)[1] for racer in racers]
        assert sorted(racer.returncode for racer in racers) == [0, 5], errors
        assert len(world.traces(name)) == 4  # overlay, seed, domain, address
        assert "shut off" in world.armvm("show", name).ok().out
        world.armvm("delete", "--yes", name).ok()


def test_two_machines_of_one_new_image(world: World, name: str, tmp_path: Path) -> None:
    world.remove_bases()
    image = make_image(tmp_path / "image.qcow2", size=128 << 20)
    names = [name, f"{name}-2"]
    racers = [world.spawn("create", "--name", one, "--image", image, "--no-start") for one in names]
    errors = [racer.communicate(timeout=120)[1] for racer in racers]
    try:
        assert [racer.returncode for racer in racers] == [0, 0], errors
        assert sum("copying the image to the pool" in error for error in errors) == 1, errors
        assert world.bases() == {world.base_of(image).name}
        assert world.half_bases(image) == []
    finally:
        world.armvm("delete", "--yes", *names)
    world.remove_bases()
