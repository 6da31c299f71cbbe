"""Every kind of user on each host: a machine that boots, goldens, and the verbs of every day.

The tests of a place are chapters, in their order. A golden, a machine and a restart boot cold; all
the rest is done with clones. In `qemu:///session` networking is QEMU's, elsewhere the golden whose
memory is shared has it, and the other one is on the network `armvm`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import cases
from tests.hosts.other import CHECKOUT, OtherHost, Place

ROLES = ("root", "sudo", "libvirt group")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    cases(*((suite, role) for suite in ("trixie", "sid") for role in ROLES)),
]
#: Seconds for one boot: emulated, on a shared machine with two cores.
BOOT = 1500
MACHINE = ("--image", "local:debian-12", "--preset", "minimal")


def names(place: Place) -> dict[str, str]:
    """Return what the machines of a user are called: of all users of the system daemon."""
    user = place.user.name
    return {key: f"{user}-{key}" for key in ("box", "cow", "save", "a", "b")}


@pytest.fixture(scope="module")
def image(place: Place, debian_image: Path) -> Iterator[None]:
    """The image that this machine has built, in the user's cache there."""
    send_image(place, debian_image)
    yield
    for name in names(place).values():
        place.armvm("delete", "--yes", name)
    for name in (names(place)["cow"], names(place)["save"]):
        place.armvm("golden", "delete", "--yes", name)


def send_image(place: Place, image: Path) -> None:
    """Copy an image of the cache into a user's, with its times: they vouch for its digest."""
    below = ".cache/armvm/images/local"
    files = [path.name for path in image.parent.glob(f"{image.stem}.*")]
    pack = ["tar", "-C", str(image.parent), "--format=posix", "-cf", "-", *files]
    unpack = f"mkdir -p {below} && tar -C {below} -xf -"
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
        subprocess.run(place.command("sh", "-c", unpack), stdin=tar.stdout, check=True)
    assert tar.returncode == 0


def need(place: Place, key: str) -> str:
    """Return a machine's name; skip the test where an earlier one could not make it."""
    name = names(place)[key]
    if not defined(place, name):
        pytest.skip(f"there is no {name} to try it with")
    return name


def guest(place: Place, name: str, line: str) -> str:
    """Run a shell's line in a guest by ssh."""
    return place.armvm("ssh", name, "--", line).ok().out.strip()


@pytest.mark.feature("`scripts/setup`; run again, it changes nothing")
def test_setup_changes_nothing_the_second_time(place: Place) -> None:
    again = place.setup().ok()
    # Whoever may not open the system daemon is told so each time.
    said = [line for line in (again.out + again.err).splitlines() if "qemu:///session" not in line]
    assert said == []


@pytest.mark.feature("`doctor`")
def test_doctor_finds_nothing_that_lacks(place: Place) -> None:
    told = place.armvm("doctor", "--json").ok().json
    assert [one for one in told if not one["ok"] and one["name"] != "binfmt handler"] == []
    [libvirt] = [one for one in told if one["name"] == "libvirt"]
    assert libvirt["found"] == f"answers at {place.user.uri}"


@pytest.mark.feature("`golden create`, memory shared")
def test_a_golden_whose_memory_is_shared(place: Place, image: None) -> None:
    name = names(place)["cow"]
    words = ("golden", "create", name, *MACHINE, "--network", "user")
    done = place.armvm(*words, "--timeout", str(BOOT), timeout=BOOT + 300).ok()
    assert "save image" not in done.err
    place.armvm("golden", "verify", name).ok()
    assert '"cow"' in json.dumps(place.armvm("golden", "show", name, "--json").ok().json)


@pytest.mark.feature("`create --from`, memory shared")
def test_a_clone_whose_memory_is_shared(place: Place, image: None) -> None:
    name, golden = names(place)["a"], need(place, "cow")
    done = place.armvm("create", "--from", golden, "--name", name, timeout=300).ok()
    assert "made from the golden" in done.err
    assert guest(place, name, "hostname; uname -m").split() == [name, "aarch64"]


@pytest.mark.feature("`run --from`, memory shared")
def test_a_command_in_a_machine_of_its_own(place: Place, image: None) -> None:
    golden = need(place, "cow")
    done = place.armvm("run", "--from", golden, "--", "uname", "-m", timeout=300).ok()
    assert done.out.strip() == "aarch64"
    assert "cold" not in done.err


@pytest.mark.feature("`exec`")
def test_exec(place: Place, image: None) -> None:
    assert place.armvm("exec", need(place, "a"), "--", "id", "-un").ok().out == "root\n"


@pytest.mark.feature("`console`")
def test_console(place: Place, image: None) -> None:
    name = need(place, "a")
    line = f"echo 'uname -m; echo $((41 + 1))' | {CHECKOUT}/.venv/bin/armvm console {name}"
    told = place.run("sh", "-c", line).ok().out
    assert "aarch64" in told
    assert "42" in told


