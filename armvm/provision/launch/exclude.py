"""Which files of a directory stay where they are, by patterns."""

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
    """Patterns as a shell's. One with a slash (but for its end) is for the path, others for names.

    One that ends with a slash is for directories alone. With a directory, all in it is excluded.
    """

    patterns: tuple[str, ...] = ()

    def matches(self, path: str, *, directory: bool) -> bool:
        """Tell whether a path, relative and without ``.`` and ``..``, is excluded."""
        if any(_fits(path, pattern, directory) for pattern in self.patterns):
            return True
        parent = posixpath.dirname(path)
        return bool(parent) and self.matches(parent, directory=True)


def read_exclude(patterns: Sequence[str]) -> Exclude:
    """Return what the patterns exclude. Raises ConfigError for one that can match nothing."""
    for pattern in patterns:
        parts = pattern.strip("/").split("/")
        if "\0" in pattern or any(part in ("", ".", "..") for part in parts):
            raise ConfigError(
                f"{shown(pattern)} excludes nothing", hint="write it like '*.o', build/ or docs/api"
            )
    return Exclude(patterns=tuple(patterns))


def _fits(path: str, pattern: str, directory: bool) -> bool:
    if pattern.endswith("/") and not directory:
        return False
    plain = pattern.rstrip("/")
    if "/" in plain:
        return fnmatchcase(path, plain.removeprefix("/"))
    return fnmatchcase(posixpath.basename(path), plain)
