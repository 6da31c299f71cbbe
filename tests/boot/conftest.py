"""Real guests: one booted machine serves many tests; an ordinary user for session mode."""

from __future__ import annotations

import os
import pwd
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from armvm.base.paths import cache_dir
from tests.image_server import ImageServer, ubuntu_tree
from tests.libvirt.world import virsh
from tests.support import ROOT, Result, armvm, fresh_name

#: The pool of system mode.
POOL = Path("/var/lib/libvirt/images/armvm")
#: Seconds for one boot: emulated, on a shared machine with two cores.
BOOT_TIMEOUT = 900


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A booted machine, and what was asked for."""

    name: str
    user: str
    created: dict[str, Any]
    said: str
    #: What its owner's environment has besides: another home than that of who tests.
    env: dict[str, str]

    def ssh(self, *command: str) -> Result:
        """Run a command in the guest."""
        return armvm("ssh", self.name, "--", *command)


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair of the test's own, without passphrase; the path of the public half."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub")


@pytest.fixture(scope="session")
def guest(debian_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The shared guest: system mode, own key, own user-data, a disk larger than the image.

    Its image comes as Ubuntu's do, from a server with their layout. The bytes are Debian's, since
    Ubuntu's host is not always in reach; nobody but Ubuntu can sign for Ubuntu, so less is asked
    for, aloud.
    """
    name = fresh_name("armvm-boot")
    directory = tmp_path_factory.mktemp("seed")
    user_data = directory / "user-data.yaml"
    ubuntu_tree(directory / "www", debian_image, version="24.04", serial="20260911")
    user_data.write_text(
        "#cloud-config\nwrite_files:\n"
        "  - {path: /etc/armvm-marker, content: 'from the user'}\n"
        "runcmd:\n  - [sh, -c, 'echo ran > /run/armvm-marker']\n"
    )
    env = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        **data_home(),
        "XDG_CACHE_HOME": str(directory / "cache"),
        "no_proxy": "127.0.0.1",
    }
    with ImageServer(directory / "www") as server:
        created = armvm(
            *("create", "--name", name, "--cpus", "2", "--mem", "1536", "--disk", "7G"),
            *("--image", "ubuntu:24.04", "--verify", "digest"),
            *("--user", "alice", "--user-data", user_data),
            *("--connect", "qemu:///system", "--json", "--timeout", str(BOOT_TIMEOUT)),
            env={**env, "ARMVM_MIRROR_UBUNTU": server.url},
            timeout=BOOT_TIMEOUT + 120,
        )
    try:
        yield Guest(name=name, user="alice", created=created.ok().json, said=created.err, env=env)
    finally:
        armvm("delete", "--yes", name, "--connect", "qemu:///system")


def data_home() -> dict[str, str]:
    """Return the directories a changed HOME would move: the image cache and armvm's own key."""
    from armvm.base.paths import data_dir

    return {
        "XDG_CACHE_HOME": str(cache_dir().parent),
        "XDG_DATA_HOME": str(data_dir().parent),
    }


