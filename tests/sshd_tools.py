"""A real sshd on this host's loopback in a guest's place: its shell, files and signals are real."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from armvm.guest.credentials import own_key
from armvm.host.instance import Instance
from armvm.host.metadata import Record
from armvm.paths import data_dir
from armvm.provision.ssh import Endpoint
from tests.ssh_tools import find_sshd

#: sshd gives up its rights to a user, in a directory; where it is only unpacked, there are none.
_AS_ROOT = """\
mount --make-rprivate /
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd
cp /etc/passwd "$1/passwd"
grep -q ^sshd: "$1/passwd" || echo sshd:x:65533:65534::/run/sshd:/bin/false >>"$1/passwd"
mount --bind "$1/passwd" /etc/passwd
shift
exec "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """A machine as armvm knows it, and where its ssh server is."""

    instance: Instance
    where: Endpoint


@contextmanager
def sshd(work: Path) -> Iterator[Sshd]:
    """Serve this user's logins, with armvm's own key; *work* is for keys and configuration."""
    program, env = find_sshd()
    key = work / "host"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = own_key(data_dir())[0].with_suffix(".pub")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = work / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {public}\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    words = [str(program), "-D", "-e", "-f", str(config)]
    if os.geteuid() == 0:
        words = ["unshare", "-m", "sh", "-c", _AS_ROOT, "sh", str(work), *words]
    with (
        (work / "sshd.log").open("w") as log,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stderr=log, env={**os.environ, **env}
        ) as server,
    ):
        try:
            _until_it_listens(port, work / "sshd.log")
            instance = _instance(" ".join(key.with_suffix(".pub").read_text().split()[:2]))
            yield Sshd(instance=instance, where=Endpoint(host="127.0.0.1", port=port))
        finally:
            server.terminate()


def _instance(host_key: str) -> Instance:
    return Instance(
        name="guest",
        uuid="6f0c3e8e-31ad-4c0e-9d65-8a1f3b1c7d2e",
        state="running",
        cpus=2,
        memory_mib=1024,
        network=None,
        mac=None,
        cpu="cortex-a57",
        accelerator="tcg",
        overlay=None,
        seed=None,
        serial_log=None,
        autostart=False,
        record=Record(
            version="1",
            created="2026-01-01T00:00:00+00:00",
            user=getpass.getuser(),
            host_key=host_key,
            instance_id="i",
            pool="default",
            own_key=True,
        ),
    )


def _until_it_listens(port: int, log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
