"""Data types of a benchmark: cases, the figures they measure, and their readings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.world import World


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table: its title and unit (``s`` or ``MiB``)."""

    key: str
    title: str
    unit: str = "s"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measured value of a figure; *parts* are its components or other values."""

    figure: str
    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


def possible(_: World) -> None:
    """Return None: every host can run the case."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation to time.

    *run* does it once, cleans up, and returns the readings. It raises LeftOut if the host cannot do
    it. *why_not* checks this in advance and returns the reason or None. A case with *once* is a
    series of its own and is not repeated in every round.
    """

    group: str
    figures: tuple[Figure, ...]
    run: Callable[[World], list[Reading]]
    why_not: Callable[[World], str | None] = possible
    once: bool = False

    @property
    def key(self) -> str:
        """The case's name on the command line: the key of its first figure."""
        return self.figures[0].key


def select(cases: list[Case], words: list[str]) -> list[Case]:
    """Return the cases named by *words*, by group or key, in table order; without words, all.

    Raises ValueError for an unknown word.
    """
    known = {case.group for case in cases} | {case.key for case in cases}
    for word in words:
        if word not in known:
            raise ValueError(f"unknown case {word}; known: {', '.join(sorted(known))}")
    return [case for case in cases if not words or {case.group, case.key} & set(words)]
