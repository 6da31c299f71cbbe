"""A real sshd that stands for a guest, and an ssh whose files are a test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

#: The sshd that scripts/setup --dev unpacks where none is installed.
_UNPACKED = ROOT / ".venv/sshd"
#: sshd gives up its rights to this user.
_SSHD_USER = "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"


def find_sshd() -> tuple[Path, Mapping[str, str]]:
    """Return the path of sshd, and the environment that it needs."""
    installed = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if installed:
        return Path(installed), {}
    unpacked = _UNPACKED / "usr/sbin/sshd"
    assert unpacked.exists(), "no sshd: scripts/setup --dev unpacks one"
    libraries = ":".join(str(path.parent) for path in _UNPACKED.rglob("lib*.so.*"))
    return unpacked, {"LD_LIBRARY_PATH": libraries}


def at_home(home: Path, system_config: Path | None = None) -> list[str]:
    """Return the beginning of a command whose ssh has its files in *home*, as root.

    ssh asks the password database for it. *system_config* stands for /etc/ssh/ssh_config.
    """
    passwd = home / "passwd"
    if not passwd.exists():
        lines = [line for line in _passwd() if not line.startswith("root:")]
        passwd.write_text("".join([f"root:x:0:0:root:{home}:/bin/bash\n", *lines, _SSHD_USER]))
    binds = {
        passwd: "/etc/passwd",
        **({system_config: "/etc/ssh/ssh_config"} if system_config else {}),
    }
    script = "".join(f'mount --bind "$1" {place} && shift && ' for place in binds.values())
    return ["unshare", "--mount", "sh", "-c", f'{script}exec "$@"', "sh", *map(str, binds)]


def _passwd() -> list[str]:
    lines = Path("/etc/passwd").read_text().splitlines(keepends=True)
    return [line for line in lines if not line.startswith("sshd:")]


@dataclass(frozen=True, kw_only=True)
class Server:
    """An sshd: its port on the loopback, its host key, and a file of keys that may log in."""

    port: int
    host_key: str
    authorized: Path
    log: Path


def make_key(path: Path, kind: str = "ed25519") -> str:
    """Make a key pair, and return its public half."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text().strip()


@contextmanager
def server(work: Path, *lines: str) -> Iterator[Server]:
    """Run an sshd below *work*, with *lines* more in its configuration."""
    program, env = find_sshd()
    public = make_key(work / "host")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    authorized, log, config = work / "authorized", work / "log", work / "sshd_config"
    authorized.touch()
    config.write_text(
        "\n".join(
            [
                *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {work}/host"),
                *(f"AuthorizedKeysFile {authorized}", "PidFile none", "StrictModes no"),
                *("UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes"),
                *("Subsystem sftp internal-sftp", *lines, ""),
            ]
        )
    )
    words = [str(program), "-D", "-E", str(log), "-f", str(config)]
    if os.geteuid() == 0:
        # It gives up its rights to a user, in a directory: neither is there if it is unpacked only.
        home = work / "sshd-home"
        home.mkdir()
        run = 'mount -t tmpfs -o mode=755 run /run && mkdir /run/sshd && exec "$@"'
        words = [*at_home(home), "sh", "-c", run, "sh", *words]
    process = subprocess.Popen(words, env={**os.environ, **env})
    try:
        end = time.monotonic() + 20
        while "listening" not in (log.read_text() if log.exists() else ""):
            assert process.poll() is None, log
            assert time.monotonic() < end, log
            time.sleep(0.02)
        yield Server(
            port=port, host_key=" ".join(public.split()[:2]), authorized=authorized, log=log
        )
    finally:
        process.terminate()
        process.wait()
