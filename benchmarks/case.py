"""What a benchmark is: figures that a case measures, and the readings it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.world import World


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of the table: what it is, and its unit (``s`` or ``MiB``)."""

    key: str
    title: str
    unit: str = "s"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measured value of a figure; *parts* are what it is made of, or what else was seen."""

    figure: str
    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


def possible(_: World) -> None:
    """Return None: what every host can do."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to do and to time.

    *run* does it once, removes what it made, and returns its readings; it raises LeftOut where
    that cannot be done. *why_not* tells the same beforehand, in words, or returns None. A case
    that runs *once* is a series of its own, and not repeated in every round.
    """

    group: str
    figures: tuple[Figure, ...]
    run: Callable[[World], list[Reading]]
    why_not: Callable[[World], str | None] = possible
    once: bool = False

    @property
    def key(self) -> str:
        """Its name on the command line: that of its first figure."""
        return self.figures[0].key


def select(cases: list[Case], words: list[str]) -> list[Case]:
    """Return the cases that *words* name, by group or key, in their own order; all without words.

    Raises ValueError for a word that names none.
    """
    known = {case.group for case in cases} | {case.key for case in cases}
    for word in words:
        if word not in known:
            raise ValueError(f"no case is called {word}: there are {', '.join(sorted(known))}")
    return [case for case in cases if not words or {case.group, case.key} & set(words)]
