"""The front door as a program: exit codes, messages, JSON, pipes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from armvm.base.errors import NotFound
from armvm.base.progress import Plain, Quiet
from armvm.cli.app import app
from armvm.cli.context import print_fields, print_rows, progress_for
from armvm.cli.error_text import report
from armvm.cli.main import _split
from tests.support import ARMVM, Result, armvm, environment

#: A libvirt without machines, without a daemon.
TEST_URI = "test:///default"


def run(*args: str | Path, home: Path, stdin: str | None = None, **env: str) -> Result:
    return armvm(*args, env={**home_environment(home), **env}, stdin=stdin)


def home_environment(home: Path) -> Mapping[str, str]:
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


@pytest.mark.parametrize(
    ("words", "own", "command"),
    [
        (["ssh", "m", "--", "uname", "-m"], ["ssh", "m"], ["uname", "-m"]),
        (["ssh", "--", "a", "--", "b"], ["ssh"], ["a", "--", "b"]),
        (["--debug", "ssh", "m", "--", "--help"], ["--debug", "ssh", "m"], ["--help"]),
        (["ssh", "m"], ["ssh", "m"], []),
        (["ssh", "--"], ["ssh"], []),
        (["ssh", "m", "--", "--json"], ["ssh", "m"], ["--json"]),
        (["delete", "--", "ssh"], ["delete", "--", "ssh"], []),
        (["list"], ["list"], []),
        ([], [], []),
    ],
)
def test_what_follows_two_dashes_is_the_guests(
    words: list[str], own: list[str], command: list[str]
) -> None:
    assert _split(words) == (own, command)


def test_an_error_is_told_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    report(NotFound("no m", detail="one\ntwo", hint="make m"), as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "armvm: no m\n    one\n    two\nhint: make m\n"


def test_an_error_is_told_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    report(NotFound("no m", hint="make m"), as_json=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "reference": "not-found",
            "exit_code": 4,
            "message": "no m",
            "detail": None,
            "hint": "make m",
        }
    }


def test_tables_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(["A", "LONG"], [["xyz", "1"], ["", "2"]])
    print_rows(["A"], [])
    print_fields({"a": 1, "long": {"x": True, "y": None}, "list": ["a", "b"], "none": []})
    assert capsys.readouterr().out.splitlines() == [
        "A    LONG",
        "xyz  1",
        "     2",
        "A",
        "a:    1",
        "long:",
        "  x: yes",
        "  y: -",
        "list: a, b",
        "none: -",
    ]


def test_progress_suits_the_stream() -> None:
    assert isinstance(progress_for(True), Quiet)
    assert isinstance(progress_for(False), Plain), "pytest's standard error is no terminal"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--no-such-option"], 2, "No such option"),
        (["no-such-command"], 2, "No such command"),
        (["create", "--cpus"], 2, "requires an argument"),
        (["create", "--timeout", "0"], 2, "--timeout"),
        (["seed", "--name", "m"], 2, "--output"),
        (["list", "--connect", "nonsense"], 2, "invalid connection URI"),
        (["seed", "-o", "s", "--name", "../m"], 3, "invalid machine name '../m'"),
        (["seed", "-o", "s", "--cpus", "0"], 3, "0 vCPUs is out of range"),
        (["seed", "-o", "s", "--cpus", "many"], 3, "the command line: invalid cpus 'many'"),
        (["seed", "-o", "s", "--mem", "3"], 3, "3 MiB of memory is out of range"),
        (["seed", "-o", "s", "--disk", "-1"], 3, "invalid size '-1' for --disk"),
        (["seed", "-o", "s", "--user", "root"], 3, "user root already exists in the guest"),
        (["seed", "-o", "s", "--user-data", "/etc"], 3, "invalid user-data"),
        (["seed", "-o", "s", "--user-data", "/etc/hostname"], 3, "unsupported format"),
        (["seed", "-o", "s", "--user-data", "/none"], 4, "file '/none' not found"),
        (["seed", "-o", "s", "--ssh-key", "/none"], 4, "ssh key '/none' not found"),
        (["seed", "-o", "s", "--preset", "none"], 4, "preset 'none' not found"),
        (["seed", "-o", "/none/s"], 4, "directory /none not found"),
        (["show", "none", "-c", TEST_URI], 4, "machine 'none' not found"),
        (["ssh", "none", "-c", TEST_URI, "--", "true"], 4, "machine 'none' not found"),
        (["show", "test", "-c", TEST_URI], 4, "was not created by armvm"),
        (["show", "-c", TEST_URI], 4, "no machines found"),
        (["delete", "-y", "test", "-c", TEST_URI], 4, "was not created by armvm"),
        (["delete", "m", "-c", TEST_URI], 4, "machine 'm' not found"),
        (["create", "-c", TEST_URI, "--image", "/none"], 6, "ARM64"),
        (["list", "-c", "qemu+unix:///system?socket=/none"], 6, "cannot connect to libvirt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_mistake_has_its_code_and_one_clear_message(
    tmp_path: Path, args: list[str], code: int, said: str
) -> None:
    done = armvm(*args, env=home_environment(tmp_path), cwd=tmp_path).failed(code)
    assert said in " ".join(done.err.replace("│", " ").split())
    assert done.out == ""
    assert not (tmp_path / "s").exists()


def test_with_json_an_error_is_one_object(tmp_path: Path) -> None:
    done = run("show", "none", "--json", "-c", TEST_URI, home=tmp_path).failed(4)
    assert done.out == ""
    assert json.loads(done.err)["error"]["reference"] == "not-found"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["list", "--nonsense"], "No such option: --nonsense", "see armvm list --help"),
        (["nonsense"], "No such command 'nonsense'.", "see armvm --help"),
        (["create", "--cpus"], "Option '--cpus' requires an argument.", None),
        (["create", "m"], "Got unexpected extra argument", "armvm create --name NAME"),
        (["create", "--print-xml"], "--print-xml and --json cannot be used together", "leave out"),
    ],
)
def test_with_json_a_usage_error_is_one_object(
    tmp_path: Path, words: list[str], message: str, hint: str | None
) -> None:
    # The option that lacks its argument must be last.
    words = [words[0], "--json", *words[1:]] if words[0] in ("list", "create") else words
    words = [*words, "--json"] if "--json" not in words else words
    done = run(*words, home=tmp_path).failed(2)
    assert done.out == ""
    error = json.loads(done.err)["error"]
    assert (error["reference"], error["exit_code"]) == ("usage", 2)
    assert message.rstrip(".") in error["message"]
    assert hint is None or hint in error["hint"]


def test_with_json_hosts_that_are_down_are_in_one_object(tmp_path: Path) -> None:
    (tmp_path / "config" / "armvm").mkdir(parents=True)
    (tmp_path / "config" / "armvm" / "config.toml").write_text(
        '[hosts]\nup = "test:///default"\ndown = "qemu+unix:///system?socket=/none"\n'
    )
    done = run("list", "--on", "all", "--json", home=tmp_path).failed(6)
    error = json.loads(done.err)["error"]
    assert error["message"] == "1 of 2 hosts did not answer: down"
    assert error["detail"].startswith("down: ")
    assert json.loads(done.out) == []
    assert "    down: " in run("list", "--on", "all", home=tmp_path).failed(6).err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["ssh", "m", "uname", "-m"], "armvm ssh … -- CMD"),
        (["exec", "m", "uptime"], "armvm exec … -- CMD"),
        (["create", "m"], "armvm create --name NAME"),
        (["golden", "create", "ci", "--name", "other"], "armvm golden create NAME"),
        (["--connect", "list"], "armvm list --connect …"),
    ],
)
def test_a_usual_mistake_is_told_what_was_meant(
    tmp_path: Path, words: list[str], hint: str
) -> None:
    told = run(*words, home=tmp_path).failed(2).err
    assert told.splitlines()[-1].endswith(hint)


def test_another_mistake_gets_no_guess(tmp_path: Path) -> None:
    for words in (["list", "--no-such-option"], ["create", "--cpus", "2", "--no-such-option"]):
        assert "hint:" not in run(*words, home=tmp_path).failed(2).err


def test_a_number_that_is_none(tmp_path: Path) -> None:
    told = run("create", "--cpus", "two", "--dry-run", home=tmp_path).failed(3).err
    assert "expected an integer" in told


def test_a_wrong_topic_is_told_before_a_wrong_machine(tmp_path: Path) -> None:
    assert "nonsense" in run("explain", "nonsense", "no-such-machine", home=tmp_path).failed(4).err


def test_an_empty_list(tmp_path: Path) -> None:
    plain = run("list", "-c", TEST_URI, home=tmp_path).ok()
    assert plain.out == ""
    assert "armvm create" in plain.err
    assert run("list", "--json", "-c", TEST_URI, home=tmp_path).ok().json == []


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    done = run("--debug", "show", "none", "-c", TEST_URI, home=tmp_path)
    assert done.code == 1
    assert "Traceback" in done.err
    assert "NotFound" in done.err


def test_no_words_show_the_help(tmp_path: Path) -> None:
    done = run(home=tmp_path)
    assert "Usage: armvm" in done.out + done.err
    assert done.code in (0, 2)


def test_the_version(tmp_path: Path) -> None:
    from armvm import __version__

    assert run("--version", home=tmp_path).ok().out == f"armvm {__version__}\n"


def test_a_seed_from_files_and_variables(tmp_path: Path) -> None:
    """Flag over variable over file, through the whole program."""
    (tmp_path / "config" / "armvm").mkdir(parents=True)
    config = tmp_path / "config" / "armvm" / "config.toml"
    config.write_text('[machine]\nuser = "file"\nimage = "local:debian-12"\n')
    output = tmp_path / "s"

    def user(*args: str, **env: str) -> str:
        args = ("seed", "--name", "m", "--force", "--json", "-o", str(output), *args)
        return str(run(*args, home=tmp_path, **env).ok().json["user"])

    assert user() == "file"
    assert user(ARMVM_USER="variable") == "variable"
    assert user("--user", "flag", ARMVM_USER="variable") == "flag"
    config.write_text('[machine]\nusr = "x"\n')
    done = run("seed", "-o", output, home=tmp_path).failed(3)
    assert str(config) in done.err
    assert "config.toml: [machine] usr: unknown" in done.err
    config.write_text("[machine\n")
    assert "line 1" in run("seed", "-o", output, home=tmp_path).failed(3).err


def test_a_password_comes_from_standard_input_and_is_never_shown(tmp_path: Path) -> None:
    from armvm.guest.cloudinit.seed import read_seed

    done = run("seed", "-o", tmp_path / "s", "--password", home=tmp_path, stdin="hunter2\r\n").ok()
    assert "hunter2" not in done.out + done.err
    text = read_seed((tmp_path / "s").read_bytes())["user-data"].decode()
    assert "hunter2" not in text
    assert "$2b$" in text
    refused = run("seed", "-o", tmp_path / "t", "--password", home=tmp_path, stdin="\n").failed(3)
    assert "72 bytes" in refused.err


def test_the_own_key_is_made_where_the_caller_has_none(tmp_path: Path) -> None:
    run("seed", "-o", tmp_path / "s", home=tmp_path).ok()
    assert (tmp_path / "data" / "armvm" / "id_ed25519").exists()


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    done = run("seed", "-o", tmp_path / "s", home=tmp_path).failed(7)
    assert "--ssh-key" in done.err


@pytest.mark.parametrize("args", [["--help"], ["image", "list", "--json"], ["create", "--help"]])
def test_a_reader_that_leaves_is_no_error_of_ours(tmp_path: Path, args: list[str]) -> None:
    """The way of ``armvm list | head``: no traceback, and the code of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*ARMVM, *args],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**home_environment(tmp_path)),
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_its_code(tmp_path: Path, number: signal.Signals) -> None:
    """The program waits for a password at a terminal; the signal ends it in good order."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*ARMVM, "seed", "-o", str(tmp_path / "s"), "--password"],
        stdin=follower,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(**home_environment(tmp_path)),
    ) as process:
        assert process.stderr is not None
        asked = ""
        while "password" not in asked:
            asked += process.stderr.read(1)
        time.sleep(0.2)
        process.send_signal(number)
        rest = process.stderr.read()
        process.wait(20)
    os.close(leader)
    os.close(follower)
    assert process.returncode == 128 + number
    assert rest.endswith("armvm: interrupted\n")
    assert "Traceback" not in rest
    assert not (tmp_path / "s").exists()


def test_the_module_and_the_program_are_the_same(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("armvm")
    done = armvm("--version", prefix=[str(program)])
    assert done.ok().out == run("--version", home=tmp_path).out


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300", "1000001", "-1", "x", ""])
@pytest.mark.parametrize(
    "words",
    [
        ("wait", "a", "--timeout"), ("stop", "a", "--timeout"), ("hosts", "--timeout"),
        ("events", "--timeout"), ("exec", "a", "--timeout"), ("top", "--interval"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_times_that_nobody_can_wait_for_are_refused(
    words: tuple[str, ...], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        app(args=[*words[:-1], f"{words[-1]}={value}"], prog_name="armvm")
    assert end.value.code == 2
    assert "is not a number of seconds from" in " ".join(capsys.readouterr().err.split())
