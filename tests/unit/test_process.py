"""Running programs: real ones, ended with all that they started."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base import process
from armvm.base.errors import CommandFailed, MissingCapability
from armvm.base.limits import Limits
from armvm.base.process import passthrough, relay, run
from armvm.base.process.relay import Marked
from armvm.base.programs import PACKAGES, find, own, search_path
from tests.support import environment


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(path: Path, count: int) -> list[int]:
    """Return the process ids in a file, as soon as there are *count*."""
    for _ in range(500):
        if path.exists() and len(path.read_text().split()) >= count:
            return [int(word) for word in path.read_text().split()]
        time.sleep(0.01)
    raise AssertionError(f"{path} was not filled")


def gone(pids: list[int]) -> bool:
    for _ in range(300):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def test_output_input_and_exit_code() -> None:
    done = run(["cat"], input=b"hello \xff")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello \xff", b"")
    assert done.text == "hello \ufffd"
    assert Path(done.argv[0]).is_absolute()


def test_without_input_standard_input_is_empty() -> None:
    assert run(["cat"], timeout=5).stdout == b""


def test_limits_of_time_and_memory() -> None:
    limits = Limits(memory=300 << 20, cpu=1)
    code = "import resource as r; print(*(r.getrlimit(n)[0] for n in (r.RLIMIT_AS, r.RLIMIT_CPU)))"
    done = run([sys.executable, "-c", code], limits=limits)
    assert done.text.split() == [str(300 << 20), "1"]
    assert Path(done.argv[0]).name.startswith("python"), "what ran, not what limits it"
    with pytest.raises(CommandFailed, match=r"python.* failed") as caught:
        run([sys.executable, "-c", "bytearray(1 << 30)"], limits=limits)
    assert "MemoryError" in (caught.value.detail or "")
    start = time.monotonic()
    with pytest.raises(CommandFailed, match="exit code -"):
        run([sys.executable, "-c", "while True: pass"], limits=limits, timeout=60)
    assert time.monotonic() - start < 55, "ended by the limit, not by the time-out"
    with pytest.raises(MissingCapability):
        run(["no-such-program"], limits=limits)


def test_arguments_are_never_a_shells() -> None:
    words = ["a b", "$HOME", "; exit 3", "*", "", "'\""]
    done = run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words])
    assert done.text.strip() == repr(words)


def test_the_environment_is_added_to_and_the_directory_set(tmp_path: Path) -> None:
    done = run(["sh", "-c", 'echo "$X $HOME"; pwd'], env={"X": "1"}, cwd=tmp_path)
    assert done.text.splitlines() == [f"1 {os.environ['HOME']}", str(tmp_path)]


def test_a_failure_is_told_with_the_programs_words() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo out; echo why >&2; exit 7"])
    assert caught.value.message == "sh failed with exit code 7"
    assert caught.value.detail == "why"


def test_a_failure_with_words_on_standard_output_only() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo why; exit 7"])
    assert caught.value.detail == "why"


def test_much_output_is_cut_to_its_end() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "seq 100000 >&2; exit 1"])
    assert caught.value.detail is not None
    assert len(caught.value.detail) <= process.TAIL
    assert caught.value.detail.endswith("\n100000")


def test_a_failure_may_be_expected() -> None:
    assert run(["sh", "-c", "exit 3"], check=False).returncode == 3
    assert run(["sh", "-c", "kill -9 $$"], check=False).returncode == -9


def test_a_program_that_is_not_there_names_its_package() -> None:
    with pytest.raises(MissingCapability) as caught:
        find("no-such-program")
    assert (
        caught.value.hint == "apt-get install no-such-program   (or: dnf install no-such-program)"
    )
    with pytest.raises(MissingCapability, match="no-such-program is not installed"):
        run(["no-such-program"])
    assert PACKAGES["qemu-img"] == ("qemu-utils", "qemu-img")


def test_the_sbin_directories_are_looked_through() -> None:
    assert {"/usr/local/sbin", "/usr/sbin", "/sbin"} <= set(search_path().split(":"))
    assert len(search_path().split(":")) == len(set(search_path().split(":"))) or os.environ[
        "PATH"
    ].split(":") != list(dict.fromkeys(os.environ["PATH"].split(":")))


def test_a_time_out_ends_the_program_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! >> {pids}; echo $$ >> {pids}; wait"
    before = time.monotonic()
    with pytest.raises(CommandFailed, match=r"timed out after 2 s"):
        run(["sh", "-c", script], timeout=2)
    assert time.monotonic() - before < 30
    assert gone(wait_for(pids, 2))


def test_a_child_that_will_not_listen_dies_too(tmp_path: Path) -> None:
    """The leader ends at once when asked; its child ignores that and must be killed."""
    pids = tmp_path / "pids"
    script = f"(trap '' TERM; echo $(sh -c 'echo $PPID') >> {pids}; sleep 300) & sleep 300"
    with pytest.raises(CommandFailed):
        run(["sh", "-c", script], timeout=2)
    assert gone(wait_for(pids, 1))


@pytest.mark.parametrize("output", ["", "echo tick;"], ids=["silent", "talking"])
def test_a_time_out_holds_while_lines_are_followed(tmp_path: Path, output: str) -> None:
    pids, lines = tmp_path / "pids", list[str]()
    script = f"echo $$ >> {pids}; while true; do {output} sleep 0.1; done"
    with pytest.raises(CommandFailed, match="timed out after"):
        run(["sh", "-c", script], timeout=2, on_line=lines.append)
    assert gone(wait_for(pids, 1))
    assert bool(lines) == bool(output)


def test_lines_are_handed_over_as_they_come() -> None:
    lines: list[str] = []
    done = run(
        ["sh", "-c", r"echo one; echo two >&2; printf 'thr\377ee'"], on_line=lines.append, timeout=9
    )
    assert lines == ["one", "two", "thr\ufffdee"]
    assert done.stdout == b"one\ntwo\nthr\xffee"


def test_a_followed_failure_shows_its_last_lines() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "seq 5000; exit 2"], on_line=lambda line: None)
    assert caught.value.detail is not None
    assert caught.value.detail.endswith("4999\n5000")


def test_what_the_listener_raises_ends_the_program(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def stop(line: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(["sh", "-c", f"echo $$ >> {pids}; echo x; sleep 300"], on_line=stop)
    assert gone(wait_for(pids, 1))


def test_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    """A real interrupt, sent to a process that runs one through armvm."""
    pids = tmp_path / "pids"
    code = f"from armvm.base.process import run; run(['sh', '-c', 'echo $$ >> {pids}; sleep 300'])"
    python = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    children = wait_for(pids, 1)
    time.sleep(1)  # on a busy host, the child may run before Popen has returned
    python.send_signal(signal.SIGINT)
    python.wait(20)
    assert gone(children)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143)]
)
def test_a_passed_through_program_gives_its_exit_code(script: str, code: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert passthrough(["sh", "-c", script]) == code
    assert signal.getsignal(signal.SIGINT) is before


def test_a_passed_through_program_can_be_interrupted() -> None:
    assert passthrough(["sh", "-c", "kill -INT $$"]) == 130


_COUNTS = """
import os, signal, sys, time
from armvm.base.process import passthrough
script = '''
import signal, sys, time
came = []
signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
print("ready", flush=True)
end = time.monotonic() + 60
while not came and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.5)
sys.exit(10 + len(came))
'''
sys.exit(passthrough([sys.executable, "-c", script]))
"""


def test_ctrl_c_is_the_passed_through_programs_alone() -> None:
    """The terminal sends it to both; armvm waits for what the program makes of it."""
    pid, master = os.forkpty()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", _COUNTS], environment())
    try:
        assert b"ready" in os.read(master, 100)
        os.write(master, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    finally:
        os.close(master)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sigint_for_us_alone_is_passed_on(terminal: bool) -> None:
    """Also where the program has a terminal that makes no signals, as ssh's is for a login."""
    pid, out = os.forkpty() if terminal else (0, -1)
    words = [sys.executable, "-c", _COUNTS]
    if terminal:
        if pid == 0:
            raw = "import tty, os; tty.setraw(0); "
            os.execve(sys.executable, [*words[:2], raw + _COUNTS.lstrip()], environment())
        assert b"ready" in os.read(out, 100)
        os.kill(pid, signal.SIGINT)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(out)
    else:
        with subprocess.Popen(
            words, env=environment(), stdout=subprocess.PIPE, start_new_session=True
        ) as alone:
            assert alone.stdout is not None
            assert alone.stdout.readline() == b"ready\n"
            alone.send_signal(signal.SIGINT)
            code = alone.wait(60)
    assert code == 11


