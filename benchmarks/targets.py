"""The targets, and their comparison with the measured figures."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Results
from benchmarks.summary import number


@dataclass(frozen=True, kw_only=True)
class Target:
    """The maximum of a figure's median, in *unit*; with *over*, of its ratio to that figure's.

    For a ratio, *unit* is the unit of the two medians.
    """

    title: str
    figure: str
    limit: float
    over: str | None = None
    unit: str = "s"

    def limit_text(self) -> str:
        """Return the limit as text: seconds, MiB, or a ratio."""
        if self.over is None:
            return f"≤ {self.limit:g} {self.unit}"
        if self.limit <= 0.25:
            return f"≤ 1/{1 / self.limit:.0f}"
        return f"≤ {self.limit:g} ×"


TARGETS = (
    Target(title="clone → first ssh command done, user networking", figure="warm-user", limit=1.8),
    Target(
        title="the same, relative to the manual recipe's cold boot",
        figure="warm-user",
        over="cold-recipe",
        limit=1 / 25,
    ),
    Target(
        title="clone → first ssh command done, bridged network", figure="warm-bridged", limit=4.5
    ),
    Target(
        title="cold create → ssh, defaults, relative to the manual recipe",
        figure="cold-default",
        over="cold-recipe",
        limit=0.7,
    ),
    Target(
        title="cold create → ssh, --fast, relative to the manual recipe",
        figure="cold-fast",
        over="cold-recipe",
        limit=0.5,
    ),
    Target(
        title="create --no-wait, relative to virt-install --import --noautoconsole",
        figure="create-no-wait",
        over="virt-install-no-wait",
        limit=1.0,
    ),
    Target(
        title="disk space of a new clone, without seed and NVRAM",
        figure="scale-disk",
        limit=1.0,
        unit="MiB",
    ),
    Target(
        title="reboot → kernel of a guest that worked for 10 minutes, relative to its cold start",
        figure="reboot-warm",
        over="start-kernel",
        limit=1.2,
    ),
    Target(
        title="memory of a cold, idle machine of 1 GiB", figure="cold-pss", limit=1200.0, unit="MiB"
    ),
    Target(
        title="memory added by the 2nd…5th idle clone, relative to a cold machine",
        figure="scale-added",
        over="cold-pss",
        limit=0.5,
        unit="MiB",
    ),
    Target(title="armvm run -- true, including removal of the machine", figure="run", limit=1.3),
    Target(title="the same, relative to docker run", figure="run", over="docker-run", limit=6.0),
    Target(
        title="armvm run -- true from a pool, relative to docker run",
        figure="run-pool",
        over="docker-run",
        limit=2.5,
    ),
    Target(
        title="create from a pool → first command's output, relative to docker run",
        figure="create-pool",
        over="docker-run",
        limit=2.5,
    ),
    Target(
        title="Lua's 33 C files in an accelerated machine, relative to the same machine without",
        figure="compile-accelerated",
        over="compile-guest",
        limit=0.2,
    ),
    Target(
        title="golden create --install gcc,make, beyond golden create",
        figure="golden-install",
        limit=120.0,
    ),
    Target(title="armvm ssh -- true, second and later", figure="ssh-next", limit=0.3),
    Target(
        title="the same, relative to docker run", figure="ssh-next", over="docker-run", limit=1.3
    ),
    Target(title="armvm exec in a clone", figure="exec", limit=0.35),
    Target(title="the same, relative to docker run", figure="exec", over="docker-run", limit=1.5),
    Target(
        title="run --mount, 5,000 files in and out, relative to rsync in a running machine",
        figure="files-mount",
        over="files-rsync",
        limit=1.0,
    ),
    Target(
        title="the same, relative to tar in a running machine",
        figure="files-mount",
        over="files-tar",
        limit=1.0,
    ),
    Target(
        title="run --mount, 100 MB in, relative to scp to a running machine",
        figure="large-mount",
        over="large-scp",
        limit=1 / 4,
    ),
    Target(
        title="armvm cp, 100 MB in, relative to scp",
        figure="large-cp",
        over="large-scp",
        limit=1 / 4,
    ),
    Target(title="golden create, without the boot", figure="golden", limit=20.0),
    Target(
        title="armvm --help, relative to python -c 'import typer'",
        figure="help",
        over="typer",
        limit=1.5,
    ),
    Target(title="armvm list with 100 domains", figure="list", limit=0.6),
    Target(
        title="image pull, 512 MiB from loopback, relative to curl -O and sha256sum",
        figure="fetch",
        over="fetch-curl",
        limit=1.0,
    ),
    Target(title="peak memory of that image pull", figure="fetch-memory", limit=100.0, unit="MiB"),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A target and its result as texts for the table; *met* is None if it was not measured."""

    target: Target
    limit: str
    measured: str
    met: bool | None


def judge(results: Results, target: Target) -> Verdict:
    """Return a target's verdict, or the reason why it was not measured."""
    parts = [target.figure] + ([target.over] if target.over else [])
    for key in parts:
        found = results.figures.get(key)
        if found is None or found.summary is None:
            why = found.problem if found else "is not in this run"
            return Verdict(
                target=target,
                limit=target.limit_text(),
                measured=f"not measured: {key} {why}",
                met=None,
            )
    medians = [results.median(key) for key in parts]
    value = medians[0] if target.over is None else medians[0] / medians[1]
    text = f"{number(medians[0])} {target.unit}"
    if target.over is not None:
        text = f"{value:.3f} × ({number(medians[0])} of {number(medians[1])} {target.unit})"
        if len({results.figures[key].run for key in parts}) > 1:
            text += ", from two runs"
    return Verdict(
        target=target, limit=target.limit_text(), measured=text, met=value <= target.limit
    )
