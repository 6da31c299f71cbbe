"""Write the results: JSON, charts, and the tables in the docs pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import chart, compile, jobs, table
from benchmarks.results import Results, to_json

#: Pages below the docs directory, with the mark before their tables and what makes these.
PAGES: dict[Path, tuple[str, Callable[[Results], str]]] = {
    Path("benchmarks.md"): (table.BEGIN, table.render),
    Path("howto/docker.md"): ("<!-- jobs: written by make bench CASES=docker -->", jobs.table),
    Path("howto/accelerate.md"): (
        "<!-- compile: written by make bench CASES=compile -->",
        compile.table,
    ),
}


def files(results: Results) -> dict[Path, str]:
    """Return the files made from the results: paths below the docs directory, and texts."""
    return {
        Path("benchmarks/results.json"): to_json(results),
        Path("benchmarks/chart.svg"): chart.bars(results),
        Path("benchmarks/scale.svg"): chart.curves(results),
    }


def write(results: Results, docs: Path) -> str:
    """Write all files, and the tables into the docs pages that exist; return the main table."""
    for path, text in files(results).items():
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        (docs / path).write_text(text)
    for path, (mark, render) in PAGES.items():
        page = docs / path
        if page.exists():
            page.write_text(table.insert(page.read_text(), render(results), mark))
    return table.render(results)
