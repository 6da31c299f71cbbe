"""One compile step of a guest: its files are gathered and compiled, or the step is declined."""

from __future__ import annotations

import contextlib
import os
import posixpath
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from armvm.base.errors import ArmvmError
from armvm.provision.accelerate import sandbox
from armvm.provision.accelerate.conversation import LARGEST_FILE, Conversation
from armvm.provision.accelerate.includes import Closure, Include, Stat, plain
from armvm.provision.accelerate.options import Declined, Step, read
from armvm.provision.accelerate.store import LARGEST, Store, has_room

#: Most directories of one compile step.
MOST_DIRECTORIES = 4000
_MISSING = Stat(kind=0)


@dataclass(frozen=True, kw_only=True)
class Compilers:
    """The compilers of a guest and of this host, by language (``c``, ``c++``).

    ``names`` are the names that the guest's programs have, ``standard`` their include directories;
    ``host`` are the paths of this host's programs, ``hidden`` all their include directories.
    """

    names: Mapping[str, str]
    host: Mapping[str, str]
    standard: Mapping[str, Sequence[str]]
    hidden: Sequence[str]


def serve(
    connection: socket.socket,
    compilers: Compilers,
    store: Store,
    slots: threading.Semaphore,
    said: Callable[[str], None],
) -> None:
    """Compile one step for a guest, or decline it. Never raises: *said* gets a line about it."""
    guest = Conversation(connection)
    told = ""
    with contextlib.suppress(OSError), connection:
        try:
            told = _serve(guest, compilers, store, slots)
        except Exception as error:  # what the guest sends may cause any
            reason = str(error)[:500] or type(error).__name__
            detail = error.detail if isinstance(error, ArmvmError) else None
            told = f"declined: {reason}" + (f": {detail}" if detail else "")
            guest.decline(reason)
    said(told)


def _serve(
    guest: Conversation, compilers: Compilers, store: Store, slots: threading.Semaphore
) -> str:
    """Compile one step for a guest and return a line about it. Raises Declined, or any error."""
    directory, terminal, epoch, name, *words = guest.command()
    begun = time.monotonic()
    if name not in compilers.names:
        raise Declined(f"not one of its compilers: {name[:60]!r}")
    if not posixpath.isabs(directory) or posixpath.normpath(directory) != directory:
        raise Declined("an odd working directory")
    step = read(compilers.names[name], words)
    if step.language not in compilers.host:
        raise Declined(f"no compiler for {step.language}")
    compiler, standard = compilers.host[step.language], compilers.standard[step.language]
    with tempfile.TemporaryDirectory(dir=store.directory.parent, prefix="job-") as place:
        sandbox.may_use(Path(place))
        tree = Path(place) / "tree"
        _gather(guest, step, directory, standard, store, tree)
        gathered = time.monotonic()
        with slots:
            result = sandbox.compile_in(
                tree,
                step,
                compiler=compiler,
                hidden=compilers.hidden,
                standard=standard,
                directory=directory,
                epoch=epoch,
                terminal=terminal == "tty",
            )
    if result.code != 0 or result.output is None:
        raise Declined(f"exit code {result.code}")
    if (result.depends is None) != (step.depends is None):
        raise Declined("no dependency file")
    if result.depends is not None and step.depends is not None:
        guest.write(step.depends, result.depends)
    guest.write(step.output, result.output)
    guest.end(result.messages)
    now = time.monotonic()
    took = f"{now - begun:.2f} s, of which {gathered - begun:.2f} s to find its files"
    return f"compiled in {took}: {' '.join(words)[-200:]}"


def _gather(
    guest: Conversation,
    step: Step,
    directory: str,
    standard: Sequence[str],
    store: Store,
    tree: Path,
) -> None:
    """Create a directory tree with the step's files at the paths that they have in the guest."""

    def included(wanted: Sequence[tuple[str, Stat]]) -> list[tuple[Include, ...]]:
        new = [one for one in wanted if one not in store.kept]
        if sum(stat.size for _, stat in new) > LARGEST or any(
            stat.size > LARGEST_FILE for _, stat in new
        ):
            raise Declined("files that are too large")
        if new:
            for (path, stat), content in zip(new, guest.contents(new), strict=True):
                store.add(path, stat, content)
        found = []
        for one in wanted:
            store.place(one)
            names = store.names(one)
            if isinstance(names, Declined):
                raise Declined(f"{one[0]}: {names}")
            found.append(names)
        return found

    closure = Closure(
        step=step,
        directory=directory,
        standard=standard,
        stat=guest.stat,
        included=included,
        defined=store.definitions,
    )
    source = posixpath.join(directory, step.source)
    if source not in store.last:
        stat, content = guest.file(source)
        store.add(source, stat, content)
        closure.known[source] = stat
    # Each answer of an emulated guest takes long: ask at once for all that was asked before.
    guess = replace(
        closure,
        stat=lambda paths: [
            closure.known.get(one) or store.last.get(one, _MISSING) for one in paths
        ],
        included=lambda wanted: [_known(store.names(one)) for one in wanted],
        known={},
        files={},
    )
    with contextlib.suppress(Declined):
        guess.find()
    closure.ask((*guess.known, *guess.crossings(), *map(plain, guess.files)))
    there = [(one, closure.known[one]) for one in guess.files]
    included([one for one in there if one[1].is_file])
    files = closure.find()
    closure.ask((*closure.crossings(), *map(plain, files)))
    closure.check_links()
    store.remember(closure.known)
    if not has_room(os.statvfs(store.directory)):
        raise Declined(f"no space is left in {store.directory}")
    tree.mkdir()
    places: dict[str, Path] = {}
    for path, stat in files.items():
        target = plain(path)
        if target.startswith(sandbox.TAKEN):
            raise Declined(f"a file at {target}")
        place = store.place((path, stat))
        # The compiler reads a/../b by way of a, which may be a link in the guest.
        same = replace(closure.known[target], kind=stat.kind) == stat
        if places.setdefault(target, place) != place or not same:
            raise Declined(f"{path} leads through a link")
    made = {"/"}

    def make(folder: str) -> None:
        missing = []
        while folder not in made:
            missing.append(folder)
            folder = posixpath.dirname(folder)
        for one in reversed(missing):
            if len(made) > MOST_DIRECTORIES:
                raise Declined(f"more than {MOST_DIRECTORIES} directories")
            (tree / one[1:]).mkdir()
            made.add(one)

    if f"{directory}/".startswith(sandbox.TAKEN):
        raise Declined(f"the working directory {directory}")
    make(directory)
    for folder in map(plain, closure.directories()):  # gcc may warn of those that are missing
        if not f"{folder}/".startswith(sandbox.TAKEN):
            make(folder)
    for path in files:
        parts = posixpath.dirname(path).split("/")
        if ".." in parts:  # also the directories that it leaves again
            for end in range(1, len(parts)):
                make(plain("/".join(parts[: end + 1])))
    for target, place in places.items():
        make(posixpath.dirname(target))
        os.link(place, tree / target.lstrip("/"))
    sandbox.prepare(tree)


def _known(names: tuple[Include, ...] | Declined) -> tuple[Include, ...]:
    return () if isinstance(names, Declined) else names
