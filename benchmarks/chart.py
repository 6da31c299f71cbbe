"""The charts: bars for all figures, and curves over the number of clones."""

from __future__ import annotations

from benchmarks.results import Measured, Results
from benchmarks.summary import number
from benchmarks.svg import Drawing

#: In pixels: start of the bars, length of the longest bar, height of a line, width.
_LEFT, _LENGTH, _LINE, _WIDTH = 350, 320, 24, 800
_PEERS = {
    *("cold-recipe", "cold-virt-install", "cold-testcloud", "virt-install-no-wait", "typer"),
    *("fetch-curl", "docker-run", "files-rsync", "files-tar", "large-scp"),
    *("apt-container", "compile-container", "compile-user-mode", "compile-native"),
}
#: Maximum length of a reason beside a bar's name, in characters.
_REASON = 66
#: Sections of the chart, each with its own scale: groups, or a group and a unit. Figures of scale
#: also have their own chart.
_SECTIONS = (
    ("Cold boots and clones: time to the first ssh command, s", ("cold", "warm")),
    ("Daily commands, s", ("daily", "pool")),
    ("Compile, s", ("compile",)),
    ("One job in a container and in a machine, s", ("docker",)),
    ("5,000 files of 2 kB, in and changed files out, s", ("files",)),
    ("A file of 100 MB, in, s", ("large",)),
    ("Base image formats: cold create → ssh, s", ("base", "s")),
    ("Base image formats: MiB", ("base", "MiB")),
    ("To the guest's kernel, s", ("reboot",)),
    ("Commands only, s", ("overhead",)),
    ("Download of a 512 MiB image from loopback: seconds", ("fetch", "s")),
    ("Download of a 512 MiB image from loopback: MiB", ("fetch", "MiB")),
    ("Clones of one golden: seconds", ("scale", "s")),
    ("Clones of one golden: MiB", ("scale", "MiB")),
)


def bars(results: Results) -> str:
    """Return the chart of all figures: medians as bars, ranges as lines, reasons as text."""
    drawing = Drawing(_WIDTH, "armvm's benchmarks: medians and ranges")
    y = 8.0
    for title, wanted in _SECTIONS:
        figures = [one for one in results.figures.values() if _belongs(one, wanted)]
        if not figures:
            continue
        y += _LINE
        drawing.text(12, y, title, "title")
        longest = max([one.summary.high for one in figures if one.summary], default=1.0)
        for figure in figures:
            y += _LINE
            _bar(drawing, y, figure, _LENGTH / longest)
        y += _LINE / 2
    for caption in _captions(results):
        y += _LINE
        drawing.text(12, y, caption, "small")
    return drawing.finish(y + 16)


def _belongs(figure: Measured, wanted: tuple[str, ...]) -> bool:
    if wanted[-1] in ("s", "MiB"):
        return figure.group == wanted[0] and figure.unit == wanted[1]
    return figure.group in wanted


def _bar(drawing: Drawing, y: float, figure: Measured, scale: float) -> None:
    drawing.text(_LEFT - 10, y, figure.title, "end")
    summary = figure.summary
    if summary is None:
        drawing.text(_LEFT, y, _short(figure.problem, _REASON), "small missing")
        return
    style = "peer" if figure.key in _PEERS else "ours"
    drawing.bar(_LEFT, y - 12, summary.median * scale, 15, style)
    drawing.line(
        [(_LEFT + summary.low * scale, y - 4.5), (_LEFT + summary.high * scale, y - 4.5)], "range"
    )
    end = _LEFT + max(summary.median, summary.high) * scale + 8
    drawing.text(end, y, f"{number(summary.median)} {figure.unit}")


def _captions(results: Results) -> list[str]:
    """Return the host of each run; runs with the same date and versions share a line."""
    said = []
    for facts in results.runs.values():
        versions = f"QEMU {facts['QEMU']}, libvirt {facts['libvirt']}, kernel {facts['kernel']}"
        said.append(f"{facts['date'][:10]} · {facts['machine']} · {versions} · {facts['guest']}")
    return list(dict.fromkeys(said))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def curves(results: Results) -> str:
    """Return the curves over the number of clones: seconds per create, MiB per clone."""
    drawing = Drawing(_WIDTH, "Clones of one golden: time per create and memory per clone")
    drawn = (("scale-create", "create, s"), ("scale-pss", "memory per clone (PSS), MiB"))
    for place, (key, title) in enumerate(drawn):
        figure = results.figures.get(key)
        if figure is not None:
            _curve(drawing, 60.0 + place * 380, title, figure)
    y = 250.0
    for caption in _captions(results):
        y += 18
        drawing.text(12, y, caption, "small")
    return drawing.finish(y + 16)


def _curve(drawing: Drawing, left: float, title: str, figure: Measured) -> None:
    """Draw one curve, 320 by 170 pixels, from zero up."""
    top, bottom, width = 45.0, 215.0, 320.0
    drawing.text(left - 40, 24, title, "title")
    drawing.line([(left, top), (left, bottom), (left + width, bottom)], "axis")
    if not figure.samples:
        drawing.text(left + 8, 120, _short(figure.problem, 50), "small missing")
        return
    counts = [parts["clones"] for parts in figure.parts]
    most, highest = max([2.0, *counts]), max(figure.samples) * 1.1
    across, up = width / (most - 1), (bottom - top) / highest
    points = [
        (left + (count - 1) * across, bottom - value * up)
        for count, value in zip(counts, figure.samples, strict=True)
    ]
    drawing.line(points, "curve")
    running = [
        count for count, parts in zip(counts, figure.parts, strict=True) if not parts["held"]
    ]
    if len(running) < len(counts):
        x = left + (max([1.0, *running]) - 1) * across
        drawing.line([(x, top), (x, bottom)], "range")
        drawing.text(x + 4, top + 8, "suspended from here on", "small")
    drawing.text(left - 6, top + 8, number(highest), "small end")
    drawing.text(left - 6, bottom, "0", "small end")
    drawing.text(left, bottom + 16, "1 clone", "small middle")
    drawing.text(left + width, bottom + 16, f"{most:.0f}", "small middle")
