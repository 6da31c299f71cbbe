"""Queues by name: the table [queues], --on with a queue, and the command lines for Slurm."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import CommandFailed, ConfigError, UsageError
from armvm.base.progress import Quiet
from armvm.provision.fleet import queue
from armvm.provision.fleet.queue import (
    OVERHEAD_MIB,
    Job,
    QueuedTask,
    Size,
    check_ended,
    file_word,
    mount_word,
    read_items,
    sbatch_words,
    script,
    srun_words,
)
from armvm.provision.launch.run_mount import read_mount
from armvm.settings.hosts import find_host, hosts_in
from armvm.settings.queues import Queue, queues_in
from tests.support import ARMVM, Result, armvm
from tests.unit.test_completion import SHELLS, Ask

QUEUE = Queue(name="farm", partition="arm", place="here", options=("--time=30", "--mem=9G"))
JOB = Job(
    queue=QUEUE,
    size=Size(cpus=3, memory_mib=1024),
    words=("--from=ci", "--env=A=b c"),
    command=("sh", "-c", "a; b", ""),
)
#: What a program's argument can be: no zero byte.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the configuration file."""
    (tmp_path / "armvm").mkdir()

    def write(text: str) -> Path:
        file = tmp_path / "armvm" / "config.toml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def run(write: Callable[[str], Path], tmp_path: Path) -> Callable[..., Result]:
    """Runs armvm with a host and a queue, and an srun that prints its arguments and environment."""
    write(
        f'[hosts]\nlab1 = "test:///default"\n'
        f'[queues]\nfarm = {{ slurm = "arm", shared = ["{tmp_path}/home"] }}\n'
        'big = { slurm = "big", cpus = 8, mem = "8G", armvm = "/opt/armvm/bin/armvm" }\n'
    )
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv | grep -a "^ARMVM_"\nexit 9\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"

    def run(*args: str | Path, **options: Any) -> Result:
        env = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": path, **options.pop("env", {})}
        return armvm(*args, env=env, **options)

    return run


def test_a_table_with_everything(write: Callable[[str], Path]) -> None:
    file = write(
        '[queues.farm]\nslurm = "arm"\noptions = ["-A", "x"]\narmvm = "/opt/armvm"\n'
        'shared = ["/home"]\ncpus = 4\nmem = "4G"\n'
    )
    found = queues_in([file])["farm"]
    assert (found.partition, found.options, found.armvm) == ("arm", ("-A", "x"), "/opt/armvm")
    assert (found.cpus, found.memory_mib, found.place) == (4, 4096, str(file))
    assert found.shared == (Path("/home"),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("queues = 1", "[queues]: expected a table"),
        ("[queues]\nfarm = 'arm'", "[queues.farm]: expected a table"),
        ("[queues]\nfarm = {}", "[queues.farm] slurm: the name of a Slurm partition is required"),
        ("[queues]\nfarm = { slurm = '' }", "slurm: expected a string"),
        ("[queues]\nfarm = { slurm = 'x', option = [] }", "option: unknown key"),
        ("[queues]\nfarm = { slurm = 'x', options = '-t1' }", "options: expected a list"),
        ("[queues]\nfarm = { slurm = 'x', options = ['30'] }", "does not begin with '-'"),
        ("[queues]\nfarm = { slurm = 'x', options = ['-t', '--'] }", "would end the options"),
        ("[queues]\nfarm = { slurm = 'x', armvm = '-x' }", "armvm: expected the name"),
        ("[queues]\nfarm = { slurm = 'x', armvm = 'A=b' }", "armvm: expected the name"),
        ("[queues]\nfarm = { slurm = 'x', shared = ['home'] }", "shared: expected absolute paths"),
        ("[queues]\nfarm = { slurm = 'x', cpus = 'many' }", "cpus: expected an integer"),
        ("[queues]\nfarm = { slurm = 'x', cpus = 0 }", "cpus: out of range"),
        ("[queues]\nfarm = { slurm = 'x', mem = 'much' }", "[queues.farm] mem: "),
        ("[queues]\nFarm = { slurm = 'x' }", "invalid host name"),
        ("[queues]\nall = { slurm = 'x' }", "'all' cannot be used"),
    ],
)
def test_what_is_refused(write: Callable[[str], Path], text: str, why: str) -> None:
    file = write(text)
    armvm("config", "check", file).failed(3)
    with pytest.raises(ConfigError) as caught:
        queues_in([file])
    assert caught.value.message.startswith(f"{file}: ")
    assert why in caught.value.message


