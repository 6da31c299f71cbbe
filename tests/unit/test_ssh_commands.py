"""The end of a command that ssh runs in a guest: exit code, signal, leftover processes.

The guest is this host, by a real sshd.
"""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from armvm.base import process
from armvm.base.paths import data_dir
from armvm.guest.agents.ssh_script import shell_line
from armvm.guest.cloudinit.credentials import own_key
from armvm.host.domain.instance import Instance
from armvm.provision.access.ssh import Endpoint, ssh_command
from armvm.provision.launch.run_commands import guest_words, run_in
from tests.ssh_tools import server
from tests.support import environment
from tests.unit.host_tools import IDENTITY, INSTANCE, RECORD


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """A machine as armvm knows it, and where its ssh server is."""

    instance: Instance
    where: Endpoint


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    work = tmp_path_factory.mktemp("sshd")
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("CACHE", "DATA", "CONFIG"):
            patch.setenv(f"XDG_{kind}_HOME", str(work / kind))
        with server(work) as running:
            running.authorized.write_text(own_key(data_dir())[1] + "\n")
            record = replace(
                RECORD, user=getpass.getuser(), host_key=running.host_key, own_key=True
            )
            yield Sshd(
                instance=replace(INSTANCE, uuid=IDENTITY.uuid, record=record),
                where=Endpoint(host="127.0.0.1", port=running.port),
            )


def run(
    guest: Sshd, *words: str, variables: tuple[str, ...] = (), directory: str | None = None
) -> tuple[int, bytes, bytes]:
    kept: tuple[list[bytes], list[bytes]] = [], []
    code = run_in(
        guest.instance,
        guest.where,
        guest_words(words, variables),
        directory=directory,
        outputs=(kept[0].append, kept[1].append),
    )
    return code, b"".join(kept[0]), b"".join(kept[1])


DEATHS = [("kill -KILL $$", 137), ("kill -SEGV $$", 139), ("kill -INT $$", 130), ("exit 7", 7)]


@pytest.mark.parametrize(("script", "code"), DEATHS)
def test_a_run_command_that_a_signal_ends_gives_128_and_its_number(
    guest: Sshd, script: str, code: int
) -> None:
    assert run(guest, "sh", "-c", f"echo here; {script}")[:2] == (code, b"here\n")


@pytest.mark.parametrize(("script", "code"), DEATHS)
def test_so_does_one_with_a_terminal(guest: Sshd, script: str, code: int) -> None:
    assert terminal_run(guest, ["sh", "-c", script]) == code


def terminal_run(guest: Sshd, words: list[str]) -> int:
    """Run a command as `run` does on a terminal."""
    pid, master = os.forkpty()
    if pid == 0:
        os._exit(run_in(guest.instance, guest.where, words))
    try:
        while True:
            try:
                if not os.read(master, 1 << 16):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(master)


@pytest.mark.parametrize(("script", "code"), DEATHS)
def test_so_does_one_of_ssh(guest: Sshd, script: str, code: int) -> None:
    """Also where the line is the login shell's own, as `armvm ssh -- 'kill -KILL $$'`."""
    words = ssh_command(guest.instance, guest.where, [shell_line(script)])
    assert process.passthrough(words) == code


def test_ssh_hands_its_line_to_the_users_shell(guest: Sshd) -> None:
    script = """printf '%s|' 'a  b' "c'd" $((1 + 1)) \\; # "$HOME\" comment"""
    direct = ssh_command(guest.instance, guest.where, [script + "\necho $SHLVL"])
    inside = ssh_command(guest.instance, guest.where, [shell_line(script + "\necho $SHLVL")])
    assert process.run(inside, check=False).stdout == process.run(direct, check=False).stdout


@pytest.mark.parametrize(
    "script",
    ["echo one\necho 'two", "echo a) ; (echo b", "exit 3", "false # (", "cat <<E\nx\nE",
     "echo a \\", "trap 'echo end' EXIT; echo it\\'s", "echo $0 $#", "echo $SHLVL", "if true"],
)  # fmt: skip
def test_a_line_means_what_it_means_to_sshd(guest: Sshd, script: str) -> None:
    direct, inside = (
        process.run(ssh_command(guest.instance, guest.where, [line]), check=False)
        for line in (script, shell_line(script))
    )
    assert inside.stdout == direct.stdout
    assert (inside.returncode == 0) == (direct.returncode == 0)
    assert bool(inside.stderr) == bool(direct.stderr)


@pytest.mark.parametrize("line", ["true", "kill -KILL $$", "x" * 5000, "it's"])
def test_another_shell_gets_the_line_too(line: str, tmp_path: Path) -> None:
    """One that reads no Bourne syntax: here, `sh` stands for any, as its name is not bash's."""
    sent = shell_line(line)
    words = ["env", "SHELL=/bin/sh", "/bin/sh", "-c", sent.replace("x" * 5000, "true")]
    code = subprocess.run(words, capture_output=True, check=False).returncode
    assert code == {"true": 0, "kill -KILL $$": 137, "it's": 2}.get(line, 0)


def test_processes_left_behind_are_not_waited_for(guest: Sshd, tmp_path: Path) -> None:
    """They hold the outputs, and go on: it is the command's end that counts."""
    begun = time.monotonic()
    script = f"sleep 300 & echo $! >{tmp_path}/pid; echo started; echo so >&2; exit 3"
    try:
        assert run(guest, "sh", "-c", script) == (3, b"started\n", b"so\n")
        assert time.monotonic() - begun < 60
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_all_that_the_command_wrote_comes_though_it_left_a_writer(
    guest: Sshd, tmp_path: Path
) -> None:
    script = f"yes >&2 & echo $! >{tmp_path}/pid; head -c 3000000 /dev/zero; printf end"
    try:
        code, out, _ = run(guest, "sh", "-c", script)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (code, len(out), out[-3:]) == (0, 3_000_003, b"end")


def test_words_variables_and_directory_reach_the_command(guest: Sshd, tmp_path: Path) -> None:
    place = tmp_path / "my src"
    place.mkdir()
    words = ["sh", "-c", 'pwd; printf "%s|" "$A" "$@"', "sh", "a b", "$HOME", "it's", ""]
    code, out, _ = run(guest, *words, variables=("A=b  c",), directory=str(place))
    assert (code, out.decode()) == (0, f"{place}\nb  c|a b|$HOME|it's||")
    assert run(guest, "no-such-program")[0] == 127
    assert run(guest, "pwd", directory="/no/such/place")[0] not in (0, 255)


_RUN = """
import signal, sys
from pathlib import Path
from armvm.base import process
def end(number, frame):
    raise SystemExit(128 + number)
signal.signal(signal.SIGINT, end)
write = lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush())
if sys.argv[1] == "relay":
    process.relay(sys.argv[2:], "MARK", (write, write))
else:
    process.passthrough(sys.argv[2:], interruptible=sys.argv[1] == "interruptible")
"""


@pytest.mark.parametrize("how", ["relay", "interruptible"])
def test_sigint_for_armvm_alone_ends_the_command(guest: Sshd, how: str) -> None:
    """As from a CI runner, which has no terminal and signals one process."""
    words = ssh_command(guest.instance, guest.where, ["echo here; exec sleep 300"])
    began = subprocess.Popen(
        [sys.executable, "-c", _RUN, how, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    with began:
        assert began.stdout is not None
        assert began.stdout.readline() == b"here\n"
        began.send_signal(signal.SIGINT)
        assert began.wait(30) == 130
        assert began.stdout.read() == b"", "and nobody holds its output any more"
