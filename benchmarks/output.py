"""Write the results: JSON, charts, and the table in the docs page."""

from __future__ import annotations

from pathlib import Path

from benchmarks import chart, table
from benchmarks.results import Results, to_json

#: Below the docs directory.
PAGE = Path("benchmarks.md")


def files(results: Results) -> dict[Path, str]:
    """Return the files made from the results: paths below the docs directory, and texts."""
    return {
        Path("benchmarks/results.json"): to_json(results),
        Path("benchmarks/chart.svg"): chart.bars(results),
        Path("benchmarks/scale.svg"): chart.curves(results),
    }


def write(results: Results, docs: Path) -> str:
    """Write all files, and the table into the docs page if it exists; return the table."""
    for path, text in files(results).items():
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        (docs / path).write_text(text)
    page = docs / PAGE
    if page.exists():
        page.write_text(table.insert(page.read_text(), results))
    return table.render(results)
