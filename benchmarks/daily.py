"""Commands in a machine that runs, and ``docker run`` of an arm64 image beside them."""

from __future__ import annotations

from benchmarks.case import Case, Figure, Reading
from benchmarks.docker import docker, docker_problem
from benchmarks.world import World

#: Commands of each kind in a round, after the first.
COUNT = 2


def _docker(world: World) -> list[Reading]:
    """Time ``docker run --rm … true``. The check of the image was its first run."""
    with docker(world) as found:
        seconds = [world.timed(*found.run("true")) for _ in range(COUNT + 1)]
    return [Reading(figure="docker-run", value=one) for one in seconds]


def _commands(world: World) -> list[Reading]:
    """Time ``armvm ssh`` and ``armvm exec`` in turn, in a clone that nobody has logged in to."""
    readings = []
    with world.clone("daily") as name:
        for number in range(COUNT + 1):
            for figure, verb in (("ssh-next" if number else "ssh-first", "ssh"), ("exec", "exec")):
                seconds = world.timed(world.armvm, verb, name, "--", "true")
                readings.append(Reading(figure=figure, value=seconds))
    return readings


CASES = [
    Case(
        group="daily",
        figures=(Figure(key="docker-run", title="docker run --rm ARM64-IMAGE true"),),
        run=_docker,
        why_not=docker_problem,
    ),
    Case(
        group="daily",
        figures=(
            Figure(key="ssh-first", title="armvm ssh CLONE -- true, first"),
            Figure(key="ssh-next", title="armvm ssh CLONE -- true, second and third"),
            Figure(key="exec", title="armvm exec CLONE -- true"),
        ),
        run=_commands,
    ),
]