@given(
    out=st.binary(max_size=40),
    tail=st.sampled_from([b"", b"M", b"MARK", b"MARK ", b"MARK 1", b"MARK x\n", b"MMARK 9\n"]),
    cuts=st.lists(st.integers(1, 60), max_size=6),
    marked=st.booleans(),
)
def test_an_output_ends_at_its_mark_however_it_is_cut(
    out: bytes, tail: bytes, cuts: list[int], marked: bool
) -> None:
    before = (out + tail).split(b"MARK 9\n")[0].replace(b"MARK 9", b"")
    data = before + (b"MARK 137\nlater" if marked else b"")
    kept: list[bytes] = []
    end = Marked(mark=b"MARK", sink=kept.append)
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    ended = any(end.take(piece) for piece in pieces)
    assert ended == marked
    if not ended:
        assert end.take(b"")
    assert b"".join(kept) == before
    assert end.code == (137 if marked else None)


def test_a_relayed_program_without_a_mark_gives_its_own_end() -> None:
    out: list[bytes] = []
    err: list[bytes] = []
    script = "echo a; echo b >&2; {}"
    for last, code in (("exit 3", 3), ("kill -TERM $$", 143), ("sleep 30 & exit 4", 4)):
        begun = time.monotonic()
        words = ["sh", "-c", script.format(last)]
        assert relay(words, "MARK", (out.append, err.append)) == code
        assert time.monotonic() - begun < 20
    assert (b"".join(out), b"".join(err)) == (b"a\n" * 3, b"b\n" * 3)