def test_hosts_and_queues_share_their_names(write: Callable[[str], Path], tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[queues]\nlab = { slurm = "x" }\nfarm = { slurm = "x" }\n')
    file = write('[hosts]\nlab = "qemu:///system"\n')
    for read in (hosts_in, queues_in):
        with pytest.raises(ConfigError, match=r"lab: a host in .*config\.toml has this name"):
            read([file, other])
    file.write_text('[hosts]\nlab1 = "qemu:///system"\n')
    other.write_text('[queues]\nfarm = { slurm = "x" }\n')
    with pytest.raises(UsageError, match="farm is a queue, not a host") as caught:
        find_host("farm", [file, other])
    assert "known hosts: lab1" in str(caught.value.hint)


def test_only_run_can_use_a_queue(run: Callable[..., Result]) -> None:
    for words in (("list",), ("golden", "list"), ("create", "--dry-run"), ("list", "--on", "lab1")):
        done = run(*words, "--on", "lab1,farm" if "lab1" in words else "farm").failed(2)
        assert "farm is a queue" in done.err
    assert "farm is a queue" in run("list", env={"ARMVM_ON": "farm"}).failed(2).err
    assert "farm is a queue" in run("hosts", "farm").failed(2).err


def test_srun_gets_the_machines_size_and_every_word() -> None:
    assert srun_words(JOB, terminal=True) == [
        *("srun", "--disable-status", "--pty", "--partition=arm", "--job-name=armvm"),
        *("--nodes=1", "--ntasks=1", "--cpus-per-task=3", f"--mem={1024 + OVERHEAD_MIB}M"),
        *("--chdir=/", "--time=30", "--mem=9G", "/usr/bin/env", "armvm", "run"),
        *("--from=ci", "--env=A=b c", "--", "sh", "-c", "a; b", ""),
    ]
    assert "--pty" not in srun_words(JOB, terminal=False)
    assert sbatch_words(JOB, 7, Path("/out %j"))[:5] == [
        *("sbatch", "--parsable", "--array=1-7", "--output=/out %%j/%a.out"),
        "--error=/out %%j/%a.err",
    ]


def test_run_passes_its_options_on(run: Callable[..., Result], tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "src").mkdir(parents=True)
    done = run(
        *("run", "--on", "farm", "--preset=minimal", "--env", "A=-b c", "-e", "B=", "--no-motd"),
        *("--headless", "--timeout", "60", "--mount", "src:/srv:ro", "--exclude", "*.o", "--cold"),
        *("--user-data", "../home/data.yaml", "--image", "./a.qcow2", "-q", "--rm", "--"),
        *("sh", "-c", "--on farm", "--", ""),
        env={"ARMVM_ON": "lab1", "ARMVM_CONNECT": "x:///y", "ARMVM_USER": "me"},
        cwd=home,
    )
    words = done.out.split("\n")
    assert done.code == 9
    at = words.index("run")
    assert words[at - 2 : at] == ["/usr/bin/env", "armvm"]
    options, command = words[at + 1 : words.index("--")], words[words.index("--") + 1 :]
    assert sorted(options) == sorted(
        [
            *("--preset=minimal", "--env=A=-b c", "--env=B=", "--no-motd", "--headless"),
            *("--timeout=60.0", f"--mount={home}/src:/srv:ro", "--exclude=*.o", "--cold"),
            *(f"--user-data={home}/data.yaml", f"--image={home}/a.qcow2", "--quiet"),
            *("--cpus=2", "--mem=1024"),
        ]
    )
    assert command == ["sh", "-c", "--on farm", "--", "", "ARMVM_USER=me", ""]
    assert f"--mem={1024 + OVERHEAD_MIB}M" in words


def test_the_size_of_a_golden_is_the_queues(run: Callable[..., Result]) -> None:
    words = run("run", "--from", "ci", "--", "true", env={"ARMVM_ON": "big"})
    assert {"--partition=big", "--cpus-per-task=8", f"--mem={8192 + OVERHEAD_MIB}M"} <= set(
        words.out.split("\n")
    )
    assert "/opt/armvm/bin/armvm\nrun\n--from=ci\n--\ntrue" in words.out
    assert "golden ci is on the nodes" not in words.err
    done = run("run", "--on", "farm", "--from", "ci", "--mem", "4G", "--", "true")
    assert f"--mem={4096 + OVERHEAD_MIB}M" in done.out
    assert "--from=ci\n--mem=4096\n" in done.out
    assert "requesting 2 CPUs and 4096 MiB" in done.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--on", "farm", "--connect", "x:///y"), "--on and --connect cannot be used together"),
        (("--on", "farm", "--keep"), "the machine would outlive its job"),
        (("--on", "farm", "--mount", "/usr"), "the nodes of farm may not have it"),
        (("--on", "farm", "--ssh-key", "k.pub"), "the nodes of farm may not have it"),
        (("--on", "farm", "--image", "/x.qcow2"), "the nodes of farm may not have it"),
        (("--on", "farm", "--json"), "--json and --outputs require --count or --each"),
        (("--on", "farm", "--count", "2", "--each", "x"), "cannot be used together"),
        (("--on", "farm", "--count", "2"), "require a command"),
        (("--on", "farm", "--count", "2", "--", "true"), "the nodes of farm may not have it"),
        (("--on", "farm", "--count", "2", "--name", "x", "--", "true"), "--name cannot be used"),
        (("--on", "lab1", "--count", "2", "--", "true"), "require --on QUEUE"),
        (("--count", "2", "--", "true"), "require --on QUEUE"),
    ],
)
def test_what_run_refuses(run: Callable[..., Result], words: tuple[str, ...], why: str) -> None:
    assert why in run("run", *words).failed(2).err


