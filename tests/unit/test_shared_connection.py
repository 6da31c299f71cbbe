"""The shared ssh connection to a machine, by a real ssh and a real sshd in the guest's place."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from armvm.base import process
from armvm.base.paths import data_dir
from armvm.guest.agents.ssh_script import FAILED
from armvm.guest.cloudinit.credentials import own_key
from armvm.host.domain.instance import Instance
from armvm.provision.access.quick_login import quick_login
from armvm.provision.access.ssh import Endpoint, open_shared, shared_socket, ssh_command
from armvm.provision.access.ssh_config import _ASKING
from armvm.provision.launch.run_commands import guest_words, run_in
from armvm.provision.machine import shared_connection
from armvm.provision.machine.shared_connection import SESSIONS, is_alive, recall, retire, session
from tests.ssh_tools import Server, server
from tests.support import environment
from tests.unit.host_tools import IDENTITY, INSTANCE, RECORD

URI = "qemu:///system"


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """A machine as armvm knows it, where its ssh server is, and the socket of its connection."""

    instance: Instance
    where: Endpoint
    server: Server
    path: Path

    def open(self) -> Endpoint:
        """Open the shared connection, and return the endpoint with it."""
        done = open_shared(self.instance, self.where, self.path, batch=True)
        assert done is not None
        assert (done.returncode, done.stderr) == (0, b"")
        return replace(self.where, shared=self.path)

    def run(self, where: Endpoint, command: str) -> process.Completed:
        words = ssh_command(self.instance, where, [command], batch=True)
        return process.run(words, check=False, timeout=60)

    def connections(self) -> int:
        """Return how often somebody has logged in."""
        return self.server.log.read_text().count("Accepted publickey")


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Path) -> Iterator[Sshd]:
    for kind in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    with server(tmp_path) as running:
        running.authorized.write_text(own_key(data_dir())[1] + "\n")
        record = replace(RECORD, user=getpass.getuser(), host_key=running.host_key, own_key=True)
        instance = replace(INSTANCE, uuid=IDENTITY.uuid, record=record)
        path = shared_socket(URI, instance)
        assert path is not None
        try:
            yield Sshd(
                instance=instance,
                where=Endpoint(host="127.0.0.1", port=running.port),
                server=running,
                path=path,
            )
        finally:
            shared_connection.close(instance.uuid)


def master_of(path: Path) -> int:
    """Return the process that listens on a socket, by ssh's own account."""
    words = ["ssh", "-F", "none", "-S", str(path), "-O", "check", "x"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    return int(told.partition("pid=")[2].partition(")")[0])


def ended(pid: int) -> bool:
    """Wait until a process has ended."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_one_login_serves_many_commands(guest: Sshd) -> None:
    where = guest.open()
    for number in range(3):
        assert is_alive(guest.path)
        done = guest.run(where, f"echo {number}; exit {number}")
        assert (done.returncode, done.text, done.stderr) == (number, f"{number}\n", b"")
    assert guest.connections() == 1
    guest.open()
    assert guest.connections() == 1
    assert guest.run(guest.where, "true").returncode == 0
    assert guest.connections() == 2


def test_the_end_of_a_command_is_the_same_as_without_it(guest: Sshd) -> None:
    where = guest.open()
    for script, code in (("kill -KILL $$", 137), ("kill -INT $$", 130), ("exit 7", 7)):
        kept: list[bytes] = []
        trouble: list[bytes] = []
        words = guest_words(["sh", "-c", f"echo here; {script}"], ())
        outputs = (kept.append, trouble.append)
        assert run_in(guest.instance, where, words, outputs=outputs) == code
        assert b"".join(kept) == b"here\n"
    assert guest.connections() == 1


def test_a_check_needs_the_server_and_not_only_the_master(guest: Sshd) -> None:
    """The server is stopped, as a guest is after a reset: the master would still say yes."""
    guest.open()
    pids = sessions_of(guest.server)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared_connection, "ALIVE_TIMEOUT", 0.5)
            begun = time.monotonic()
            assert not is_alive(guest.path)
            assert 0.4 < time.monotonic() - begun < 5
        assert not guest.path.exists(), "no command uses it any more"
        assert guest.run(guest.open(), "true").returncode == 0
        assert guest.connections() == 2
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def sessions_of(running: Server) -> list[int]:
    """Return the processes of an sshd that serve its connections."""
    words = ["ss", "-Htnp", f"sport = :{running.port}"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [int(one.split(",")[0]) for one in told.split("pid=")[1:]]


def test_a_slow_server_loses_no_command_that_runs(guest: Sshd, tmp_path: Path) -> None:
    where = guest.open()
    words = ssh_command(guest.instance, where, ["echo up; read line; echo $line"], batch=True)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        master = master_of(guest.path)
        pids = sessions_of(guest.server)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared_connection, "ALIVE_TIMEOUT", 0.3)
            assert not is_alive(guest.path)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        running.stdin.write(b"still here\n")
        running.stdin.close()
        assert running.stdout.read() == b"still here\n"
        assert running.wait(20) == 0
    assert ended(master), "it has no more to do"


def test_an_ended_connection_is_replaced(guest: Sshd) -> None:
    guest.open()
    os.kill(master_of(guest.path), signal.SIGKILL)
    assert guest.path.exists(), "nobody was left to remove it"
    assert not is_alive(guest.path)
    assert guest.run(guest.open(), "true").returncode == 0
    assert guest.connections() == 2


def test_a_server_that_goes_ends_the_connection(guest: Sshd) -> None:
    guest.open()
    master = master_of(guest.path)
    for pid in sessions_of(guest.server):
        os.kill(pid, signal.SIGKILL)
    assert ended(master)
    assert not is_alive(guest.path)


def test_sockets_of_killed_masters_are_removed(guest: Sshd) -> None:
    other = shared_socket(URI, replace(guest.instance, uuid=IDENTITY.uuid.replace("1", "9")))
    assert other is not None
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(other))
    guest.open()
    assert not other.exists()
    assert guest.path.exists()


def test_a_check_changes_nothing_on_the_server(guest: Sshd) -> None:
    def listening() -> int:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", 22))

    guest.open()
    before, log = listening(), guest.server.log.read_text()
    for _ in range(3):
        assert is_alive(guest.path)
    end = time.monotonic() + 10  # root may listen there: that is undone
    while listening() != before:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert os.geteuid() == 0 or guest.server.log.read_text() == log


def test_other_machines_have_other_sockets(guest: Sshd) -> None:
    instance, record = guest.instance, guest.instance.record
    others = [
        shared_socket(URI, replace(instance, uuid=IDENTITY.uuid.replace("1", "9"))),
        shared_socket("qemu+ssh://lab/system", instance),
        shared_socket(URI, replace(instance, record=replace(record, host_key="ssh-ed25519 AA"))),
        shared_socket(URI, replace(instance, record=replace(record, user="other"))),
        shared_socket(URI, replace(instance, record=replace(record, own_key=False))),
    ]
    assert len({guest.path, *others}) == len(others) + 1
    assert shared_socket(URI, replace(instance, name="renamed")) == guest.path


def test_another_machine_at_the_same_port_is_not_reached(guest: Sshd, tmp_path: Path) -> None:
    """The first machine's connection is open, and the port leads to another one now."""
    guest.open()
    (tmp_path / "other").mkdir()
    with server(tmp_path / "other") as other:
        other.authorized.write_text(own_key(data_dir())[1] + "\n")
        record = replace(guest.instance.record, host_key=other.host_key)
        new = replace(guest.instance, uuid=IDENTITY.uuid.replace("1", "9"), record=record)
        path = shared_socket(URI, new)
        assert path is not None
        assert path != guest.path
        assert not is_alive(path)
        # A socket of the old name, and an endpoint that leads to the new one: the key is wrong.
        shared_connection.close(guest.instance.uuid)
        where = Endpoint(host="127.0.0.1", port=other.port)
        done = open_shared(guest.instance, where, guest.path, batch=True)
        assert done is not None
        assert done.returncode == FAILED
        assert b"verification failed" in done.stderr
        assert not guest.path.exists()


def test_to_close_ends_all_connections_of_a_machine_alone(guest: Sshd) -> None:
    guest.open()
    other = replace(guest.instance, uuid=IDENTITY.uuid.replace("1", "9"))
    path = shared_socket(URI, other)
    assert path is not None
    done = open_shared(other, guest.where, path, batch=True)
    assert done is not None
    try:
        master = master_of(guest.path)
        shared_connection.close(guest.instance.uuid, forget=True)
        assert ended(master)
        assert is_alive(path)
        left = {one.name for one in path.parent.iterdir()}
        assert left == {path.name, f"{path.name}.lock"}
    finally:
        shared_connection.close(other.uuid)


def test_a_retired_connection_ends_when_it_has_nothing_to_do(guest: Sshd) -> None:
    guest.open()
    master = master_of(guest.path)
    retire(guest.path)
    assert not guest.path.exists()
    assert ended(master)


def test_no_caller_waits_for_the_background(guest: Sshd) -> None:
    """What opens the connection has pipes, as in `armvm ssh … 2>&1 | cat`."""
    text = (
        "from tests.unit.test_shared_connection import opened_here; "
        f"opened_here({guest.where.port}, {guest.instance.record.host_key!r})"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert time.monotonic() - begun < 30
    assert is_alive(guest.path)


def opened_here(port: int, host_key: str) -> None:
    """Open the connection in this process."""
    record = replace(RECORD, user=getpass.getuser(), host_key=host_key, own_key=True)
    instance = replace(INSTANCE, uuid=IDENTITY.uuid, record=record)
    path = shared_socket(URI, instance)
    assert path is not None
    done = open_shared(instance, Endpoint(host="127.0.0.1", port=port), path, batch=True)
    assert done is not None
    assert done.returncode == 0


def test_of_two_that_open_it_at_once_one_goes_alone(guest: Sshd) -> None:
    with locked(guest.path):
        assert open_shared(guest.instance, guest.where, guest.path, batch=True) is None
    assert not guest.path.exists()
    guest.open()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for opening a connection, in another process."""
    script = (
        "import fcntl, sys\n"
        f"file = open({str(path) + '.lock'!r}, 'ab')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.communicate()


def test_more_commands_than_sshd_allows_get_their_own_connections(guest: Sshd) -> None:
    guest.open()
    script = (
        "import sys; from pathlib import Path; from armvm.provision.machine.shared_connection "
        "import session\n"
        f"with session(Path({str(guest.path)!r})) as free:\n"
        "    print(free, flush=True); sys.stdin.read()"
    )
    with ExitStack() as stack:
        told = []
        for _ in range(SESSIONS + 1):
            words = [sys.executable, "-c", script]
            one = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
            stack.enter_context(one)
            stack.callback(one.communicate)
            assert one.stdout is not None
            told.append(one.stdout.readline().strip())
    assert told == ["True"] * SESSIONS + ["False"]
    with session(guest.path) as free:
        assert free


def test_sshd_accepts_as_many_at_once(guest: Sshd) -> None:
    where = guest.open()
    words = ssh_command(guest.instance, where, ["read line"], batch=True)
    running = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(SESSIONS)
    ]
    for one in running:
        assert one.communicate(b"x\n", timeout=60)[1] == b""
        assert one.returncode == 0
    assert guest.connections() == 1


def test_ssh_connects_by_itself_if_the_connection_ends_in_between(guest: Sshd) -> None:
    where = guest.open()
    shared_connection.close(guest.instance.uuid)
    done = guest.run(where, "echo here")
    assert (done.returncode, done.text, done.stderr) == (0, "here\n", b"")


def test_the_directory_is_the_users_alone(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    instance = replace(INSTANCE, uuid=IDENTITY.uuid, record=replace(RECORD, own_key=False))
    path = shared_socket(URI, instance)
    assert path is not None
    assert path.parent == runtime / "armvm"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o755)
    other = shared_socket(URI, instance)
    assert other is None or other.parent == Path(f"/tmp/armvm-{os.geteuid()}")
    path.parent.rmdir()
    (runtime / "other").mkdir(mode=0o700)
    path.parent.symlink_to(runtime / "other")
    assert shared_socket(URI, instance) == other


def test_a_socket_whose_path_is_too_long_is_elsewhere(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    instance = replace(INSTANCE, uuid=IDENTITY.uuid, record=replace(RECORD, own_key=False))
    path = shared_socket(URI, instance)
    assert path is not None
    assert path.parent == Path(f"/tmp/armvm-{os.geteuid()}")
    assert len(str(path)) <= shared_connection.LONGEST


def remembered(guest: Sshd) -> list[str]:
    """Open the connection and remember it, as a login does; return ssh's words."""
    line = ssh_command(guest.instance, guest.open())
    shared_connection.remember(URI, "dev", guest.path, line)
    return line


def test_a_name_leads_to_its_connection_without_libvirt(guest: Sshd) -> None:
    line = remembered(guest)
    assert recall(URI, "dev") == (guest.path, line)
    assert recall(URI, "other") is None
    assert recall("qemu:///session", "dev") is None
    shared_connection.close(guest.instance.uuid)
    assert recall(URI, "dev") is None
    left = list(guest.path.parent.iterdir())
    assert [path.suffix for path in left] == [".lock"], "the record went with its socket"


def test_a_name_whose_machine_does_not_answer_is_asked_of_libvirt(
    guest: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be suspended: then libvirt says so, and the connection stays."""
    remembered(guest)
    monkeypatch.setattr(shared_connection, "PROMPT", 0.3)
    pids = sessions_of(guest.server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert recall(URI, "dev") is None
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert recall(URI, "dev") is not None
    assert guest.connections() == 1


def test_a_command_by_name_has_its_exit_code_and_its_output(
    guest: Sshd, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARMVM_CONNECT", URI)
    assert quick_login("dev", ["true"]) is None
    remembered(guest)
    assert quick_login("dev", ["echo here;", "exit 7"]) == (7, None)
    assert capfd.readouterr() == ("here\n", "")
    assert guest.connections() == 1


@pytest.mark.parametrize(
    ("options", "config", "alone"),
    [
        ([], "", False),
        (["-T", "-p", "22"], "Host *\n SendEnv LANG\n", False),
        (["-A"], "", True),
        (["-X"], "", True),
        (["-L", "8080:localhost:80"], "", True),
        (["-R", "8080:localhost:80"], "", True),
        (["-D", "1080"], "", True),
        (["-N"], "", True),
        (["-o", "ForwardAgent=yes"], "", True),
        ([], "Host *\n ForwardAgent yes\n", True),
        ([], "Host *\n LocalForward 8080 localhost:80\n", True),
        (["-l", "me"], "", False),
        (["-l", "root"], "", True),
        (["-o", "User=root"], "", True),
    ],
)
def test_the_users_ssh_shares_only_with_the_same_user_and_without_forwards(
    tmp_path: Path, options: list[str], config: str, alone: bool
) -> None:
    """Asked of ssh itself, by the condition in its configuration."""
    script = tmp_path / "asks"
    script.write_text(
        f"#!{sys.executable}\nfrom armvm.provision.access.ssh_config import _is_alone\n"
        f"open({str(tmp_path / 'told')!r}, 'a').write(str(_is_alone('me')) + ' ')\n"
    )
    script.chmod(0o755)
    file = tmp_path / "config"
    file.write_text(
        f'Match originalhost x exec "[ -z ${_ASKING} ] && {script}"\nHost x\n User me\n{config}'
    )
    root = str(Path(__file__).parents[2])
    subprocess.run(
        ["ssh", "-F", str(file), "-G", *options, "x"],
        check=True, capture_output=True, env=environment(PYTHONPATH=root), timeout=60,
    )  # fmt: skip
    assert (tmp_path / "told").read_text() == f"{alone} "
