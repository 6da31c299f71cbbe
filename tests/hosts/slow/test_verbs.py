"""Every kind of user on each host: a machine that boots, goldens, and the verbs of every day.

The tests of a place are chapters, in their order. A golden, a machine and a restart boot cold; all
the rest is done with clones. In `qemu:///session` networking is QEMU's, elsewhere the golden whose
memory is shared has it, and the other one is on the network `armvm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.conftest import cases
from tests.hosts.other import CHECKOUT, Place
from tests.hosts.slow.guests import (
    BOOT,
    MACHINE,
    called,
    defined,
    golden_of,
    guest,
    need,
    remove,
    send_image,
)

ROLES = ("root", "sudo", "libvirt group")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    cases(*((suite, role) for suite in ("trixie", "sid") for role in ROLES)),
]


@pytest.fixture(scope="module")
def image(place: Place, debian_image: Path) -> Iterator[Path]:
    """The image that this machine has built, in the user's cache there."""
    send_image(place, debian_image)
    yield debian_image
    remove(place, "box", "a", "b")
    if defined(place, called(place, "save")):
        place.armvm("golden", "delete", "--yes", called(place, "save"))


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
def test_a_golden_whose_memory_is_shared(place: Place, image: Path) -> None:
    name = golden_of(place, image)
    place.armvm("golden", "verify", name).ok()
    told = place.armvm("golden", "list", "--json").ok().json
    assert [one["fits"] for one in told if one["name"] == name] == [True]


@pytest.mark.feature("`create --from`, memory shared")
def test_a_clone_whose_memory_is_shared(place: Place, image: Path) -> None:
    name, golden = called(place, "a"), need(place, "cow")
    done = place.armvm("create", "--from", golden, "--name", name, timeout=300).ok()
    assert "created from golden" in done.err
    assert guest(place, name, "hostname; uname -m").split() == [name, "aarch64"]


@pytest.mark.feature("`run --from`, memory shared")
def test_a_command_in_a_machine_of_its_own(place: Place, image: Path) -> None:
    golden = need(place, "cow")
    done = place.armvm("run", "--from", golden, "--", "uname", "-m", timeout=300).ok()
    assert done.out.strip() == "aarch64"
    assert "created from golden" in done.err


@pytest.mark.feature("`golden export`, `golden import`")
def test_a_golden_that_was_exported_and_imported(place: Place, image: Path) -> None:
    golden, copy = need(place, "cow"), called(place, "copy")
    place.armvm("golden", "export", golden, "exported.golden", timeout=300).ok()
    try:
        place.armvm("golden", "import", "exported.golden", "--as", copy, timeout=300).ok()
        place.armvm("golden", "verify", copy).ok()
        done = place.armvm("run", "--from", copy, "--", "uname", "-m", timeout=300).ok()
        assert done.out.strip() == "aarch64"
        assert "created from golden" in done.err
    finally:
        place.run("rm", "exported.golden")
        if defined(place, copy):
            place.armvm("golden", "delete", "--yes", copy).ok()


@pytest.mark.feature("`exec`")
def test_exec(place: Place, image: Path) -> None:
    assert place.armvm("exec", need(place, "a"), "--", "id", "-un").ok().out == "root\n"


@pytest.mark.feature("`console`")
def test_console(place: Place, image: Path) -> None:
    name = need(place, "a")
    line = f"echo 'uname -m; echo $((41 + 1))' | {CHECKOUT}/.venv/bin/armvm console {name}"
    told = place.run("sh", "-c", line).ok().out
    assert "aarch64" in told
    assert "42" in told


@pytest.mark.feature("`ssh`, `cp`")
def test_copies(place: Place, image: Path) -> None:
    name = need(place, "a")
    place.run("sh", "-c", "echo there >note").ok()
    place.armvm("cp", "note", f"{name}:").ok()
    assert guest(place, name, "cat note") == "there"
    place.armvm("cp", f"{name}:/etc/hostname", "back").ok()
    assert place.run("cat", "back").ok().out.strip() == name


@pytest.mark.feature("`forward add`")
def test_a_forward(place: Place, image: Path) -> None:
    name = need(place, "a")
    port = str(18000 + list(ROLES).index(place.user.role))
    place.armvm("forward", "add", name, f"{port}:22").ok()
    line = f"exec 3<>/dev/tcp/127.0.0.1/{port}; head -n 1 <&3"
    assert place.run("bash", "-c", line).ok().out.startswith("SSH-2.0")


@pytest.mark.feature("`resize --disk` while it runs")
def test_resize(place: Place, image: Path) -> None:
    name = need(place, "a")
    [done] = place.armvm("resize", name, "--disk", "12G", "--json", timeout=300).ok().json
    assert done["note"].startswith("the root file system grew from"), done
    assert guest(place, name, "lsblk -bdno SIZE /dev/vda") == str(12 << 30)