def test_a_listener_that_fails_ends_the_relayed_program(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def fail(_data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        relay(["sh", "-c", f"echo $$ >>{pids}; echo x; exec sleep 300"], "MARK", (fail, fail))
    assert gone(wait_for(pids, 1))


def test_a_missing_program_is_not_passed_through() -> None:
    with pytest.raises(MissingCapability):
        passthrough(["no-such-program"])


def test_what_is_in_the_background_is_not_waited_for() -> None:
    """Also where a child of it keeps its output open, as ssh's way through a host does."""
    done = process.into_background(["sh", "-c", "sleep 60 & echo $! >&2; exit 3"], timeout=20)
    os.kill(int(done.stderr), signal.SIGTERM)  # it still runs
    assert done.returncode == 3
    with pytest.raises(CommandFailed, match="timed out after"):
        process.into_background(["sleep", "30"], timeout=0.2)


@pytest.mark.parametrize("module", ["armvm", "armvm.provision.accelerate.service"])
def test_armvms_own_processes_take_no_code_from_the_current_directory(
    tmp_path: Path, module: str
) -> None:
    for name in ("typer", "runpy", "json", "socket", "armvm", "libvirt", "rich"):
        (tmp_path / f"{name}.py").write_text("open('hostile', 'w').close()\n")
    command = own("--version", module=module)
    done = run(command, cwd=tmp_path, check=False)
    assert not (tmp_path / "hostile").exists(), done.stderr
    if module == "armvm":
        assert done.text.startswith("armvm ")
    assert " ".join(command).endswith(f" {module} --version")


def test_more_output_than_expected_ends_the_program(tmp_path: Path) -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], most=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert run(["head", "-c", "3000000", "/dev/zero"], most=3_000_000).stdout == bytes(3_000_000)
    for words in ("yes", "yes >&2"):
        with pytest.raises(CommandFailed, match="more than 100 bytes"):
            run(["sh", "-c", f"echo $$ >>{tmp_path}/pids; {words}"], most=100)
    assert gone(wait_for(tmp_path / "pids", 2))
    with pytest.raises(CommandFailed, match="timed out"):
        run(["sleep", "60"], most=100, timeout=0.5)
    with pytest.raises(CommandFailed, match="timed out"):
        run(["sh", "-c", "exec >&- 2>&-; sleep 60"], most=100, timeout=0.5)


def test_the_end_of_long_messages_is_told() -> None:
    line = "head -c 20000000 /dev/zero >&2; echo the end >&2; exit 1"
    with pytest.raises(CommandFailed) as caught:
        process.stream(["sh", "-c", line], lambda _: None, lambda out: out.read())
    assert str(caught.value.detail).endswith("the end")
    said = process.into_background(["sh", "-c", line]).stderr
    assert len(said) == process.ANSWER
    assert said.endswith(b"the end\n")


def test_a_line_without_an_end_is_passed_on_in_parts() -> None:
    lines: list[str] = []
    run(["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"], on_line=lines.append)
    assert max(map(len, lines)) == process.LINE
    assert "".join(lines) == "x" * 100_000 + "end"