def test_what_the_nodes_share(tmp_path: Path) -> None:
    (tmp_path / "real/src").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    queue = Queue(name="farm", partition="arm", place="here", shared=(tmp_path / "link",))
    for path in (tmp_path / "real/src", tmp_path / "link/src"):
        assert file_word(queue, path, "user-data") == str(path)
    assert file_word(queue, Path("-"), "user-data") == "-"
    for path in (tmp_path / "real2", tmp_path / "link/../x"):
        with pytest.raises(UsageError, match=r"the nodes of farm may not have it"):
            file_word(queue, path, "user-data")
    mount = read_mount(f"{tmp_path}/link/src:ro:ro")
    assert mount_word(queue, mount) == f"{tmp_path}/real/src:./ro:ro"


def test_an_array_of_shells(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "home/out").mkdir(parents=True)
    (tmp_path / "home/out/x").touch()
    words = ("run", "--on", "farm", "--outputs", tmp_path / "home/out", "--count", "2", "--", "x")
    assert "is not empty" in run(*words).failed(5).err
    assert "not found" in run("run", "--on", "farm", "--each", "none", "--", "x").failed(4).err


def sbatch(tmp_path: Path, text: str) -> None:
    """Write an sbatch."""
    program = tmp_path / "bin/sbatch"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def test_a_refused_array_leaves_nothing(run: Callable[..., Result], tmp_path: Path) -> None:
    sbatch(tmp_path, f'ls -l {tmp_path}/home/*/job.sh >"$0.saw"\necho no >&2\nexit 1')
    (tmp_path / "home/mine").mkdir(parents=True)
    for name in ("new", "new", "mine"):
        words = ("--outputs", tmp_path / "home" / name, "--count", "2", "--env", "A=b", "--", "x")
        assert "sbatch refused the job" in run("run", "--on", "farm", *words).failed(12).err
        # The script may contain secrets.
        assert (tmp_path / "bin/sbatch.saw").read_text().startswith("-rwx------")
    assert [one.name for one in (tmp_path / "home").iterdir()] == ["mine"]
    assert list((tmp_path / "home/mine").iterdir()) == []


