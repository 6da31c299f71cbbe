"""Statistics of samples: median and range."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The median, minimum, maximum and number of samples."""

    median: float
    low: float
    high: float
    count: int


def summarize(samples: Sequence[float]) -> Summary | None:
    """Return the summary of *samples*; None without samples."""
    if not samples:
        return None
    return Summary(
        median=statistics.median(samples), low=min(samples), high=max(samples), count=len(samples)
    )


def number(value: float) -> str:
    """Return a value with three significant digits and at most two decimal places."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{places}f}"
