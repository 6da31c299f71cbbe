"""Time three real tasks under user-mode emulation and on a machine; print a Markdown table.

Run by hand, on an idle host, from a source tree with its virtual environment:

    armvm rootfs create /var/tmp/tasks --image debian:12      # once; tasks install packages
    armvm create --name tasks --image local:debian-12 --cpus 2
    .venv/bin/python -m benchmarks.usermode_tasks --rootfs /var/tmp/tasks --machine tasks --rounds 3

Each task is one shell script. ``armvm rootfs enter`` and, as root, ``armvm ssh`` run it in turn, so
that a slow minute of the host affects both. The task installs its dependencies before the clock
starts, and removes its files afterwards. The script measures its own time (date +%s.%N), so the
start of armvm and the login are not included. The table shows medians over all rounds. ``--native``
runs the scripts on this host too, for comparison. It does not change this host's packages: tasks
that would install or remove some, or that need missing programs, are left out.
"""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError

#: A task's limit, in seconds.
TIMEOUT = 3600.0

ARMVM = (sys.executable, "-m", "armvm")

_TIMED = """\
set -e
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
work=$(mktemp -d "${TMPDIR:-/var/tmp}/armvm-tasks.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
{
BEFORE
} >&2
start=$(date +%s.%N)
{
TASK
} >&2
end=$(date +%s.%N)
{
AFTER
} >&2
echo "armvm-task $start $end"
"""

_APT = "apt-get -q -y --no-install-recommends install"

#: Generates the same C program with many functions each time.
_SOURCE = """\
i=0
while [ $i -lt 24 ]; do
    {
        printf '#include <%s>\\n' stdio.h stdlib.h string.h
        j=0
        while [ $j -lt 40 ]; do
            cat <<END
int f_${i}_${j}(const char *s, int n) {
    int sum = $j;
    char *copy = strdup(s);
    for (int k = 0; copy && copy[k] && k < n; k++) sum = sum * 31 + copy[k];
    if (sum % 7 == 0) printf("%d", sum);
    free(copy);
    return sum;
}
END
            j=$((j + 1))
        done
    } > part_$i.c
    i=$((i + 1))
done
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: its name and title, and its shell lines before, during and after the timing.

    *needs* is a shell command that fails if *packages* are missing. A task that *changes* installed
    packages runs only on temporary systems.
    """

    name: str
    title: str
    task: str
    needs: str = "true"
    packages: str = ""
    before: str = "true"
    after: str = "true"
    changes: bool = False

    def script(self, *, install: bool) -> str:
        """Return the shell script; its last line prints the start and end time of the task.

        With *install*, it installs its dependencies first.
        """
        ready = f"{{ {self.needs}; }} || {{ apt-get -q update; {_APT} {self.packages}; }}\n"
        before = (ready if install and self.packages else "") + self.before
        parts = {"BEFORE": before, "TASK": self.task, "AFTER": self.after}
        return re.sub("BEFORE|TASK|AFTER", lambda found: parts[found[0]], _TIMED)

    def fits_here(self) -> bool:
        """Return whether the task runs on this host without changing packages."""
        if self.changes:
            return False
        return process.run(["sh", "-c", self.needs], check=False, timeout=60).returncode == 0


TASKS = (
    Task(
        name="compile",
        title="compile 24 C files (gcc -O2, two at a time)",
        needs="command -v gcc",
        packages="gcc libc6-dev",
        before=_SOURCE,
        task="ls part_*.c | xargs -P 2 -n 1 gcc -O2 -c",
    ),
    Task(
        name="python",
        title="CPython's own tests of json, re and dataclasses",
        needs="python3 -c 'import test.test_json, test.test_dataclasses'",
        packages="python3 libpython3.11-testsuite",
        task="python3 -m test -q test_json test_re test_dataclasses",
    ),
    Task(
        name="apt",
        title="apt-get install git (downloaded before)",
        before=f"apt-get -q update; {_APT} --download-only git; "
        "dpkg -s git >/dev/null 2>&1 && apt-get -q -y purge git && apt-get -q -y autoremove; "
        f"{_APT} --download-only git",
        task=f"{_APT} git",
        after="apt-get -q -y purge git; apt-get -q -y autoremove",
        changes=True,
    ),
)


