"""Directories and large files to machines and back: ``run --mount``, ``cp``, rsync, tar, scp."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from armvm.base.errors import CommandFailed
from armvm.base.process import run
from benchmarks.case import Case, Figure, Reading, possible
from benchmarks.login import Login, login, shared
from benchmarks.world import LeftOut, World, need

#: The directory: FOLDERS folders with as many files each, of SIZE bytes that do not compress.
FILES, FOLDERS, SIZE = 5000, 50, 2000
#: The large file, in bytes.
LARGE = 100_000_000
#: The command that runs between in and out: it changes each file of the directory.
CHANGE = 'for file in */*; do echo changed >>"$file"; done'
_CHANGED = b"changed\n"
#: tar to and from another command, whose words follow the directory.
_TAR_IN = 'directory=$1; shift; tar -C "$directory" -c . | "$@"'
_TAR_OUT = 'directory=$1; shift; "$@" | tar -C "$directory" -x'


def make_tree(directory: Path) -> None:
    """Make the directory with its files."""
    for folder in range(FOLDERS):
        place = directory / f"folder-{folder}"
        place.mkdir(parents=True)
        for number in range(FILES // FOLDERS):
            (place / f"file-{number}").write_bytes(os.urandom(SIZE))


def check_tree(directory: Path) -> None:
    """Raise CommandFailed unless all files came back changed."""
    sizes = [path.stat().st_size for path in directory.glob("folder-*/file-*")]
    right = sizes.count(SIZE + len(_CHANGED))
    if right != FILES:
        raise CommandFailed(f"{right} of {FILES} files came back changed")


@contextmanager
def _tree(world: World) -> Iterator[Path]:
    """Make the directory for one case, check it afterwards, and remove it."""
    directory = world.directory / "tree"
    try:
        make_tree(directory)
        yield directory
        check_tree(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run_mount(world: World, mount: str, command: str) -> float:
    """Time a temporary machine with a directory."""
    golden = world.golden("user")
    with world.removed(world.name("mount")) as name:
        words = (world.armvm, "run", "--from", golden, "--name", name, "--mount", mount)
        return world.timed(*words, "--", "sh", "-c", command)


def _files_mount(world: World) -> list[Reading]:
    with _tree(world) as tree:
        seconds = _run_mount(world, f"{tree}:tree", CHANGE)
    return [Reading(figure="files-mount", value=seconds)]


def _peer(
    figure: str, commands: Callable[[Login, Path], Sequence[list[str]]]
) -> Callable[[World], list[Reading]]:
    """Return a case's run: three commands (in, change, out) over one connection that is open."""

    def case(world: World) -> list[Reading]:
        with _tree(world) as tree, world.clone("peer") as name:
            control = world.directory / f"{name}.socket"
            with shared(login(world, name), control) as way:
                times = [world.timed(*one) for one in commands(way, tree)]
        parts = dict(zip(("in", "command", "out"), times, strict=True))
        return [Reading(figure=figure, value=sum(times), parts=parts)]

    return case


def with_tar(way: Login, tree: Path) -> list[list[str]]:
    """Return the commands with tar."""
    return [
        ["sh", "-c", _TAR_IN, "sh", str(tree), *way.ssh("mkdir tree && tar -C tree -x")],
        way.ssh(f"cd tree && {CHANGE}"),
        ["sh", "-c", _TAR_OUT, "sh", str(tree), *way.ssh("tar -C tree -c .")],
    ]


def with_rsync(way: Login, tree: Path) -> list[list[str]]:
    """Return the commands with rsync. Raises LeftOut if the guest does not have it."""
    if run(way.ssh("command -v rsync"), check=False, timeout=60).returncode != 0:
        raise LeftOut("the guest's image does not have rsync")
    words = ["rsync", "-a", "-e", shlex.join(["ssh", *way.options])]
    return [
        [*words, f"{tree}/", f"{way.target}:tree/"],
        way.ssh(f"cd tree && {CHANGE}"),
        [*words, f"{way.target}:tree/", f"{tree}/"],
    ]


def _rsync_problem(_: World) -> str | None:
    return need(("rsync", "apt-get install rsync"))


def _large(world: World) -> Path:
    """Return the large file, alone in its directory; made once."""
    file = world.directory / "large" / "file"
    if not file.exists():
        file.parent.mkdir()
        file.write_bytes(os.urandom(LARGE))
    return file


def _large_mount(world: World) -> list[Reading]:
    """Time ``run --mount DIR:ro`` with the large file; its command checks the size."""
    command = f'[ "$(stat -c %s file)" = {LARGE} ]'
    seconds = _run_mount(world, f"{_large(world).parent}:large:ro", command)
    return [Reading(figure="large-mount", value=seconds)]


def _large_cp(world: World) -> list[Reading]:
    file = _large(world)
    with world.clone("cp") as name:
        seconds = world.timed(world.armvm, "cp", file, f"{name}:")
        _check_large(world, name)
    return [Reading(figure="large-cp", value=seconds)]


def _large_scp(world: World) -> list[Reading]:
    """Time scp with a connection of its own."""
    file = _large(world)
    with world.clone("scp") as name:
        way = login(world, name)
        seconds = world.timed("scp", "-q", *way.options, file, f"{way.target}:")
        _check_large(world, name)
    return [Reading(figure="large-scp", value=seconds)]


def _check_large(world: World, name: str) -> None:
    """Raise CommandFailed unless the whole file arrived."""
    told = world.run(world.armvm, "ssh", name, "--", "stat -c %s file").text.strip()
    if told != str(LARGE):
        raise CommandFailed(f"{told} of {LARGE} bytes arrived in {name}")


def _case(
    key: str,
    title: str,
    run: Callable[[World], list[Reading]],
    why_not: Callable[[World], str | None] = possible,
) -> Case:
    group = key.partition("-")[0]
    return Case(group=group, figures=(Figure(key=key, title=title),), run=run, why_not=why_not)


CASES = [
    _case("files-mount", "armvm run --mount, 5,000 files", _files_mount),
    _case(
        "files-rsync",
        "rsync over an open ssh connection",
        _peer("files-rsync", with_rsync),
        _rsync_problem,
    ),
    _case("files-tar", "tar over an open ssh connection", _peer("files-tar", with_tar)),
    _case("large-mount", "armvm run --mount, 100 MB", _large_mount),
    _case("large-cp", "armvm cp, 100 MB", _large_cp),
    _case("large-scp", "scp with a new connection", _large_scp),
]