@pytest.mark.feature("`ssh`, `cp`")
def test_copies(place: Place, image: None) -> None:
    name = need(place, "a")
    place.run("sh", "-c", "echo there >note").ok()
    place.armvm("cp", "note", f"{name}:").ok()
    assert guest(place, name, "cat note") == "there"
    place.armvm("cp", f"{name}:/etc/hostname", "back").ok()
    assert place.run("cat", "back").ok().out.strip() == name


@pytest.mark.feature("`forward add`")
def test_a_forward(place: Place, image: None) -> None:
    name = need(place, "a")
    port = str(18000 + list(ROLES).index(place.user.role))
    place.armvm("forward", "add", name, f"{port}:22").ok()
    line = f"exec 3<>/dev/tcp/127.0.0.1/{port}; head -n 1 <&3"
    assert place.run("bash", "-c", line).ok().out.startswith("SSH-2.0")


@pytest.mark.feature("`resize --disk` while it runs")
def test_resize(place: Place, image: None) -> None:
    name = need(place, "a")
    [done] = place.armvm("resize", name, "--disk", "12G", "--json", timeout=300).ok().json
    assert done["note"].startswith("the root file system grew from"), done
    assert guest(place, name, "lsblk -bdno SIZE /dev/vda") == str(12 << 30)


@pytest.mark.feature("`snapshot create`, `revert`")
def test_snapshot(place: Place, image: None) -> None:
    name = need(place, "a")
    guest(place, name, "echo kept >~/mark; sync")
    made = place.armvm("snapshot", "create", name, "--json", timeout=300).ok().json
    assert made["state"] == "frozen"
    guest(place, name, "echo lost >~/mark; sync")
    place.armvm("stop", "--force", name).ok()
    place.armvm("snapshot", "revert", name, made["name"], "--yes", timeout=300).ok()


@pytest.mark.feature("a clone's second boot, from its own disk")
def test_a_clone_boots_from_its_own_disk(place: Place, image: None) -> None:
    name = need(place, "a")
    place.armvm("start", name, "--wait", "--timeout", str(BOOT), timeout=BOOT + 60).ok()
    assert guest(place, name, "hostname; cat mark").split() == [name, "kept"]


@pytest.mark.feature("`mount --restart`")
def test_mount(place: Place, image: None) -> None:
    name = need(place, "a")
    if place.run("sh", "-c", "mkdir -p shared && echo here >shared/note").code:
        pytest.fail("no directory to share")
    where = f"{place.user.home}/shared"
    words = ("mount", where, f"{name}:/mnt/shared", "--restart")
    place.armvm(*words, timeout=BOOT + 60).ok()
    assert guest(place, name, "cat /mnt/shared/note") == "here"


@pytest.mark.feature("`create`, with a boot")
def test_a_machine_boots(place: Place, image: None) -> None:
    place.armvm("stop", "--force", names(place)["a"])
    name = names(place)["box"]
    words = ("create", "--name", name, *MACHINE, "--json", "--timeout", str(BOOT))
    place.armvm(*words, timeout=BOOT + 300).ok()
    assert guest(place, name, "hostname; uname -m").split() == [name, "aarch64"]


@pytest.mark.feature("`golden create --save-image`")
def test_a_golden_in_a_save_image(place: Place, image: None) -> None:
    place.armvm("stop", "--force", names(place)["box"])
    name = names(place)["save"]
    words = ("golden", "create", name, *MACHINE, "--save-image", "--timeout", str(BOOT))
    place.armvm(*words, timeout=BOOT + 300).ok()
    place.armvm("golden", "verify", name).ok()


@pytest.mark.feature("`create --from`, `run --from`, save image")
def test_clones_of_a_save_image(place: Place, image: None) -> None:
    name, golden = names(place)["b"], need(place, "save")
    done = place.armvm("create", "--from", golden, "--name", name, timeout=300).ok()
    assert "made from the golden" in done.err
    assert guest(place, name, "hostname; uname -m").split() == [name, "aarch64"]
    once = place.armvm("run", "--from", golden, "--", "uname", "-m", timeout=300).ok()
    assert once.out.strip() == "aarch64"
    assert "cold" not in once.err


@pytest.mark.feature("`delete`, `golden delete`")
def test_nothing_is_left(place: Place, image: None) -> None:
    kept = names(place)
    made = [name for name in (kept["box"], kept["a"], kept["b"]) if defined(place, name)]
    if not made:
        pytest.skip("there is nothing to delete")
    place.armvm("delete", "--yes", *made).ok()
    for name in (kept["cow"], kept["save"]):
        if defined(place, name):
            place.armvm("golden", "delete", "--yes", name).ok()
    assert [name for name in kept.values() if defined(place, name)] == []
    assert left(place.host, place) == []


def defined(place: Place, name: str) -> bool:
    """Tell whether libvirt has a domain."""
    return name in place.virsh("list", "--all", "--name").split()


def left(host: OtherHost, place: Place) -> list[str]:
    """Return the files of a user's machines that are left in libvirt's directories."""
    places = f"/var/lib/libvirt {place.user.home}/.local/share/armvm/pool {place.user.home}/.config"
    line = f"find {places} -name '{place.user.name}-*' 2>/dev/null || true"
    return host.shell(line).ok().out.split()