def test_a_hung_sbatch_is_ended(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del run
    sbatch(tmp_path, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(queue, "_SUBMIT", 0.3)
    with pytest.raises(CommandFailed, match=r"did not answer within 0\.3 s"):
        queue.run_array(JOB, ["1"], tmp_path / "out", Quiet())
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_written(run: Callable[..., Result], tmp_path: Path) -> None:
    sbatch(tmp_path, "exit 1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").touch()
    words = ("--count", "2", "--", "x")
    for name, code in (("file/x", 9), ("a" * 300, 3)):
        outputs = ("--outputs", tmp_path / "home" / name)
        run("run", "--on", "farm", *outputs, *words).failed(code)
    gone = tmp_path / "home/gone"
    gone.mkdir()
    shell = ["sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh", *ARMVM]
    done = run("run", "--on", "farm", *words, prefix=shell).failed(4)
    assert "the current directory no longer exists" in done.err


def test_the_number_of_tasks_is_limited(run: Callable[..., Result]) -> None:
    assert "100000" in run("run", "--on", "farm", "--count", "100001", "--", "x").failed(2).err
    with pytest.raises(ConfigError, match="more than 100000 lines"):
        read_items(b"x\n" * 100_001)
    assert len(read_items(b"x\n" * 100_000)) == 100_000
    failed = run("run", "--on", "farm", "--each", "/dev/zero", "--", "x").failed(3)
    assert "larger than 16.0 MiB" in failed.err


def test_lines_of_a_file() -> None:
    assert read_items(b"a b\r\n\n c\n\xff\nd\re") == ["a b", " c", "\udcff", "d\re"]
    for text in (b"", b"\n\r\n", b"a\0b\n"):
        with pytest.raises(ConfigError):
            read_items(text)


@given(item=WORDS, word=WORDS)
def test_the_script_passes_every_word(item: str, word: str) -> None:
    argv = run_script(("--env=X=" + word,), ("cat", word), [item, "other"])
    assert argv == ["run", f"--env=X={word}", f"--env=ARMVM_ITEM={item}", "--", "cat", word]


def run_script(words: tuple[str, ...], command: tuple[str, ...], items: list[str]) -> list[str]:
    """Run a script with sh as its first task; return the arguments that armvm gets."""
    code = 'printf "%s\\0" "$@"'
    queue = Queue(name="farm", partition="arm", place="here", armvm="sh")
    job = Job(queue=queue, size=Size(cpus=1, memory_mib=1), words=words, command=command)
    text = script(job, items, Path("/nowhere"))
    assert b"\r" not in text
    program = text.replace(b"/usr/bin/env sh ", f"sh -c '{code}' sh ".encode(), 1)
    done = subprocess.run(
        ["sh", "-c", os.fsdecode(program)],
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"},
        capture_output=True,
        check=False,
    )
    return [os.fsdecode(one) for one in done.stdout.split(b"\0")[:-1]]


def test_the_exit_code_of_an_array(tmp_path: Path) -> None:
    def task(number: int, code: int | None) -> QueuedTask:
        return QueuedTask(
            task=number,
            item="x",
            exit_code=code,
            stdout=tmp_path,
            stderr=tmp_path / f"{number}.err",
        )

    assert check_ended([task(1, 0), task(2, 0)]) == 0
    assert check_ended([task(1, 3), task(2, 130), task(3, 1)]) == 130
    with pytest.raises(Exception, match="1 of 2 tasks ended without an exit code: 2") as caught:
        check_ended([task(1, 3), task(2, None)])
    assert "2.err" in str(getattr(caught.value, "hint", ""))


@SHELLS
def test_names_are_completed(ask: Ask, write: Callable[[str], Path], tmp_path: Path) -> None:
    write('[hosts]\nlab1 = "qemu:///system"\n[queues]\nlab2 = { slurm = "x" }\n')
    home = str(tmp_path)
    assert sorted(ask("armvm run --on la", XDG_CONFIG_HOME=home)) == ["lab1", "lab2"]
    assert ask("armvm create --on la", XDG_CONFIG_HOME=home) == ["lab1"]
