"""Patterns for the files of a directory that are not copied."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from armvm.base import process
from armvm.base.errors import CommandFailed, ConfigError
from armvm.settings.names import shown

GIT = ".git"
#: Seconds for git to look through a directory.
_TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """Shell patterns. A pattern with a slash before its end matches paths, any other names.

    A pattern with a final slash matches only directories. An excluded directory excludes its
    contents. ``paths`` are excluded as they are; the path of a directory ends with a slash.
    """

    patterns: tuple[str, ...] = ()
    paths: frozenset[str] = frozenset()

    def matches(self, path: str, *, directory: bool) -> bool:
        """Return whether a path is excluded. It is relative, without ``.`` and ``..``."""
        while path:
            if any(_fits(path, pattern, directory) for pattern in self.patterns):
                return True
            if (f"{path}/" if directory else path) in self.paths:
                return True
            path, directory = posixpath.dirname(path), True
        return False


def read_exclude(patterns: Sequence[str]) -> Exclude:
    """Return the patterns as an Exclude. Raises ConfigError for one that can never match."""
    for pattern in patterns:
        parts = pattern.strip("/").split("/")
        if "\0" in pattern or any(part in ("", ".", "..") for part in parts):
            raise ConfigError(
                f"invalid pattern {shown(pattern)} for --exclude",
                hint="examples: '*.o', build/, docs/api",
            )
    return Exclude(patterns=tuple(patterns))


def ignored_by_git(directory: Path) -> frozenset[str]:
    """Return the paths in a directory of a git work tree that git ignores, for `Exclude`.

    Raises ConfigError if the directory is in no work tree, MissingCapability without git.
    """
    found = _git(directory, ["ls-files", "--others", "--ignored", "--exclude-standard"], b"")
    return frozenset(_paths(found))


def ignored_of(directory: Path, paths: Collection[str]) -> frozenset[str]:
    """Return which of *paths* git would ignore in a directory, also those that it does not have."""
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    return frozenset(_paths(_git(directory, ["check-ignore", "--stdin"], asked)))


def _git(directory: Path, words: Sequence[str], data: bytes) -> bytes:
    """Run git with options for zero bytes; 1 from check-ignore means that it ignores nothing."""
    where = ["git", "-C", str(directory), "-c", "core.fsmonitor=false"]  # it could name a program
    more = ["-z", "--directory"] if words[0] == "ls-files" else ["-z"]
    done = process.run([*where, *words, *more], input=data, check=False, timeout=_TIMEOUT)
    if done.returncode == 0 or (done.returncode == 1 and words[0] == "check-ignore"):
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in said:
        raise ConfigError(
            f"{shown(str(directory))} is not in a git work tree", hint="leave out --gitignore"
        )
    raise CommandFailed(f"git failed with exit code {done.returncode}", detail=said)


def _paths(data: bytes) -> list[str]:
    return [os.fsdecode(path) for path in data.split(b"\0") if path]


def _fits(path: str, pattern: str, directory: bool) -> bool:
    if pattern.endswith("/") and not directory:
        return False
    plain = pattern.rstrip("/")
    if "/" in plain:
        return fnmatchcase(path, plain.removeprefix("/"))
    return fnmatchcase(posixpath.basename(path), plain)
