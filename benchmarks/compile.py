"""Compile Lua: in a machine, accelerated by the host, natively, and by user mode.

Also the golden with compilers that the machine is a clone of, and what its packages cost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from pathlib import Path

import requests

from benchmarks.case import Case, Figure, Reading
from benchmarks.results import Results
from benchmarks.summary import number
from benchmarks.usermode_tasks import TIMEOUT, seconds
from benchmarks.world import LeftOut, World, need, which

#: Lua's source as Debian distributes it, and its digest: 33 C files and one in C of the compiler.
SOURCE = "http://deb.debian.org/debian/pool/main/l/lua5.4/lua5.4_5.4.4.orig.tar.gz"
DIGEST = "164c7849653b80ae67bec4b7473b884bf5cc8d2dca05653475ec2ed27b9ebf61"
#: The packages of the golden.
PACKAGES = ("gcc", "make")
#: Compiles and links with a compiler ($1) two files at a time. Its last line is what
#: `benchmarks.usermode_tasks.seconds` reads.
_SCRIPT = """\
set -e
work=$(mktemp -d "${TMPDIR:-/var/tmp}/armvm-lua.XXXXXX")
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xzf "$2" --strip-components 1
cd "$work/src"
start=$(date +%s.%N)
make -s -j 2 CC="$1 -std=gnu99" linux-noreadline >&2
end=$(date +%s.%N)
test -x lua
echo "armvm-task $start $end"
"""


def _source(world: World) -> Path:
    """Return the archive; download it first."""
    path = world.directory / "lua.tar.gz"
    if not path.exists():
        try:
            answer = requests.get(SOURCE, timeout=60)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise LeftOut(f"{SOURCE}: {error}") from error
        if hashlib.sha256(answer.content).hexdigest() != DIGEST:
            raise LeftOut(f"{SOURCE} is not the file that was expected")
        path.write_bytes(answer.content)
    return path


def _golden(world: World) -> list[Reading]:
    """Create a golden with packages, and time what comes before its boot."""
    name = "with-" + "-".join(PACKAGES)
    found = json.loads(world.run(world.armvm, "image", "list", "--json").text)
    cached = [one["reference"] for one in found if one["reference"].startswith(f"local:{name}-")]
    if cached:
        raise LeftOut(f"its image is cached: armvm image rm {cached[0]}")
    baked = world.bake("user", "--install", ",".join(PACKAGES))
    world.keep_golden("tools", baked)
    parts = {"whole": baked.seconds, "boot": baked.boot - baked.begun}
    return [Reading(figure="golden-install", value=baked.begun, parts=parts)]


def _machine(world: World) -> list[Reading]:
    """Compile in a clone by its own compiler, then accelerated."""
    source = _source(world)
    if not world.has_golden("tools"):
        world.keep_golden("tools", world.bake("user", "--install", ",".join(PACKAGES)))
    with world.clone("compile", kind="tools") as name:
        world.run(world.armvm, "cp", "--quiet", source, f"{name}:lua.tar.gz")

        def compile_with(compiler: str) -> float:
            script = shlex.join(["sh", "-c", _SCRIPT, "sh", compiler, "lua.tar.gz"])
            done = world.run(world.armvm, "ssh", name, "--", script, timeout=TIMEOUT)
            return seconds(done.text)

        own = compile_with("/usr/bin/gcc")
        begun = world.timed(world.armvm, "accelerate", name, "--quiet")
        compile_with("gcc")  # the first build sends the headers
        accelerated = compile_with("gcc")
        world.run(world.armvm, "accelerate", name, "--stop")
    return [
        Reading(figure="compile-guest", value=own),
        Reading(figure="compile-accelerated", value=accelerated, parts={"armvm accelerate": begun}),
    ]


def _machine_problem(_: World) -> str | None:
    packages = "apt-get install bubblewrap gcc-aarch64-linux-gnu"
    return need(("bwrap", packages), ("aarch64-linux-gnu-gcc", packages))


def _native(world: World) -> list[Reading]:
    words = ("sh", "-c", _SCRIPT, "sh", "gcc", _source(world))
    return [Reading(figure="compile-native", value=seconds(world.run(*words).text))]


def _user_mode(world: World) -> list[Reading]:
    """Compile in a root file system, whose programs run by user-mode emulation."""
    source, root = _source(world), world.root_file_system()
    inside = root / "var/tmp/lua.tar.gz"
    install = (
        "apt-get -q update && apt-get -q -y --no-install-recommends install gcc make libc6-dev"
    )
    enter = (world.armvm, "rootfs", "enter", root, "--")
    try:
        inside.write_bytes(source.read_bytes())
        ready = f"command -v gcc make >/dev/null && [ -e /usr/include/stdio.h ] || {{ {install}; }}"
        world.run(*enter, "sh", "-c", ready, timeout=TIMEOUT)
        words = ("sh", "-c", _SCRIPT, "sh", "gcc", f"/{inside.relative_to(root)}")
        done = world.run(*enter, *words, timeout=TIMEOUT)
    finally:
        with contextlib.suppress(OSError):
            inside.unlink()
    return [Reading(figure="compile-user-mode", value=seconds(done.text))]


#: The rows of the table: figure, and where the compiler runs.
_ROWS = {
    "compile-guest": "the guest's gcc, in the machine",
    "compile-accelerated": "the same machine after `armvm accelerate`",
    "compile-user-mode": "the same gcc in a root file system, by user-mode emulation",
    "compile-native": "the host's own gcc, for x86-64",
}


def table(results: Results) -> str:
    """Return the medians as Markdown, with the host that they come from."""
    base = results.figures.get("compile-guest")
    lines = ["| Lua's 33 C files, two at a time | s | of the first |", "|---|---:|---:|"]
    runs: list[str] = []
    for key, title in _ROWS.items():
        figure = results.figures.get(key)
        if figure is None or figure.summary is None:
            told = "not measured" if figure is None else figure.problem
            lines.append(f"| {title} | {told} | |")
            continue
        value = figure.summary.median
        known = base is not None and base.summary is not None
        ratio = f"{value / results.median('compile-guest'):.2f}" if known else ""
        lines.append(f"| {title} | {number(value)} | {ratio} |")
        runs.append(figure.run)
    return "\n".join([*lines, *results.hosts(runs)])


def _no_gcc(_: World) -> str | None:
    return None if which("gcc") and which("make") else "gcc or make is not installed"


CASES = [
    Case(
        group="compile",
        figures=(
            Figure(
                key="golden-install",
                title="armvm golden create --install gcc,make: before its boot",
            ),
        ),
        run=_golden,
        once=True,
    ),
    Case(
        group="compile",
        figures=(
            Figure(key="compile-guest", title="Lua's 33 C files in a machine"),
            Figure(key="compile-accelerated", title="the same, after armvm accelerate"),
        ),
        run=_machine,
        why_not=_machine_problem,
    ),
    Case(
        group="compile",
        figures=(Figure(key="compile-user-mode", title="the same by user mode"),),
        run=_user_mode,
    ),
    Case(
        group="compile",
        figures=(Figure(key="compile-native", title="the same by the host's gcc"),),
        run=_native,
        why_not=_no_gcc,
    ),
]
