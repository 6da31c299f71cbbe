"""The tasks that compare user mode with a machine: their scripts run, the table adds up."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import usermode_tasks
from benchmarks.usermode_tasks import TASKS, Task, parse, seconds, table


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_a_script_that_a_shell_reads(task: Task) -> None:
    subprocess.run(["sh", "-n", "-c", task.script], check=True)
    for word in ("BEFORE", "TASK", "AFTER"):
        assert word not in task.script.replace("armvm-task", "")


def test_seconds_are_those_between_two_lines() -> None:
    task = Task(name="nap", title="a nap", before="echo no", task="sleep 0.3", after="true")
    script = task.script.replace("/var/tmp/armvm-tasks", ".").replace("mkdir -p .", "true")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert 0.3 <= seconds(done.stdout) < 10
    assert "no" not in done.stdout
    failing = Task(name="x", title="x", before="true", task="false").script
    failing = failing.replace("/var/tmp/armvm-tasks", ".").replace("mkdir -p .", "true")
    done = subprocess.run(["sh", "-c", failing], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    with pytest.raises(ValueError, match="did not come to its end"):
        seconds(done.stdout)


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
