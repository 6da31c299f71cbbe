"""Another libvirt host on this machine, and a client that reaches nothing of it but its ssh.

Both are namespaces: the host has its own libvirtd, sshd, files and network, the client its own
network and ssh configuration. One cable connects them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ssh_tools import find_sshd
from tests.support import ARMVM, Result, armvm, environment

_SCRIPT = Path(__file__).with_name("other_host.sh")
#: The directories that somebody has of his own; the image cache is whose who tests.
_HOMES = ("DATA", "STATE", "CONFIG")
HOST, CLIENT = "10.213.87.2", "10.213.87.1"
#: The host as the client's ssh and libvirt know it.
URI = "qemu+ssh://root@lab/system"


@dataclass(frozen=True, kw_only=True)
class OtherHost:
    """The host (its first process is *pid*), and the client beside it."""

    pid: int
    client: int
    work: Path
    env: Mapping[str, str]

    def armvm(self, *words: str | Path, **options: Any) -> Result:
        """Run armvm at the client, with the other host's libvirt for a default."""
        env = {**self.env, "ARMVM_CONNECT": URI, **options.pop("env", {})}
        return armvm(*words, prefix=self.at_client(*ARMVM), env=env, **options)

    def armvm_there(self, *words: str | Path, **options: Any) -> Result:
        """Run armvm on the host itself, as somebody who sits there and has files of his own."""
        homes = {f"XDG_{kind}_HOME": str(self.work / f"there-{kind}") for kind in _HOMES}
        env = {**homes, "ARMVM_CONNECT": "qemu:///system", **options.pop("env", {})}
        return armvm(*words, prefix=self.at_host(*ARMVM), env=env, **options)

    def at_client(self, *words: str | Path) -> list[str]:
        """Return a command that runs *words* at the client."""
        return ["nsenter", "-t", str(self.client), "-m", "-n", "--", *map(str, words)]

    def at_host(self, *words: str | Path) -> list[str]:
        """Return a command that runs *words* on the host."""
        return [
            "nsenter",
            "-t",
            str(self.pid),
            "-m",
            "-n",
            "-p",
            "-u",
            "-i",
            "--",
            *map(str, words),
        ]

    def client_runs(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program at the client to its end."""
        return _run(self.at_client(*words), env=environment(**self.env), **options)

    def host_runs(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program on the host to its end."""
        return _run(self.at_host(*words), **options)

    def log(self) -> str:
        """Return what the host's daemons have said."""
        return "".join(path.read_text(errors="replace") for path in self.work.glob("log/*.log"))


@contextmanager
def other_host(work: Path) -> Iterator[OtherHost]:
    """Start a host and a client, and end both with all that runs there."""
    sshd, env = find_sshd()
    _configure(work)
    with contextlib.ExitStack() as stack:
        words = ["bash", _SCRIPT, work, sshd, CLIENT]
        pid = stack.enter_context(namespaces("-m", "-p", "-n", "-u", "-i", words=words, env=env))
        words = ["bash", "-c", _CLIENT, "client", work]
        client = stack.enter_context(namespaces("-m", "-p", "-n", words=words))
        runtime = work / "run"
        runtime.mkdir(mode=0o700)
        homes = {f"XDG_{kind}_HOME": str(work / kind) for kind in _HOMES}
        host = OtherHost(
            pid=pid, client=client, work=work, env={**homes, "XDG_RUNTIME_DIR": str(runtime)}
        )
        _connect(host)
        (work / "linked").touch()
        _until_it_answers(host)
        yield host


_CLIENT = """\
mount --make-rprivate /
cp -a /etc "$1/client-etc"
cp "$1/ssh_config" "$1/client-etc/ssh/ssh_config"
cp "$1/hosts" "$1/client-etc/hosts"
mount --bind "$1/client-etc" /etc
ip link set lo up
sleep infinity
"""


def _configure(work: Path) -> None:
    """Write keys and configuration of sshd and of the client's ssh."""
    (work / "ssh").mkdir()
    for name in ("host", "client"):
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "ssh" / name])
    public = (work / "ssh/host.pub").read_text()
    (work / "known_hosts").write_text(f"lab {public}[lab]:2222 {public}")
    (work / "hosts").write_text(f"127.0.0.1 localhost\n{HOST} lab\n")
    (work / "ssh_config").write_text(
        f"Host lab\n  IdentityFile {work}/ssh/client\n  UserKnownHostsFile {work}/known_hosts\n"
    )
    (work / "ssh/sshd_config").write_text(
        f"Port 22\nPort 2222\nListenAddress {HOST}\nHostKey {work}/ssh/host\n"
        f"AuthorizedKeysFile {work}/ssh/client.pub\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        "Match LocalPort 2222\n  AllowTcpForwarding no\n"
    )


@contextmanager
def namespaces(
    *kinds: str, words: list[Any], env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a command in new namespaces; yield the id of its first process.

    All that runs there ends with the block, and with the process that tests.
    """
    outer = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", *kinds, "--fork", "--kill-child", *words],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        yield int(_until(lambda: outer.poll() is None and children.read_text().split())[0])
    finally:
        outer.kill()
        outer.wait()


def _connect(host: OtherHost) -> None:
    """Lay the cable. It lies between the two alone: no interface of this machine has a part."""
    words = f"link add lab0 type veth peer name lab0 netns {host.pid}"
    _until(lambda: _run(["nsenter", "-t", str(host.client), "-n", "ip", "link"]).stdout)
    _run(["nsenter", "-t", str(host.client), "-n", "ip", *words.split()])
    for pid, address in ((host.client, CLIENT), (host.pid, HOST)):
        inside = ["nsenter", "-t", str(pid), "-n", "ip"]
        _run([*inside, "address", "add", f"{address}/30", "dev", "lab0"])
        _run([*inside, "link", "set", "lab0", "up"])


def _until_it_answers(host: OtherHost) -> None:
    end = time.monotonic() + 60
    while True:
        done = host.client_runs("virsh", "-c", URI, "uri", check=False)
        if done.returncode == 0:
            return
        assert time.monotonic() < end, f"{done.stderr}\n{host.log()}"
        time.sleep(0.2)


def _until(what: Any) -> Any:
    end = time.monotonic() + 20
    while not (value := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def _run(words: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"check": True, "timeout": 60, **options}
    return subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        **options,
    )
