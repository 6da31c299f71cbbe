"""The results as Markdown: targets, figures, runs; the docs page has them between two marks."""

from __future__ import annotations

from benchmarks.results import Measured, Results
from benchmarks.summary import number, summarize
from benchmarks.targets import TARGETS, judge

BEGIN, END = "<!-- results: written by make bench -->", "<!-- end of results -->"


def render(results: Results) -> str:
    """Return the results as Markdown."""
    return "\n\n".join([_targets(results), _figures(results), *_scale(results), _runs(results)])


def insert(page: str, text: str, begin: str = BEGIN) -> str:
    """Return *page* with *text* between the marks *begin* and END. Raises ValueError without."""
    head, mark, rest = page.partition(begin)
    _, end, tail = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"lines {begin} and {END} not found in the page")
    return f"{head}{begin}\n\n{text}\n\n{END}{tail}"


def _targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        verdict = judge(results, target)
        met = {True: "met", False: "**missed**", None: "–"}[verdict.met]
        rows.append([target.title, verdict.limit, verdict.measured, met])
    return "### Targets\n\n" + _table(["measurement", "target", "measured (median)", ""], rows)


def _figures(results: Results) -> str:
    rows = []
    for figure in results.figures.values():
        summary = figure.summary
        if summary is None:
            cells = ["–", "–", "0", figure.problem]
        else:
            spread = f"{number(summary.low)}–{number(summary.high)}"
            cells = [f"{number(summary.median)} {figure.unit}", spread, str(summary.count)]
            cells.append(_remark(figure))
        rows.append([f"`{figure.key}`", figure.title, *cells, _letter(results, figure.run)])
    head = ["case", "measurement", "median", "range", "n", "medians of parts", "run"]
    return "### All figures\n\n" + _table(head, rows)


def _remark(figure: Measured) -> str:
    """Return the medians of the samples' parts, and how many rounds failed."""
    said = []
    if figure.parts and "clones" not in figure.parts[0]:  # the series has a table of its own
        for part in figure.parts[0]:
            summary = summarize([parts[part] for parts in figure.parts if part in parts])
            if summary is not None:
                said.append(f"{part} {number(summary.median)}")
    if figure.failures:
        said.append(f"failed {len(figure.failures)} times: {figure.failures[-1]}")
    return ", ".join(said)


def _scale(results: Results) -> list[str]:
    """Return the series of clones as a table; empty if it was not measured."""
    create, pss = results.figures.get("scale-create"), results.figures.get("scale-pss")
    if create is None or pss is None or not create.samples:
        return []
    disk = results.figures["scale-disk"]
    count = len(create.samples)
    shown = sorted({1, 2, 3, 5, 10, 20, 30, 40, 50, count} & set(range(1, count + 1)))
    rows = []
    for one in shown:
        at = create.parts[one - 1]
        memory = [number(pss.parts[one - 1]["total"]), number(pss.samples[one - 1])]
        state = "suspended" if at["held"] else "running"
        row = [str(one), state, number(create.samples[one - 1]), *memory]
        rows.append([*row, number(disk.samples[one - 1])])
    head = ["clones", "", "create, s", "memory of all, MiB", "per clone, MiB", "overlay, MiB"]
    return ["### Clones of one golden\n\n" + _table(head, rows)]


def _runs(results: Results) -> str:
    lines = ["### Measured on"]
    for run, facts in results.runs.items():
        told = "; ".join(f"{key} {value}" for key, value in facts.items())
        lines.append(f"Run {_letter(results, run)}: {told}.")
    return "\n\n".join(lines)


def _letter(results: Results, run: str) -> str:
    """Return a run's short name: a, b, c, … in order."""
    runs = list(results.runs)
    return chr(ord("a") + runs.index(run) % 26) if run in runs else "–"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return a text that fits in one cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")
