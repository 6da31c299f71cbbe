"""The results as data, and reading and writing results.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.case import Figure, Reading
from benchmarks.summary import Summary, summarize

#: Facts about a run's host that the small tables name.
_HOST = ("date", "machine", "accelerator", "QEMU", "Docker", "load before", "rounds")
#: Increased when the JSON's shape changes, so that an older file is not misread.
FORMAT = 1


@dataclass(kw_only=True)
class Measured:
    """A figure with its samples, or the reason why it was not measured.

    *run* is the key of the run that measured it; *parts* correspond to *samples*.
    """

    key: str
    title: str
    unit: str
    group: str
    run: str
    samples: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    left_out: str | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def summary(self) -> Summary | None:
        """Median and range; None without samples."""
        return summarize(self.samples)

    @property
    def problem(self) -> str:
        """The reason why there are no samples."""
        if self.failures:
            return f"failed: {self.failures[-1]}"
        return f"left out: {self.left_out or 'not reached'}"


@dataclass(kw_only=True)
class Results:
    """All figures by key, and their runs by date."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: dict[str, Measured] = field(default_factory=dict)

    def begin(self, run: str, group: str, figure: Figure) -> None:
        """Add an empty figure, replacing that of an earlier run."""
        self.figures[figure.key] = Measured(
            key=figure.key, title=figure.title, unit=figure.unit, group=group, run=run
        )

    def retitle(self, figures: Iterable[Figure]) -> None:
        """Set the current titles on figures of earlier runs."""
        for figure in figures:
            if figure.key in self.figures:
                self.figures[figure.key].title = figure.title

    def add(self, reading: Reading) -> None:
        """Add a reading to its figure."""
        figure = self.figures[reading.figure]
        figure.samples.append(reading.value)
        figure.parts.append(dict(reading.parts))

    def median(self, key: str) -> float:
        """Return a figure's median. Raises KeyError without samples."""
        summary = self.figures[key].summary
        if summary is None:
            raise KeyError(key)
        return summary.median

    def hosts(self, runs: Iterable[str]) -> list[str]:
        """Return lines of Markdown with the hosts of these runs, each once."""
        lines = []
        for run in dict.fromkeys(runs):
            facts = self.runs[run]
            told = "; ".join(f"{key} {facts[key]}" for key in _HOST if key in facts)
            lines += ["", f"Medians. Measured on: {told}."]
        return lines

    def forget_unused_runs(self) -> None:
        """Remove runs that no figure uses."""
        used = {figure.run for figure in self.figures.values()}
        self.runs = {key: facts for key, facts in self.runs.items() if key in used}

    def in_order(self, keys: list[str]) -> None:
        """Sort the figures by *keys*, and remove all others."""
        self.figures = {key: self.figures[key] for key in keys if key in self.figures}


def to_json(results: Results) -> str:
    """Return the text of results.json; it includes medians for other readers."""
    figures: dict[str, Any] = {}
    for key, figure in results.figures.items():
        summary = figure.summary
        figures[key] = {**asdict(figure), "summary": summary and asdict(summary)}
        del figures[key]["key"]
    document = {"format": FORMAT, "runs": results.runs, "figures": figures}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Results:
    """Return the results of a results.json. Raises ValueError for another format."""
    document: Mapping[str, Any] = json.loads(text)
    if document.get("format") != FORMAT:
        raise ValueError(f"results of format {document.get('format')}, not {FORMAT}")
    figures = {}
    for key, found in document["figures"].items():
        values = {name: value for name, value in found.items() if name != "summary"}
        figures[key] = Measured(key=key, **values)
    return Results(runs=dict(document["runs"]), figures=figures)


def read(path: Path) -> Results:
    """Return the results of an earlier run in *path*; empty results without the file."""
    return from_json(path.read_text()) if path.exists() else Results()
