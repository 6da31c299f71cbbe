"""Session mode: an ordinary user's own machine, reached through a port of the loopback.

One cold boot, of a fast machine; the tests are chapters. The slow ones make a golden of it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import BOOT_TIMEOUT, OrdinaryUser
from tests.support import Result

NAME, COPY = "mine", "two"
CLONE_TIMEOUT = 180


@pytest.fixture(scope="module")
def user(ordinary_user: OrdinaryUser, debian_image: Path) -> Iterator[OrdinaryUser]:
    """An ordinary user with an image of his own; his machines and goldens go in the end."""
    image = ordinary_user.home / "debian-12-arm64.qcow2"
    shutil.copyfile(debian_image, image)
    image.chmod(0o644)
    yield ordinary_user
    for name in (NAME, COPY):
        ordinary_user.armvm("delete", "--yes", name)
    ordinary_user.armvm("golden", "delete", "--yes", "gold")


def pool(user: OrdinaryUser) -> Path:
    return user.home / ".local/share/armvm/pool"


def ssh(user: OrdinaryUser, command: str, name: str = NAME) -> str:
    return user.armvm("ssh", name, "--", command).ok().out


def run(user: OrdinaryUser, *words: str) -> Result:
    return user.armvm("exec", NAME, "--", *words)


def test_what_he_imports_is_the_base(user: OrdinaryUser) -> None:
    """QEMU runs as him here, and what he imports is his own: no copy is made."""
    image = user.home / "debian-12-arm64.qcow2"
    user.armvm("image", "import", image, "--as", "imported").ok()
    user.armvm("create", "--no-start", "--name", "held", "--image", "local:imported").ok()
    (cached,) = (user.home / ".cache/armvm/images/local").glob("imported-*.qcow2")
    (base,) = pool(user).glob("base-*.qcow2")
    assert base.stat().st_ino == cached.stat().st_ino
    user.armvm("delete", "--yes", "held").ok()


def test_an_ordinary_users_machine(user: OrdinaryUser) -> None:
    bases = list(pool(user).glob("base-*.qcow2"))
    created = user.armvm(
        *("create", "--name", NAME, "--preset", "minimal", "--fast"),
        *("--image", user.home / "debian-12-arm64.qcow2"),
        *("--json", "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 120,
    ).ok()
    facts = created.json
    assert facts["network"] == "user"
    assert facts["ssh"]["host"] == "127.0.0.1"
    assert facts["user"] == "debian", "the distribution's own user, told by the file's name"
    assert Path(facts["overlay"]).parent == pool(user)
    assert list(pool(user).glob("base-*.qcow2")) == bases, "one of the same bytes was there"

    assert ssh(user, "uname -m; hostname; whoami; sudo -n whoami").split() == [
        "aarch64", NAME, "debian", "root",
    ]  # fmt: skip
    assert "status: done" in ssh(user, "cloud-init status")

    # The key is one that armvm made for him, on first use.
    key = user.home / ".local/share/armvm/id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600

    # Fast: the image's kernel from outside, no firmware, and its network from the command line.
    shown = user.armvm("show", NAME).ok().out
    assert "cache=unsafe" in shown
    assert "installs later is not booted" in shown
    release, *rest = ssh(user, "uname -r; ls -d /sys/firmware/*; cat /proc/cmdline").split()
    assert f"vmlinuz-{release} " in facts["fast"]["kernel"]
    assert "/sys/firmware/efi" not in rest
    assert {"ip=dhcp", "network-config=disabled", "ds=nocloud"} <= set(rest)
    assert "routable" in ssh(user, "networkctl list --no-legend 'e*'")


@pytest.mark.slow
def test_the_everyday_verbs(user: OrdinaryUser) -> None:
    assert run(user, "uname", "-m").ok().out == "aarch64\n"
    assert run(user, "sh", "-c", "exit 5").code == 5
    (user.home / "tree").mkdir()
    (user.home / "tree/file").write_text("there and back\n")
    user.armvm("cp", "-r", user.home / "tree", f"{NAME}:").ok()
    user.armvm("cp", f"{NAME}:tree/file", user.home / "back").ok()
    assert (user.home / "back").read_text() == "there and back\n"
    assert "login:" in user.armvm("logs", NAME).ok().out
    assert user.armvm("ip", NAME, "--json").ok().json["addresses"]
    (row,) = user.armvm("top", "--json", "--once").ok().json
    assert row["name"] == NAME
    assert "headless" in user.armvm("screenshot", NAME, "x.png").failed(10).err
    report = user.armvm("boot-report", NAME, "--json", timeout=700).ok().json
    assert report["origin"] == "start"


def test_his_ssh_knows_it(user: OrdinaryUser) -> None:
    assert f"ssh configured for {NAME}" in user.armvm("ssh-config", "--install", NAME).ok().out
    config = user.home / ".ssh/config"
    said = user.run("ssh", "-F", config, NAME, "uname", "-m", timeout=60).ok()
    assert said.out == "aarch64\n"
    user.armvm("ssh-config", "--remove", NAME).ok()
    assert "Include" not in (config.read_text() if config.exists() else "")


def test_the_port_is_kept_and_its_disk_grows(user: OrdinaryUser) -> None:
    before = user.armvm("show", "--json").ok().json["ssh"]
    ssh(user, "touch kept; sync")
    (done,) = user.armvm("resize", NAME, "--disk", "12G", "--json", timeout=300).ok().json
    assert done["note"].startswith("the root file system grew from"), done
    user.armvm("stop", timeout=700).ok()
    user.armvm("start", "--no-wait").ok()
    assert user.armvm("show", "--json").ok().json["ssh"] == before
    user.armvm("stop", "--force").ok()


@pytest.mark.slow
def test_a_golden_of_it(user: OrdinaryUser) -> None:
    """His daemon ends when it has nothing to do, and must find the golden as it was."""
    user.armvm(
        *("golden", "create", "gold", "--from", NAME, "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 300,
    ).ok()
    subprocess.run(["pkill", "-TERM", "-u", user.name, "-x", "libvirtd"], check=True)
    words = ("create", "--from", "gold", "--name", COPY)
    done = user.armvm(*words, timeout=CLONE_TIMEOUT).ok()
    assert "created from golden gold" in done.err
    assert ssh(user, "hostname; ls", COPY).split() == [COPY, "kept", "tree"]
    user.armvm("golden", "delete", "--yes", "gold").failed(5)


@pytest.mark.slow
def test_what_a_machine_has_each_clone_of_its_golden_has(user: OrdinaryUser) -> None:
    original, copy = (user.armvm("show", one, "--json").ok().json for one in (NAME, COPY))
    assert copy["golden"] == "gold"
    assert copy["image"]["reference"] == f"machine:{NAME}"
    assert original["state"] == "shut off"
    assert copy["host_key"] != original["host_key"]
    assert "done" in ssh(user, "cloud-init status", COPY)
    told = user.armvm("create", "--from", "gold", "--name", "no", "--cpus", "1").failed(5)
    assert f"armvm golden create --from {NAME}" in told.err, "it serves no other shape"


def test_nothing_is_left(user: OrdinaryUser) -> None:
    user.armvm("delete", "--yes", NAME).ok()
    user.armvm("delete", "--yes", COPY)  # these two only where the slow tests ran
    user.armvm("golden", "delete", "--yes", "gold")
    assert [one.name for one in pool(user).iterdir() if not one.name.startswith("base-")] == []
    assert user.armvm("list", "--json").ok().json == []
    variables = user.home / ".config/libvirt/qemu/nvram"
    assert not variables.exists() or not list(variables.glob(f"{NAME}*"))
