"""Patterns for the files of a directory that are not copied."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

GIT = ".git"


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """Shell patterns. A pattern with a slash before its end matches paths, any other names.

    A pattern with a final slash matches only directories. An excluded directory excludes its
    contents.
    """

    patterns: tuple[str, ...] = ()

    def matches(self, path: str, *, directory: bool) -> bool:
        """Return whether a path is excluded. It is relative, without ``.`` and ``..``."""
        if any(_fits(path, pattern, directory) for pattern in self.patterns):
            return True
        parent = posixpath.dirname(path)
        return bool(parent) and self.matches(parent, directory=True)


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


def _fits(path: str, pattern: str, directory: bool) -> bool:
    if pattern.endswith("/") and not directory:
        return False
    plain = pattern.rstrip("/")
    if "/" in plain:
        return fnmatchcase(path, plain.removeprefix("/"))
    return fnmatchcase(posixpath.basename(path), plain)
