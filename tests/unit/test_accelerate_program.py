"""templates/accelerate.c, compiled for this host: its compilers are the host's cross compilers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from armvm.base.poll import until
from armvm.provision.accelerate import job, sandbox, service
from armvm.provision.accelerate.sandbox import include_directories
from armvm.provision.accelerate.store import Store
from tests.unit.test_accelerate import GCC, needs_compiler, open_to_others

pytestmark = needs_compiler
NAME = Path(GCC).name


@dataclass
class Program:
    """The program, in a mount namespace with a /run of its own."""

    path: Path
    run: Path
    said: list[str] = field(default_factory=list)

    def __call__(
        self, directory: Path, *words: str, session: bool = False, **env: str
    ) -> subprocess.CompletedProcess[str]:
        names = ["bwrap", "--dev-bind", "/", "/", "--bind", str(self.run), "/run", "--"]
        told = {key: value for key, value in os.environ.items() if key != "CPATH"}
        return subprocess.run(
            [*names, "env", *(f"{key}={value}" for key, value in env.items()), self.path, *words],
            cwd=directory,
            env=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            start_new_session=session,
        )

    def state(self, port: int, compilers: Sequence[str] = (GCC,)) -> None:
        stats = [Path(one).stat() for one in compilers]
        lines = [f"{one.st_size} {int(one.st_mtime)}\n" for one in stats]
        (self.run / "armvm-accelerate/on").write_text("".join([f"{port} {os.getuid()}\n", *lines]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / NAME
    subprocess.run(["gcc", "-O1", "-o", path, "templates/accelerate.c"], check=True)
    return path


@pytest.fixture
def program(built: Path, tmp_path: Path) -> Program:
    said = tmp_path / "run/armvm-accelerate/said"
    said.mkdir(parents=True)
    return Program(path=built, run=tmp_path / "run")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "x.h").write_text("#include <stdio.h>\n#define X 5\n")
    (root / "x.c").write_text('#include "x.h"\nint x(void) { int unused; return puts("x") + X; }\n')
    return root


@pytest.fixture
def served(program: Program, tmp_path: Path) -> Iterator[socket.socket]:
    """A service on a port of the loopback address, as ssh's is in a guest."""
    place = tmp_path / "service/store"
    place.mkdir(parents=True)
    open_to_others(place.parent)
    standard = include_directories(GCC, "c")
    compilers = job.Compilers(
        names={NAME: "c"},
        host={"c": os.path.realpath(GCC)},
        standard={"c": standard},
        hidden=standard,
    )
    store, slots = Store(directory=place), threading.Semaphore(2)

    def accept() -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            arguments = (one, compilers, store, slots, program.said.append)
            threading.Thread(target=job.serve, args=arguments).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        program.state(listening.getsockname()[1])
        try:
            yield listening
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(30)


@pytest.mark.usefixtures("served")
def test_a_compile_step_is_the_hosts_and_the_rest_the_guests(
    program: Program, project: Path
) -> None:
    words = "-Wall -O2 -g -MD -c x.c -o made.o".split()
    subprocess.run([GCC, *words], cwd=project, check=True, capture_output=True)
    own = {name: (project / name).read_bytes() for name in ("made.o", "made.d")}
    (project / "made.d").unlink()
    (project / "made.o").chmod(0o400)
    result = program(project, *words, ARMVM_ACCELERATE="only")
    assert result.returncode == 0, result.stderr
    assert "unused variable" in result.stderr
    assert {name: (project / name).read_bytes() for name in own} == own
    assert (project / "made.o").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    until(lambda: len(program.said) == 1, timeout=20, interval=0.05, late=TimeoutError)
    result = program(project, "-E", "x.c")
    assert "int x(void)" in result.stdout
    assert len(program.said) == 1


@pytest.mark.usefixtures("served")
def test_the_working_directory_has_the_name_that_gcc_uses(program: Program, project: Path) -> None:
    """A shell's $PWD leads through the links that the user named; debug information has it."""
    link = project.parent / "link"
    link.symlink_to(project)
    for named in (link, project, "/"):
        words = f"cd '{link}' && PWD='{named}' && export PWD && exec {{}} -g -c x.c -o made.o"
        subprocess.run(["sh", "-c", words.format(GCC)], check=True, cwd=link)
        own = (project / "made.o").read_bytes()
        result = program(
            link, *"-g -c x.c -o made.o".split(), ARMVM_ACCELERATE="only", PWD=str(named)
        )
        assert result.returncode == 0, result.stderr
        assert (project / "made.o").read_bytes() == own