@pytest.mark.feature("`mount --restart` of a clone, which boots from its own disk")
def test_mount(place: Place, image: Path) -> None:
    name = need(place, "a")
    guest(place, name, "echo kept >~/mark; sync")
    in_session = place.user.uri == "qemu:///session"
    # Without a map, the guest's user is whoever has that number on the host.
    mode = "0755" if in_session else "0777"
    place.run("sh", "-c", f"mkdir -p -m {mode} shared && echo here >shared/note").ok()
    words = ["mount", f"{place.user.home}/shared", f"{name}:/mnt/shared", "--restart"]
    if not in_session:
        assert "--allow-root" in place.armvm(*words).failed(6).err
        words.append("--allow-root")
    place.armvm(*words, timeout=BOOT + 60).ok()
    # It is mounted by the guest agent, which may be there before ssh is.
    place.armvm("wait", name, "--timeout", str(BOOT), timeout=BOOT + 60).ok()
    assert guest(place, name, "cat /mnt/shared/note mark; hostname").split() == [
        *("here", "kept", name)
    ]
    # Programs that would make whoever runs them somebody else.
    guest(place, name, "cd /mnt/shared && touch mine && cp /bin/true own && chmod 6755 own")
    guest(place, name, "cd /mnt/shared && sudo cp /bin/true su && sudo chmod 6755 su")
    owners = place.run("stat", "-c", "%U", *(f"shared/{file}" for file in ("mine", "own", "su")))
    if in_session:
        assert owners.ok().out.split() == [place.user.name, place.user.name, "UNKNOWN"]
    else:
        assert owners.ok().out.split()[2] == "root", "which --allow-root allowed"


@pytest.mark.feature("`snapshot create`, `revert`")
def test_snapshot(place: Place, image: Path) -> None:
    name = need(place, "a")
    made = place.armvm("snapshot", "create", name, "--json", timeout=300).ok().json
    assert made["state"] == "frozen"
    place.armvm("stop", "--force", name).ok()
    place.armvm("snapshot", "revert", name, made["name"], "--yes", timeout=300).ok()
    place.armvm("snapshot", "delete", name, made["name"], "--yes").ok()


@pytest.mark.feature("`create`, with a boot")
def test_a_machine_boots(place: Place, image: Path) -> None:
    place.armvm("stop", "--force", called(place, "a"))
    name = called(place, "box")
    words = ("create", "--name", name, *MACHINE, "--cold", "--json", "--timeout", str(BOOT))
    place.armvm(*words, timeout=BOOT + 300).ok()
    assert guest(place, name, "hostname; uname -m").split() == [name, "aarch64"]


@pytest.mark.feature("`golden create --save-image`")
def test_a_golden_in_a_save_image(place: Place, image: Path) -> None:
    place.armvm("stop", "--force", called(place, "box"))
    name = called(place, "save")
    words = ("golden", "create", name, *MACHINE, "--save-image", "--timeout", str(BOOT))
    place.armvm(*words, timeout=BOOT + 300).ok()
    place.armvm("golden", "verify", name).ok()


@pytest.mark.feature("`create --from`, `run --from`, save image")
def test_clones_of_a_save_image(place: Place, image: Path) -> None:
    name, golden = called(place, "b"), need(place, "save")
    done = place.armvm("create", "--from", golden, "--name", name, timeout=300).ok()
    assert "created from golden" in done.err
    assert guest(place, name, "hostname; uname -m").split() == [name, "aarch64"]
    once = place.armvm("run", "--from", golden, "--", "uname", "-m", timeout=300).ok()
    assert once.out.strip() == "aarch64"
    assert "created from golden" in once.err


@pytest.mark.feature("`delete`, `golden delete`")
def test_nothing_is_left(place: Place, image: Path) -> None:
    made = [key for key in ("box", "a", "b") if defined(place, called(place, key))]
    if not made:
        pytest.skip("there is nothing to delete")
    place.armvm("delete", "--yes", *(called(place, key) for key in made)).ok()
    if defined(place, called(place, "save")):
        place.armvm("golden", "delete", "--yes", called(place, "save")).ok()
    for key in (*made, "save"):
        assert not defined(place, called(place, key))
        assert left(place, called(place, key)) == []


def left(place: Place, name: str) -> list[str]:
    """Return the files of a machine that are left in libvirt's directories."""
    home = place.user.home
    places = f"/var/lib/libvirt {home}/.local/share/armvm/pool {home}/.config/libvirt"
    return place.host.shell(f"find {places} -name '{name}*' 2>/dev/null || true").ok().out.split()
