"""A screenshot of a guest that runs nothing but its firmware."""

from __future__ import annotations

from pathlib import Path

from armvm.host.domain.screenshot import size_of
from tests import schemas
from tests.libvirt.world import World, until


def test_the_screen_is_written_as_png(
    world: World, name: str, blank_image: Path, tmp_path: Path
) -> None:
    world.held(name, blank_image, "--network", "user")
    picture = tmp_path / "screen.png"
    assert "is not running" in world.armvm("screenshot", name, picture).failed(10).err
    assert not picture.exists()
    world.armvm("start", name, "--no-wait").ok()

    def firmware() -> bool:
        world.armvm("screenshot", name, picture).ok()
        return size_of(picture.read_bytes())[0] > 720  # QEMU's own size before firmware sets one

    until(firmware, why="the firmware's screen")
    done = world.armvm("screenshot", name, picture, "--json").ok().json
    schemas.check("screenshot", done)
    assert (done["width"], done["height"]) == size_of(picture.read_bytes())
    assert "screen 5 of" in world.armvm("screenshot", name, picture, "--screen", "5").failed(10).err
    assert "/none not found" in world.armvm("screenshot", name, "/none/x.png").failed(4).err