@pytest.mark.usefixtures("served")
def test_a_header_that_cannot_be_looked_for_is_the_guests(program: Program, project: Path) -> None:
    (project / "a").mkdir()
    (project / "a/y.h").symlink_to("y.h")
    (project / "y.h").write_text("#define Y\n")
    (project / "x.c").write_text("#include <y.h>\nint x;\n")
    result = program(project, *"-Ia -I. -c x.c".split(), ARMVM_ACCELERATE="only")
    assert "is not a file" in result.stderr


@pytest.mark.usefixtures("served")
def test_what_the_host_declines_is_compiled_in_the_guest(program: Program, project: Path) -> None:
    result = program(project, "-c", "x.c", "-fstack-usage")
    assert (result.returncode, result.stderr) == (0, "")
    assert (project / "x.su").exists()
    result = program(project, "-c", "x.c", "-fstack-usage", ARMVM_ACCELERATE="only")
    assert (result.returncode, result.stderr) == (
        125,
        "armvm accelerate: option -fstack-usage\n",
    )
    (project / "x.c").write_text("int x(void) { return missing; }\n")
    result = program(project, "-c", "x.c")
    assert result.returncode == 1
    assert "x.c:1:22: error: ‘missing’ undeclared" in result.stderr.replace("'", "‘").replace(
        "‘missing‘", "‘missing’"
    )
    result = program(project, "-c", "x.c", CPATH="/tmp", ARMVM_ACCELERATE="only")
    assert "a variable such as CPATH is set" in result.stderr


