"""The tasks that compare user mode with a machine: their scripts run, the table adds up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import usermode_tasks
from benchmarks.usermode_tasks import TASKS, Task, parse, seconds, table


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_a_script_that_a_shell_reads(task: Task) -> None:
    for install in (True, False):
        script = task.script(install=install)
        subprocess.run(["sh", "-n", "-c", script], check=True)
        for word in ("BEFORE", "TASK", "AFTER"):
            assert word not in script.replace("armvm-task", "")


def test_this_hosts_packages_are_left_alone() -> None:
    """What is run here must install and remove nothing."""
    for task in TASKS:
        assert task.changes or "apt-get" not in task.script(install=False)
        assert not (task.changes and task.fits_here())
    assert {task.name for task in TASKS if task.changes} == {"apt"}
    missing = Task(name="x", title="x", needs="command -v no-such-program", task="true")
    assert not missing.fits_here()
    assert Task(name="x", title="x", task="true").fits_here()


def test_seconds_are_those_between_two_lines(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}

    def run(task: Task) -> subprocess.CompletedProcess[str]:
        words = ["sh", "-c", task.script(install=False)]
        return subprocess.run(words, capture_output=True, text=True, env=env, check=False)

    nap = Task(name="nap", title="a nap", before="touch here; echo no", task="sleep 0.3")
    done = run(nap)
    assert 0.3 <= seconds(done.stdout) < 10
    assert "no" not in done.stdout
    done = run(Task(name="x", title="x", task="touch here; false"))
    assert done.returncode != 0
    with pytest.raises(ValueError, match="did not finish"):
        seconds(done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_medians_and_their_ratio() -> None:
    figures = {"a": {"user mode": [3.0, 1.0, 2.0], "machine": [4.0]}, "b": {"user mode": [1.0]}}
    assert table(figures).splitlines() == [
        "| Task | user mode, s | machine, s | user mode / machine |",
        "|---|---:|---:|---:|",
        "| a | 2.0 | 4.0 | 0.50 |",
        "| b | 1.0 | - | - |",
    ]


def test_the_command_line() -> None:
    values = parse(["--rootfs", "/r", "--machine", "m", "--tasks", "apt"])
    assert [task.name for task in values.tasks] == ["apt"]
    assert list(usermode_tasks.runners(values)) == ["user mode", "machine"]
    for words in ([], ["--native", "--tasks", "nothing"]):
        with pytest.raises(SystemExit):
            parse(words)
