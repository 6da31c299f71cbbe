"""Commands through a clone's channel: both ends for real, joined by a socket."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from armvm.base.errors import CommandFailed, ConfigError, NotFound
from armvm.guest.agents import clone_identity
from armvm.guest.agents.command_script import check_words
from armvm.guest.agents.command_server import HEADER, MARK, WINDOW, eject, find_disk
from armvm.host.console.terminal import Wake
from armvm.provision.access import channel_command
from armvm.provision.access.channel_command import Command, NoDisk, feed_from

ME = "root" if os.getuid() == 0 else os.environ.get("USER", "root")


class Socket:
    """A channel's stream over a socket, with the three calls of libvirt's."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, data: bytes) -> int:
        return self.end.send(data)

    def recv(self, size: int) -> bytes:
        return self.end.recv(size)


class Guest:
    """A guest's server on one channel."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.stream = Socket(ours)
        text = clone_identity.program().rpartition("if __name__")[0]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", f"{text}\nserve(Channel({theirs.fileno()}))"],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def run(self, *words: str, user: str = ME, **more: Any) -> tuple[int, bytes, bytes]:
        out: list[bytes] = []
        err: list[bytes] = []
        options = {key: more.pop(key) for key in ("feed", "timeout", "alive") if key in more}
        code = channel_command.converse(
            self.stream,
            "vm",
            Command(words=words, user=user, **more),
            stdout=out.append,
            stderr=err.append,
            **{"feed": None, **options},
        )
        return code, b"".join(out), b"".join(err)

    def close(self) -> None:
        self.stream.end.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def guest() -> Iterator[Guest]:
    one = Guest()
    yield one
    one.close()


def feed(data: bytes) -> Callable[[IO[bytes]], object]:
    return lambda out: out.write(data)


def test_output_error_output_and_exit_code(guest: Guest) -> None:
    assert guest.run("sh", "-c", "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_commands_follow_each_other_on_one_channel(guest: Guest) -> None:
    for number in range(20):
        assert guest.run("sh", "-c", f"echo {number}; exit {number}") == (
            number, b"%d\n" % number, b"",
        )  # fmt: skip


def test_arguments_arrive_unchanged(guest: Guest) -> None:
    words = ["", " ", "a b", "'", '"', "$HOME", "*", "\n", "ä", os.fsdecode(b"\xff"), "-n", "\\"]
    _, out, _ = guest.run("printf", "%s\\0", *words)
    assert out == b"".join(os.fsencode(word) + b"\0" for word in words)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_128_and_its_number(guest: Guest, number: int) -> None:
    assert guest.run("sh", "-c", f"kill -{int(number)} $$")[0] == 128 + number


def test_a_command_that_cannot_run(guest: Guest, tmp_path: Path) -> None:
    assert guest.run("/no/such/program") == (
        127,
        b"",
        b"armvm: /no/such/program: No such file or directory\n",
    )
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert guest.run(str(plain))[0] == 126


def test_input_of_any_size_comes_back(guest: Guest) -> None:
    data = random.Random(0).randbytes(3 * WINDOW + 17)
    code, out, _ = guest.run("cat", feed=feed(data))
    assert code == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_input_that_nobody_reads(guest: Guest) -> None:
    assert guest.run("true", feed=feed(bytes(3 * WINDOW)))[0] == 0


def test_input_that_is_read_in_part(guest: Guest) -> None:
    assert guest.run("sh", "-c", "head -c 5; exit 3", feed=feed(b"12345" * WINDOW)) == (
        3,
        b"12345",
        b"",
    )


def test_no_input_is_its_end(guest: Guest) -> None:
    assert guest.run("cat") == (0, b"", b"")


def test_a_slow_reader_of_one_output_loses_nothing(guest: Guest) -> None:
    parts: list[bytes] = []

    def slowly(data: bytes) -> None:
        time.sleep(0.01)
        parts.append(data)

    code = channel_command.converse(
        guest.stream, "vm", Command(words=["head", "-c", "4000000", "/dev/zero"], user=ME),
        feed=None, stdout=slowly, stderr=parts.append,
    )  # fmt: skip
    assert (code, len(b"".join(parts))) == (0, 4_000_000)


def test_a_child_that_keeps_the_output_open_is_not_waited_for(guest: Guest) -> None:
    begun = time.monotonic()
    assert guest.run("sh", "-c", "echo first; sleep 60 & exit 4") == (4, b"first\n", b"")
    assert time.monotonic() - begun < 30


def test_the_environment_of_a_login(guest: Guest) -> None:
    _, out, _ = guest.run("env", variables={"A": "b c", "PATH": "/usr/bin:/bin"})
    found = dict(line.split("=", 1) for line in out.decode().splitlines() if "=" in line)
    assert found["A"] == "b c"
    assert found["PATH"] == "/usr/bin:/bin"
    assert found["LOGNAME"] == found["USER"] == ME
    assert found["HOME"] == str(Path(f"~{ME}").expanduser())


def test_the_directory(guest: Guest, tmp_path: Path) -> None:
    home = str(Path(f"~{ME}").expanduser())
    assert guest.run("pwd")[1].decode().strip() == str(Path(home).resolve())
    assert guest.run("pwd", directory=str(tmp_path))[1].decode().strip() == str(tmp_path)
    code, _, err = guest.run("pwd", directory="/no/such")
    assert (code, err) == (127, b"armvm: /no/such: No such file or directory\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_another_user(guest: Guest) -> None:
    script = "id -u; id -G; umask; echo >/dev/stdout; : >/dev/stderr"
    code, out, _ = guest.run("sh", "-c", script, user="nobody", directory="/")
    assert (code, out) == (0, b"65534\n65534\n0022\n\n")


def test_an_unknown_user(guest: Guest) -> None:
    with pytest.raises(NotFound, match="'nobody-here' not found in vm"):
        guest.run("true", user="nobody-here")
    assert guest.run("true")[0] == 0


def test_a_terminal(guest: Guest) -> None:
    script = (
        "trap 'stty size; exit 5' WINCH; stty size; echo $TERM; tty; while :; do sleep 0.1; done"
    )
    shown: list[bytes] = []
    wake = Wake()

    def show(data: bytes) -> None:
        shown.append(data)
        wake()

    code = channel_command.converse(
        guest.stream,
        "vm",
        Command(words=["sh", "-c", script], user=ME, rows=24, columns=80, term="vt100"),
        feed=None,
        stdout=show,
        stderr=show,
        size=lambda: (40, 100) if b"/dev/pts/" in b"".join(shown) else (24, 80),
        wake=wake,
    )
    lines = b"".join(shown).decode().split()
    assert code == 5
    assert lines[:3] == ["24", "80", "vt100"]
    assert lines[3].startswith("/dev/pts/")
    assert lines[-2:] == ["40", "100"]


def test_keys_on_a_terminal_are_signals(guest: Guest) -> None:
    ready = threading.Event()

    def interrupt(out: IO[bytes]) -> None:
        assert ready.wait(60)
        out.write(b"\x03")

    code = channel_command.converse(
        guest.stream,
        "vm",
        Command(words=["sh", "-c", "echo ready; exec sleep 60"], user=ME, rows=24, columns=80),
        feed=interrupt,
        stdout=lambda _data: ready.set(),
        stderr=bytes,
    )
    assert code == 128 + signal.SIGINT


def test_a_time_limit_ends_the_command(guest: Guest, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(CommandFailed, match="timed out after 4 s"):
        guest.run("sh", "-c", f"echo $$ >{pid}; exec sleep 60", timeout=4.0)
    guest.stream.end.shutdown(socket.SHUT_RDWR)  # as `execute` does on an error
    assert ended(int(pid.read_text()))


def test_a_host_that_hangs_up_ends_the_command(guest: Guest, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ >{pid}; while :; do sleep 1; done"
    request = {"command": ["sh", "-c", script], "user": ME}
    guest.stream.send(MARK + json.dumps(request).encode() + b"\n")
    for _ in range(600):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.1)
    guest.stream.end.shutdown(socket.SHUT_RDWR)
    assert ended(int(pid.read_text()))


def ended(pid: int) -> bool:
    """Wait up to 20 s for a process to end."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\0\xff\n",
        b"{}\n",
        HEADER.pack(b"i", 100) + b"half",
        b'\x1e{"command": [',
        b"\x1enull\n",
        b"\x1e[1]\n",
    ],
)
def test_what_is_left_of_an_earlier_host_does_not_matter(guest: Guest, rest: bytes) -> None:
    guest.stream.send(rest)
    assert guest.run("echo", "well") == (0, b"well\n", b"")