def test_a_host_that_is_gone_costs_one_line_for_each_build(program: Program, project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    program.state(port)
    line = "armvm accelerate: the host does not answer; compiling in the guest\n"
    results = [program(project, "-c", "x.c") for _ in range(2)]
    results.append(program(project, "-c", "x.c", session=True))
    assert [(one.returncode, one.stderr) for one in results] == [(0, line), (0, ""), (0, line)]
    assert (project / "x.o").exists()


def test_a_host_that_goes_in_the_middle_leaves_a_good_object(
    program: Program, project: Path
) -> None:
    """The service answers the greeting, asks a question, and is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        program.state(listening.getsockname()[1])

        def answer(sent: bytes) -> None:
            one, _ = listening.accept()
            with one:
                one.recv(4096)
                one.sendall(sent)

        for sent in (
            b"",
            b"S",
            b"S\0\0\0\4/x\0",
            b"W\0\0\0\7x.o\0abc",
            b"W\0\0\1\0x",
            b"Z\0\0\0\0",
        ):
            thread = threading.Thread(target=answer, args=(sent,))
            thread.start()
            result = program(project, "-c", "x.c", session=True)
            thread.join(30)
            assert result.returncode == 0, (sent, result.stderr)
            kind = subprocess.run(["file", "-b", project / "x.o"], capture_output=True, text=True)
            assert not shutil.which("file") or "relocatable, ARM aarch64" in kind.stdout, sent


def test_a_host_that_does_not_answer_is_not_waited_for(
    program: Program, project: Path, tmp_path: Path
) -> None:
    text = Path("templates/accelerate.c").read_text()
    assert int(text.partition("#define PATIENCE ")[2].split()[0]) > sandbox.PATIENCE
    impatient = tmp_path / NAME
    words = ["gcc", "-O1", "-DPATIENCE=1", "-o", str(impatient), "templates/accelerate.c"]
    subprocess.run(words, check=True)
    program = replace(program, path=impatient)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        program.state(listening.getsockname()[1])
        result = program(project, "-c", "x.c")
    assert result.returncode == 0
    assert "the host has gone; compiling in the guest" in result.stderr
    assert (project / "x.o").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
def test_another_user_of_the_guest_is_no_service(program: Program, project: Path) -> None:
    code = (
        "import socket; here = socket.create_server(('127.0.0.1', 0))\n"
        "print(here.getsockname()[1], flush=True); one, _ = here.accept()\n"
        "one.sendall(b'W\\0\\0\\0\\7x.o\\0abcX\\0\\0\\0\\1' + b'0'); one.recv(9999)\n"
    )
    words = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd="/", text=True) as hostile:
        try:
            assert hostile.stdout is not None
            program.state(int(hostile.stdout.readline()))
            result = program(project, "-c", "x.c")
            assert result.returncode == 0
            assert "the host does not answer" in result.stderr
            assert (project / "x.o").stat().st_size > 100
        finally:
            hostile.kill()


def test_another_compiler_is_not_the_one_that_was_proved(program: Program, project: Path) -> None:
    program.state(1, compilers=("/usr/bin/true",))
    result = program(project, "-c", "x.c")
    assert result.returncode == 0
    assert "the compiler has changed" in result.stderr
    (program.run / "armvm-accelerate/on").unlink()
    result = program(project, "-c", "x.c", session=True)
    assert (result.returncode, result.stderr) == (0, "")
    result = program(project, "-c", "x.c", ARMVM_ACCELERATE="only")
    assert (result.returncode, result.stderr) == (125, "armvm accelerate: off\n")


def current_umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.parametrize("way", ["ssh ends", "asked", "killed"])
def test_the_service_ends_with_its_connection(tmp_path: Path, way: str) -> None:
    """The real background process; a program that lives for a while stands for ssh."""
    place, pidfile = tmp_path / "service", tmp_path / "ssh.pid"
    place.mkdir()
    seconds = "2" if way == "ssh ends" else "300"
    told = ["sh", "-c", f"echo $$ >'{pidfile}'; exec sleep {seconds}"]
    empty = job.Compilers(names={}, host={}, standard={}, hidden=())
    pid = service.start(place, told, empty, tmp_path / "log")
    soon(lambda: service.running(place) == pid)
    soon(lambda: pidfile.exists() and pidfile.read_text())
    for name in (service.SOCKET, service.PID, service.SETTINGS):
        assert (place / name).stat().st_mode & 0o777 == 0o600
    ssh = int(pidfile.read_text())
    if way != "ssh ends":
        os.kill(pid, signal.SIGKILL if way == "killed" else signal.SIGTERM)
    soon(lambda: service.running(place) is None)
    assert os.waitpid(pid, 0)[0] == pid
    soon(lambda: ended(ssh))
    assert place.exists() == (way == "killed")


def test_a_guest_decides_little_of_the_log(tmp_path: Path) -> None:
    place, log = tmp_path / "service", tmp_path / "log"
    place.mkdir()
    compilers = job.Compilers(names={"gcc": "c"}, host={}, standard={}, hidden=())
    pid = service.start(place, ["sleep", "300"], compilers, log)
    try:
        soon(lambda: service.running(place) == pid and (place / service.SOCKET).exists())
        for words in (
            [b"/", b"", b"", b"gcc", b"-X\xe9\x1b]0;title\x07\nanother line"],
            [b"/", b"", b"", b"gcc", b"-c", b"a" * 1_000_000 + b".c"],
            [b"/", b"", b"", b"gcc", b"-c", b"b.c", b"-o", b"c" * 1_000_000],
        ):
            with socket.socket(socket.AF_UNIX) as guest:
                soon(lambda: connected(guest, place))
                told = [struct.pack(">I", len(one)) + one for one in words]
                guest.sendall(b"ARMVMCC1" + struct.pack(">I", len(words)) + b"".join(told))
                assert guest.makefile("rb").read()
        soon(lambda: log.read_text().count("declined: ") == 3)
        lines = log.read_text().splitlines()
        assert len(lines) == 3
        assert all(one.isprintable() and len(one) <= service.LONGEST_LINE for one in lines)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def connected(guest: socket.socket, place: Path) -> bool:
    try:
        guest.connect(str(place / service.SOCKET))
    except ConnectionRefusedError:
        return False
    return True


def test_a_log_has_an_end(capfd: pytest.CaptureFixture[str]) -> None:
    log = service.logger()
    for _ in range(5000):
        log("\N{GRINNING FACE}" * 10_000)
    told = capfd.readouterr().out
    assert service.MOST_LOGGED - 3000 < len(told.encode()) <= service.MOST_LOGGED


@pytest.mark.parametrize("lack", ["threads", "files"])
def test_a_service_without_threads_or_files_recovers(tmp_path: Path, lack: str) -> None:
    """In a process of its own, whose limits change."""
    code = f"""
import resource, socket, sys, threading, time
from armvm.provision.accelerate import service

listening = socket.socket(socket.AF_UNIX)
listening.bind({str(tmp_path / "s")!r})
listening.listen(8)
first = socket.socket(socket.AF_UNIX)  # the service's files have higher numbers
said = []
arguments = (listening, threading.Semaphore(1), lambda one: one.close(), said.append)
threading.Thread(target=service.accept, args=arguments, daemon=True).start()

def limit(lacks):
    if {lack!r} == "threads":
        threading.stack_size(1 << 45 if lacks else 0)
    else:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first.fileno() + 1 if lacks else 64, most))

def answered():
    with socket.socket(socket.AF_UNIX) as guest:
        guest.settimeout(20)
        guest.connect(listening.getsockname())
        return guest.recv(1) == b""

limit(True)
first.connect(listening.getsockname())  # accepted if the service was waiting before the limit
while not said:
    time.sleep(0.01)
limit(False)
assert all(answered() for _ in range(3))
print(said[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "a connection was not served: " in done.stdout


def soon(good: Callable[[], object]) -> None:
    until(good, timeout=20, interval=0.05, late=lambda: AssertionError("too late"))


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True