def seconds(output: str) -> float:
    """Return a task's seconds from its script's output. Raises ValueError."""
    found = re.search(r"^armvm-task ([0-9.]+) ([0-9.]+)$", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"the task did not finish: {output[-300:]}")
    return float(found[2]) - float(found[1])


#: Printed for a task that is not run on this host.
LEFT_OUT = "left out: it would change this host's packages, or packages are missing"


def runners(values: argparse.Namespace) -> dict[str, Callable[[Task], float | None]]:
    """Return a function for each requested place that runs a task; it returns None if left out."""
    places: dict[str, Sequence[str]] = {}
    if values.rootfs is not None:
        places["user mode"] = [*ARMVM, "rootfs", "enter", str(values.rootfs), "--", "sh", "-c"]
    if values.machine is not None:
        places["machine"] = [*ARMVM, "ssh", values.machine, "--", "sudo", "sh", "-c"]
    if values.native:
        places["native"] = ["sh", "-c"]

    def runner(name: str, prefix: Sequence[str]) -> Callable[[Task], float | None]:
        def run(task: Task) -> float | None:
            if name == "native" and not task.fits_here():
                return None
            script = task.script(install=name != "native")
            if name == "machine":  # ssh passes the words to a shell
                script = shlex.quote(script)
            done = process.run([*prefix, script], timeout=TIMEOUT)
            return seconds(done.text)

        return run

    return {name: runner(name, prefix) for name, prefix in places.items()}


def table(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return the medians and their ratio as a Markdown table.

    *figures* are seconds by task's title and place.
    """
    places = list(dict.fromkeys(place for row in figures.values() for place in row))
    both = {"user mode", "machine"} <= set(places)
    head = ["Task", *(f"{place}, s" for place in places)]
    head += ["user mode / machine"] if both else []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' + '---:|' * (len(head) - 1)}"]
    for title, row in figures.items():
        medians = {place: statistics.median(row[place]) for place in places if row.get(place)}
        cells = [f"{medians[place]:.1f}" if place in medians else "-" for place in places]
        if both:
            known = {"user mode", "machine"} <= medians.keys()
            ratio = medians["user mode"] / medians["machine"] if known else 0.0
            cells.append(f"{ratio:.2f}" if known else "-")
        lines.append(f"| {' | '.join([title, *cells])} |")
    return "\n".join(lines)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usermode_tasks")
    parser.add_argument("--rootfs", type=Path, help="a directory made with armvm rootfs create")
    parser.add_argument("--machine", help="a running machine of the same release")
    parser.add_argument("--native", action="store_true", help="also run the tasks on this host")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--tasks", default="", help="comma-separated: compile,python,apt")
    values = parser.parse_args(words)
    if not (values.rootfs or values.machine or values.native):
        parser.error("expected --rootfs DIR, --machine NAME or --native")
    chosen = [one for one in values.tasks.split(",") if one]
    unknown = set(chosen) - {task.name for task in TASKS}
    if unknown:
        parser.error(f"unknown task {', '.join(sorted(unknown))}")
    values.tasks = [task for task in TASKS if not chosen or task.name in chosen]
    return values


def main(words: Sequence[str] | None = None) -> int:
    """Run the tasks and print the table; return 1 if a task failed."""
    values = parse(words)
    places = runners(values)
    figures: dict[str, dict[str, list[float]]] = {
        task.title: {place: [] for place in places} for task in values.tasks
    }
    failed = False
    for number in range(values.rounds):
        for task in values.tasks:
            for place, run in places.items():
                print(f"round {number + 1}: {task.name}, {place}", file=sys.stderr, flush=True)
                try:
                    value = run(task)
                except (ArmvmError, ValueError) as error:
                    failed = True
                    told = (getattr(error, "detail", None) or str(error))[-300:]
                    print(f"  failed: {told}", file=sys.stderr, flush=True)
                    continue
                if value is not None:
                    figures[task.title][place].append(value)
                told = LEFT_OUT if value is None else f"{value:.1f} s"
                print(f"  {told}", file=sys.stderr, flush=True)
    print(table(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
