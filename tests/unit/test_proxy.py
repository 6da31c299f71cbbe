"""Bytes between ssh and a guest's port, and the errors while its ssh server is not up."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from armvm.guest.boot.serial import Stage, cloud_init_finished, stage_of

_JOIN = """
import socket, sys
from armvm.provision.access import proxy
proxy.SILENCE = 1.0
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as server:
    print(proxy._join(server, 0, 2))
"""


def joined(serve: Callable[[socket.socket], None]) -> tuple[str, str]:
    """Join a program's standard input and error to a server; return what it tells, and the bytes.

    The input stays open, as ssh's does.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            there, _ = listening.accept()
            with there:
                serve(there)

        thread = Thread(target=run)
        thread.start()
        words = [sys.executable, "-c", _JOIN, str(listening.getsockname()[1])]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=Path(__file__).parents[2],
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            told, bytes_ = process.stdout.read(), process.stderr.read()
        thread.join()
    return told.strip(), bytes_


def reset(there: socket.socket) -> None:
    """End a connection as QEMU does where the guest refuses it."""
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("serve", "told"),
    [
        (reset, "(False, '[Errno 104] Connection reset by peer')"),
        (lambda there: None, "(False, None)"),
        (lambda there: there.recv(1), "(False, 'timed out after 1 s: no data')"),
    ],
    ids=["reset", "closed", "silent"],
)
def test_a_guest_without_an_ssh_server_is_told_from_a_lost_one(
    serve: Callable[[socket.socket], None], told: str
) -> None:
    assert joined(serve) == (told, "")


def test_a_server_that_spoke_may_be_lost(tmp_path: Path) -> None:
    def lost(there: socket.socket) -> None:
        there.sendall(b"SSH-2.0-x\r\n")
        os.sched_yield()
        there.recv(0)
        reset_later(there)

    def reset_later(there: socket.socket) -> None:
        there.settimeout(0.5)
        try:
            there.recv(1)
        except TimeoutError:
            reset(there)

    told, said = joined(lost)
    assert told == "(True, '[Errno 104] Connection reset by peer')"
    assert said == "SSH-2.0-x\n"


LOG = """\
UEFI firmware (version 2022.11)
[    0.000000] Booting Linux on physical CPU 0x0000000000
[    9.000000] systemd[1]: Detected architecture arm64.
[   30.000000] cloud-init[500]: Cloud-init v. 22.4.2 running 'init' at now
[   60.000000] cloud-init[900]: Cloud-init v. 22.4.2 finished at now
"""


@pytest.mark.parametrize("last", ["Restarting system", "Power down", "System halted"])
def test_a_boot_that_has_ended_is_not_shown_any_more(last: str) -> None:
    ended = f"{LOG}[   99.000000] reboot: {last}\n"
    assert cloud_init_finished(LOG)
    assert stage_of(LOG) is Stage.CLOUD_INIT
    assert stage_of(ended) is Stage.STARTED
    assert not cloud_init_finished(ended)
    assert stage_of(f"{ended}UEFI firmware (version 2022.11)\n") is Stage.FIRMWARE