@pytest.mark.parametrize(
    "answer",
    [
        b"x" * 5000,
        b"nonsense\n",
        b"[]\n",
        b'{"pid": "a"}\n',
        b'{"pid": Infinity}\n',
        b'{"pid": 1}\n' + HEADER.pack(b"o", 1 << 30),
        b'{"pid": 1}\n' + HEADER.pack(b"?", 0),
        b'{"pid": 1}\n' + HEADER.pack(b"x", 9) + b"123456789",
        b'{"pid": 1}\n' + HEADER.pack(b"a", 1) + b"1",
        b'{"pid": 1}\n' + HEADER.pack(b"d", 8) + bytes(8),
        b'{"pid": 1}\n' + HEADER.pack(b"o", 5) + b"cut",
    ],
)
def test_a_hostile_guest_is_an_error_of_ours(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises(CommandFailed):
        channel_command.converse(
            Socket(ours), "vm", Command(words=["true"], user=ME),
            feed=None, stdout=bytes, stderr=bytes,
        )  # fmt: skip


@pytest.mark.parametrize("answer", [b'{"error": "disk"}\n', b'{"pid": 1}\n'])
def test_a_guest_without_the_disk(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    with ours, theirs, pytest.raises(NoDisk, match="did not find the disk"):
        channel_command.converse(
            Socket(ours), "vm", Command(words=["true"], user=ME, disk="1"),
            feed=None, stdout=bytes, stderr=bytes,
        )  # fmt: skip


def test_a_disk_that_never_appears(tmp_path: Path) -> None:
    (tmp_path / "vda").mkdir()
    (tmp_path / "vda" / "serial").write_text("other")
    (tmp_path / "loop0").mkdir()
    assert find_disk("wanted", patience=0, block=str(tmp_path)) is None


def test_a_disk_is_found_by_its_serial_number(tmp_path: Path) -> None:
    for name, serial in (("vda", ""), ("vdb", "other"), ("vdc", "wanted")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "serial").write_text(f"{serial}\n")
    assert find_disk("wanted", patience=0, block=str(tmp_path)) == "vdc"


def test_only_the_slot_of_the_disk_is_powered_off(tmp_path: Path) -> None:
    device = tmp_path / "0000:09:00.0" / "virtio3"
    device.mkdir(parents=True)
    (tmp_path / "block" / "vdc").mkdir(parents=True)
    (tmp_path / "block" / "vdc" / "device").symlink_to(device)
    for slot, address in (("0-7", "0000:08:00"), ("0-8", "0000:09:00")):
        (tmp_path / "slots" / slot).mkdir(parents=True)
        (tmp_path / "slots" / slot / "address").write_text(f"{address}\n")
        (tmp_path / "slots" / slot / "power").write_text("1")
    eject("vdc", block=str(tmp_path / "block"), slots=str(tmp_path / "slots"))
    powers = [(tmp_path / "slots" / slot / "power").read_text() for slot in ("0-7", "0-8")]
    assert powers == ["1", "0"]


def test_a_guest_that_lets_the_channel_go_is_not_waited_for(guest: Guest) -> None:
    with pytest.raises(CommandFailed, match="was closed before the command ended"):
        guest.run("sleep", "60", alive=lambda: False)


def test_an_output_that_fails_is_raised(guest: Guest) -> None:
    def full(_data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        channel_command.converse(
            guest.stream, "vm", Command(words=["yes"], user=ME), feed=None, stdout=full, stderr=full
        )


def test_an_input_that_fails_is_raised(guest: Guest) -> None:
    def broken(_out: IO[bytes]) -> None:
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        guest.run("cat", feed=broken)


def test_a_files_bytes_are_sent(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        assert guest.run("cat", feed=feed_from(file.fileno()))[1] == b"abc"
    assert feed_from(None) is None


def test_a_zero_byte_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ConfigError, match="zero byte"):
        check_words(["a\0b"])


def test_two_channels_at_once() -> None:
    guests = [Guest(), Guest()]
    results: list[tuple[int, bytes, bytes]] = []
    threads = [
        threading.Thread(
            target=lambda one=one: results.append(one.run("sh", "-c", "sleep 1; echo x"))
        )
        for one in guests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in guests:
        one.close()
    assert results == [(0, b"x\n", b"")] * 2