@dataclass(frozen=True, kw_only=True)
class OrdinaryUser:
    """A user without rights, with a copy of armvm that he can read."""

    name: str
    home: Path
    environment: tuple[str, ...]
    #: A command that enters a namespace, for the user's programs to run in.
    inside: tuple[str, ...] = ()

    def run(self, *words: str | Path, timeout: float = 120) -> Result:
        """Run a program as that user, in an environment with nothing of ours."""
        as_user = ("runuser", "-u", self.name, "--", "env", "-i", *self.environment)
        prefix = (*self.inside, *as_user)
        return armvm(*words, prefix=prefix, timeout=timeout, cwd=self.home)

    def armvm(self, *words: str | Path, timeout: float = 120) -> Result:
        """Run armvm as that user."""
        return self.run(sys._base_executable, "-m", "armvm", *words, timeout=timeout)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Make an ordinary user, and remove him with all that he started."""
    if os.geteuid() != 0:
        pytest.skip("only root can make an ordinary user")
    name = fresh_name("armvmu")
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
    try:
        account = pwd.getpwnam(name)
        home = Path(account.pw_dir)
        # The checkout and the virtual environment may lie where he cannot look.
        code = home / "code"
        for package in (ROOT / "armvm", ROOT / "templates", ROOT / "cloud-init"):
            shutil.copytree(package, code / package.name)
        for packages in filter(os.path.isdir, site.getsitepackages()):
            shutil.copytree(packages, code, dirs_exist_ok=True, symlinks=True)
        runtime = home / "run"
        runtime.mkdir()
        subprocess.run(["chown", "-R", f"{name}:", home], check=True)
        runtime.chmod(0o700)
        yield OrdinaryUser(
            name=name,
            home=home,
            environment=(
                f"HOME={home}",
                f"USER={name}",
                f"LOGNAME={name}",
                f"PYTHONPATH={code}",
                f"XDG_RUNTIME_DIR={runtime}",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "LANG=C.UTF-8",
                "NO_COLOR=1",
            ),
        )
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        subprocess.run(["userdel", "--force", "--remove", name], check=False, capture_output=True)


def reboot(name: str) -> None:
    """Reboot a guest from inside, and return when it is ready in another boot than before."""
    command = ("ssh", name, "--", "cat /proc/sys/kernel/random/boot_id")
    before = armvm(*command).ok().out
    armvm("ssh", name, "--", "sudo systemctl reboot")  # its connection ends with the boot
    end = time.monotonic() + BOOT_TIMEOUT
    while armvm(*command).out in ("", before):
        assert time.monotonic() < end, f"{name} did not come back"
        time.sleep(3)
    armvm("wait", name, "--timeout", str(BOOT_TIMEOUT), timeout=BOOT_TIMEOUT + 60).ok()


def leftovers(name: str) -> list[str]:
    """Return what is left of a machine: volumes, NVRAM, a domain."""
    domains = virsh("list", "--all", "--name").split()
    nvram = Path("/var/lib/libvirt/qemu/nvram")
    files = [*POOL.glob(f"{name}.*"), *nvram.glob(f"{name}_*")]
    return [*map(str, files), *(one for one in domains if one == name)]


@contextmanager
def baked(prefix: str, image: Path, *options: str) -> Iterator[str]:
    """A golden of the smallest preset; with it go the clones that tests left."""
    name = fresh_name(prefix)
    armvm(
        *("golden", "create", name, "--preset", "minimal", *options),
        *("--image", image, "--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 300,
    ).ok()
    try:
        yield name
    finally:
        for volume in armvm("golden", "show", name, "--json").ok().json["clones"]:
            armvm("delete", "--yes", volume.removesuffix(".qcow2"))
        known = cache_dir() / "known_hosts" / virsh("domuuid", name).strip()
        armvm("golden", "delete", "--yes", name).ok()
        assert not known.exists()
        assert leftovers(name) == []


@pytest.fixture(scope="session")
def golden(debian_image: Path) -> Iterator[str]:
    """A golden whose memory is shared, with user networking."""
    with baked("armvm-golden", debian_image, "--network", "user") as name:
        yield name


def reserved(name: str) -> tuple[str, str] | None:
    """Return the MAC and IP address that armvm's network keeps for a machine."""
    text = virsh("net-dumpxml", "armvm")
    found = etree.fromstring(text).find(f"ip/dhcp/host[@name='{name}']")
    return None if found is None else (found.get("mac", ""), found.get("ip", ""))


@pytest.fixture(scope="session")
def saved(debian_image: Path) -> Iterator[str]:
    """A golden on armvm's network, whose memory is in a save image."""
    with baked("armvm-saved", debian_image, "--save-image") as name:
        yield name
    assert reserved(name) is None
