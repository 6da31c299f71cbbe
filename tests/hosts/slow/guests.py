"""Guests on other hosts: their image, the golden that all tests of a place share, ways to ask."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.hosts.other import Place

#: Seconds for one boot: emulated, on a shared machine with two cores.
BOOT = 1800
MACHINE = ("--image", "local:debian-12", "--preset", "minimal")


def called(place: Place, key: str) -> str:
    """Return what a machine is called: users of one daemon have names of their own."""
    return f"{place.user.name}-{key}"


def defined(place: Place, name: str) -> bool:
    """Tell whether libvirt has a domain."""
    return name in place.virsh("list", "--all", "--name").split()


def need(place: Place, key: str) -> str:
    """Return a machine's name; skip the test where an earlier one could not make it."""
    name = called(place, key)
    if not defined(place, name):
        pytest.skip(f"there is no {name} to try it with")
    return name


def guest(place: Place, name: str, line: str) -> str:
    """Run a shell's line in a guest by ssh."""
    return place.armvm("ssh", name, "--", line).ok().out.strip()


def send_image(place: Place, image: Path) -> None:
    """Copy an image of the cache into a user's, with its times: they vouch for its digest."""
    below = ".cache/armvm/images/local"
    if place.run("test", "-e", f"{below}/{image.name}").code == 0:
        return
    files = [path.name for path in image.parent.glob(f"{image.stem}.*")]
    pack = ["tar", "-C", str(image.parent), "--format=posix", "-cf", "-", *files]
    unpack = f"mkdir -p {below} && tar -C {below} -xf -"
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        subprocess.run(place.command("sh", "-c", unpack), stdin=tar.stdout, check=True)
    assert tar.returncode == 0


def golden_of(place: Place, image: Path) -> str:
    """Return a golden whose memory is shared, with user networking; it goes with its host.

    All tests of a place have it together: to make one is a boot.
    """
    send_image(place, image)
    name = called(place, "cow")
    if not defined(place, name):
        words = ("golden", "create", name, *MACHINE, "--network", "user")
        done = place.armvm(*words, "--timeout", str(BOOT), timeout=BOOT + 300).ok()
        assert "save image" not in done.err
    return name


def remove(place: Place, *keys: str) -> None:
    """Remove machines, whatever state they are in; those that there are not are no error."""
    for key in keys:
        if defined(place, called(place, key)):
            place.armvm("delete", "--yes", called(place, key))
