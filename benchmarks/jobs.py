"""The same job in an arm64 container by user mode and in a machine: apt-get install, a compile.

The scripts are those of `benchmarks.usermode_tasks`. They install what they need before their own
clock starts, so neither the start of a container nor a login is included.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from benchmarks.case import Case, Figure, Reading
from benchmarks.docker import docker, docker_problem
from benchmarks.results import Results
from benchmarks.summary import number
from benchmarks.usermode_tasks import TASKS, TIMEOUT, Task, seconds
from benchmarks.world import World

JOBS = tuple(task for task in TASKS if task.name in ("apt", "compile"))
#: Where a job runs, by the last word of its figures' keys, as in the heads of the table.
PLACES = {
    "container": "container on the host (user mode), s",
    "machine": "machine, s",
}


def _readings(place: str, run: Callable[[Task], str]) -> list[Reading]:
    return [Reading(figure=f"{task.name}-{place}", value=seconds(run(task))) for task in JOBS]


def _container(world: World) -> list[Reading]:
    """Run the jobs, each in a new container, which uses the host's network for its packages."""
    with docker(world) as found:

        def run(task: Task) -> str:
            words = found.run("sh", "-c", task.script(install=True), network="host")
            return world.run(*words, timeout=TIMEOUT).text

        return _readings("container", run)


def _machine(world: World) -> list[Reading]:
    """Run the jobs as root in a clone."""
    with world.clone("jobs") as name:

        def run(task: Task) -> str:
            script = shlex.quote(task.script(install=True))  # ssh passes the words to a shell
            words = (world.armvm, "ssh", name, "--", "sudo", "sh", "-c", script)
            return world.run(*words, timeout=TIMEOUT).text

        return _readings("machine", run)


def table(results: Results) -> str:
    """Return the medians by job and place as Markdown, with the host that they come from."""
    rows = [["job", *PLACES.values(), "machine / container"]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    runs: list[str] = []
    for task in JOBS:
        cells = [task.title]
        medians = []
        for place in PLACES:
            figure = results.figures.get(f"{task.name}-{place}")
            if figure is None or figure.summary is None:
                cells.append("not measured" if figure is None else figure.problem)
                continue
            medians.append(figure.summary.median)
            cells.append(number(figure.summary.median))
            runs.append(figure.run)
        cells.append(f"{medians[1] / medians[0]:.1f}" if len(medians) == len(PLACES) else "–")
        rows.append(cells)
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, *results.hosts(runs)])


def _figures(place: str, where: str) -> tuple[Figure, ...]:
    return tuple(
        Figure(key=f"{task.name}-{place}", title=f"{task.title}, {where}") for task in JOBS
    )


CASES = [
    Case(
        group="docker",
        figures=_figures("container", "in an arm64 container"),
        run=_container,
        why_not=docker_problem,
    ),
    Case(group="docker", figures=_figures("machine", "in a machine"), run=_machine),
]
