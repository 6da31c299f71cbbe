"""Other hosts, as `tests/hosts/other-host` makes them, and the users on them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT, Result, armvm

SCRIPT = ROOT / "tests" / "hosts" / "other-host"
#: Where the hosts' root file systems lie, for the script.
WHERE = {"ARMVM_HOSTS": os.environ.get("ARMVM_HOSTS", "/var/tmp/armvm-hosts")}
#: Where the checkout lies in its owner's home.
CHECKOUT = "armvm"
#: Where images for all users lie.
IMAGES = "/srv/images"
#: pip's cache for all users, so that libvirt-python is compiled once on a host.
PIP_CACHE = "/var/cache/armvm-pip"


@dataclass(frozen=True, kw_only=True)
class OtherHost:
    """A host of this machine, by its Debian suite."""

    suite: str

    def do(self, verb: str, *words: str, timeout: float = 600) -> Result:
        """Run a verb of the script, to its end."""
        prefix = (str(SCRIPT),)
        return armvm(verb, self.suite, *words, prefix=prefix, env=WHERE, timeout=timeout)

    def run(self, *words: str | Path, timeout: float = 120) -> Result:
        """Run a command there as root."""
        return self.do("run", *map(str, words), timeout=timeout)

    def shell(self, line: str, *, timeout: float = 120) -> Result:
        """Run a shell's line there as root."""
        return self.run("sh", "-c", line, timeout=timeout)

    def prepare(self) -> None:
        """Make it, boot it, and add the users of these tests."""
        self.do("make", timeout=900).ok()
        self.do("boot").ok()
        for user in (SUDOER, MEMBER):
            if self.run("id", user.name).code != 0:
                self.run("useradd", "--create-home", "--shell", "/bin/bash", user.name).ok()
        self.shell(
            f"mkdir -p {IMAGES} {PIP_CACHE} && chmod 1777 {PIP_CACHE} && "
            f"echo '{SUDOER.name} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/armvm-tests"
        ).ok()

    def send(self, source: Path, target: str) -> None:
        """Copy a file to the host; everybody there can read it."""
        with source.open("rb") as file:
            subprocess.run(
                [SCRIPT, "run", self.suite, "sh", "-c", f"cat > {target} && chmod 644 {target}"],
                stdin=file,
                check=True,
            )

    def versions(self) -> dict[str, str]:
        """Return the versions of what armvm stands on there."""
        line = (
            ". /etc/os-release; echo $PRETTY_NAME; "
            "libvirtd --version | grep -o '[0-9][0-9.]*' | head -n 1; "
            "qemu-system-aarch64 --version | grep -om 1 '[0-9][0-9.]*' | head -n 1; "
            "python3 -V | cut -d ' ' -f 2; systemctl --version | cut -d ' ' -f 2 | head -n 1"
        )
        told = self.shell(line).ok().out.split("\n")
        return dict(zip(("system", "libvirt", "qemu", "python", "systemd"), told, strict=False))


@dataclass(frozen=True, kw_only=True)
class User:
    """A kind of user of a host, and the libvirt that is theirs."""

    role: str
    name: str
    home: str
    uri: str

    @property
    def is_root(self) -> bool:
        """Whether it is root."""
        return self.name == "root"


ROOT_USER = User(role="root", name="root", home="/root", uri="qemu:///system")
SUDOER = User(role="sudo", name="sudoer", home="/home/sudoer", uri="qemu:///session")
MEMBER = User(role="libvirt group", name="member", home="/home/member", uri="qemu:///system")
USERS = {user.role: user for user in (ROOT_USER, SUDOER, MEMBER)}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A user of a host."""

    host: OtherHost
    user: User

    @property
    def label(self) -> str:
        """Return what the place is called in results."""
        return f"{self.host.suite}, {self.user.role}"

    def run(self, *words: str | Path, timeout: float = 120) -> Result:
        """Run a command as the user, in the home, as after a login."""
        line = shlex.join(map(str, words))
        return self.host.run(*self._as_user(f"cd && exec {line}"), timeout=timeout)

    def command(self, *words: str | Path) -> list[str]:
        """Return the words that run a command as the user, for what `run` cannot do."""
        line = f"cd && exec {shlex.join(map(str, words))}"
        return [str(SCRIPT), "run", self.host.suite, *self._as_user(line)]

    def _as_user(self, line: str) -> Sequence[str]:
        settings = [f"PIP_CACHE_DIR={PIP_CACHE}", "PIP_DISABLE_PIP_VERSION_CHECK=1", "NO_COLOR=1"]
        if self.user.is_root:
            return ["env", *settings, "sh", "-c", line]
        # Whoever is logged in has a directory for sockets, which libvirt's session needs.
        uid = f"$(id -u {self.user.name})"
        login = (
            f"loginctl enable-linger {self.user.name}; "
            f"for i in $(seq 100); do [ -S /run/user/{uid}/bus ] && break; sleep 0.1; done; "
            f"exec runuser -u {self.user.name} -- env {' '.join(settings)} "
            f"HOME={self.user.home} USER={self.user.name} LOGNAME={self.user.name} "
            f"XDG_RUNTIME_DIR=/run/user/{uid} sh -c {shlex.quote(line)}"
        )
        return ["sh", "-c", login]

    def bring_checkout(self) -> None:
        """Copy this checkout there, as it is now, without what git ignores."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        there = b"\0".join(one for one in listed.split(b"\0") if (ROOT / one.decode()).is_file())
        home = f"{self.user.home}/{CHECKOUT}"
        unpack = f"mkdir -p {home} && tar -C {home} -xf - && chown -R {self.user.name}: {home}"
        with subprocess.Popen(
            ["tar", "-C", ROOT, "--null", "-T", "-", "-cf", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as tar, subprocess.Popen(
            [SCRIPT, "run", self.host.suite, "sh", "-c", unpack], stdin=tar.stdout
        ) as taking:  # fmt: skip
            assert tar.stdin is not None
            tar.stdin.write(there)
            tar.stdin.close()
        assert tar.returncode == taking.returncode == 0

    def setup(self) -> Result:
        """Run scripts/setup in the user's checkout."""
        return self.run("sh", "-c", f"cd {CHECKOUT} && scripts/setup", timeout=1200)

    def armvm(self, *words: str | Path, timeout: float = 120) -> Result:
        """Run armvm as the user."""
        done = self.run(f"{CHECKOUT}/.venv/bin/armvm", *words, timeout=timeout)
        return Result(args=tuple(map(str, words)), code=done.code, out=done.out, err=done.err)

    def python(self, module: str, *words: str, timeout: float = 300) -> Result:
        """Run a module of the checkout with the Python that scripts/setup made."""
        line = f"cd {CHECKOUT} && .venv/bin/python -m {module} {shlex.join(words)}"
        return self.run("sh", "-c", line, timeout=timeout)

    def virsh(self, *words: str) -> str:
        """Run virsh as the user and return what it prints."""
        return self.run("virsh", "-q", "-c", self.user.uri, *words).ok().out
