"""Draw which room of armvm imports which, from the imports themselves."""

from __future__ import annotations

import ast
import functools
from html import escape
from pathlib import Path

#: Which parts each part imports.
Graph = dict[str, set[str]]

_BOX = (112, 34)
_GAP = (28, 46)
_MARGIN = 16


@functools.cache
def imported(path: Path, root: Path) -> frozenset[str]:
    """Return the dotted names of the modules that a file imports, late imports included."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def graph(folder: Path, root: Path) -> Graph:
    """Return which of a folder's packages import which others of them."""
    parts = sorted(one.name for one in folder.iterdir() if (one / "__init__.py").is_file())
    prefix = ".".join(folder.relative_to(root).parts) + "."
    found: Graph = {part: set() for part in parts}
    for part in parts:
        for path in (folder / part).rglob("*.py"):
            names = {name for name in imported(path, root) if name.startswith(prefix)}
            found[part] |= {name.removeprefix(prefix).split(".")[0] for name in names}
        found[part] = (found[part] & set(parts)) - {part}
    return found


def below(arrows: Graph, part: str) -> set[str]:
    """Return everything that a part reaches by one arrow or more."""
    found: set[str] = set()
    left = list(arrows[part])
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += arrows[one]
    return found


def reduced(arrows: Graph) -> Graph:
    """Return the graph without the arrows that a longer way implies."""
    return {
        part: {one for one in to if not any(one in below(arrows, other) for other in to - {one})}
        for part, to in arrows.items()
    }


def layers(arrows: Graph) -> list[list[str]]:
    """Return the parts in rows, the top one first: every arrow leads to a lower row.

    Raises ValueError if the arrows form a circle.
    """
    height: dict[str, int] = {}
    while len(height) < len(arrows):
        ready = [one for one in arrows if one not in height and arrows[one] <= height.keys()]
        if not ready:
            raise ValueError(f"circular imports: {sorted(arrows.keys() - height.keys())}")
        heights = {one: 1 + max((height[to] for to in arrows[one]), default=-1) for one in ready}
        height |= heights
    rows: list[list[str]] = [[] for _ in range(max(height.values()) + 1)]
    for one in sorted(height):
        rows[-1 - height[one]].append(one)
    return rows


def picture(arrows: Graph, title: str) -> str:
    """Return the graph as an SVG drawing. Arrows that a longer way implies are left out."""
    shown = reduced(arrows)
    rows = _untangled(layers(arrows), shown)
    width = max(len(row) for row in rows) * (_BOX[0] + _GAP[0]) - _GAP[0] + 2 * _MARGIN
    height = len(rows) * (_BOX[1] + _GAP[1]) - _GAP[1] + 2 * _MARGIN
    places: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        left = (width - len(row) * (_BOX[0] + _GAP[0]) + _GAP[0]) / 2
        for at, one in enumerate(row):
            places[one] = left + at * (_BOX[0] + _GAP[0]), _MARGIN + number * (_BOX[1] + _GAP[1])
    lines = [_arrow(places[one], places[to]) for one in places for to in sorted(shown[one])]
    boxes = [_box(one, *places[one]) for one in places]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#57606a"/></marker>'
            "</defs>",
            f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _untangled(rows: list[list[str]], shown: Graph) -> list[list[str]]:
    """Return the rows, each sorted by where the boxes above it that point to it stand."""
    for number in range(1, len(rows)):
        above = {one: at - len(row) / 2 for row in rows[:number] for at, one in enumerate(row)}

        def middle(part: str, above: dict[str, float] = above) -> tuple[float, str]:
            users = [at for one, at in above.items() if part in shown[one]]
            return (sum(users) / len(users) if users else 0.0), part

        rows[number] = sorted(rows[number], key=middle)
    return rows


def _arrow(begin: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = begin[0] + _BOX[0] / 2, begin[1] + _BOX[1]
    x2, y2 = end[0] + _BOX[0] / 2, end[1]
    bend = _GAP[1] / 2
    return (
        f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" '
        'fill="none" stroke="#57606a" marker-end="url(#head)"/>'
    )


def _box(name: str, x: float, y: float) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{_BOX[0]}" height="{_BOX[1]}" rx="6" fill="#ddf4ff" '
        f'stroke="#0969da"/><text x="{x + _BOX[0] / 2:g}" y="{y + 22:g}" '
        f'text-anchor="middle">{escape(name)}</text>'
    )
