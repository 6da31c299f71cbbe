"""Draws a boot's timeline as SVG: one bar per span, seconds along the top."""

from __future__ import annotations

from collections.abc import Sequence

from lxml import etree

from armvm.guest.boot.report import Span

_NAMESPACE = "http://www.w3.org/2000/svg"
_COLOURS = {"stage": "#2a7f9e", "unit": "#4d9a4a", "module": "#5b6fc7", "mark": "#b0409a"}
#: Pixels: height of a row, width of the names, width of the bars, margin.
_ROW, _NAMES, _BARS, _MARGIN = 20, 330, 800, 20
_HEAD = 56


def picture(title: str, spans: Sequence[Span], seconds: float) -> bytes:
    """Return an SVG document that shows *spans* on a scale of *seconds*.

    Spans that begin before 0 (the firmware's own times) extend the scale to the left.
    """
    first = min([0.0, *(span.start for span in spans)])
    scale = _Scale(first, max(seconds - first, 0.001))
    height = _HEAD + _ROW * len(spans) + _MARGIN
    width = _MARGIN + _NAMES + _BARS + 90
    root = etree.Element(
        "svg",
        attrib={
            "xmlns": _NAMESPACE,
            "viewBox": f"0 0 {width} {height}",
            "font-family": "monospace",
            "font-size": "12",
        },
    )
    _add(root, "title", text=title)
    _add(root, "rect", width=width, height=height, fill="#ffffff")
    _add(root, "text", text=title, x=_MARGIN, y=22, fill="#222222", font_size=14)
    for second in _ticks(seconds):
        x = scale.x(second)
        _add(root, "line", x1=x, x2=x, y1=_HEAD - 8, y2=height - _MARGIN, stroke="#dddddd")
        _add(root, "text", text=f"{second:g} s", x=x + 2, y=_HEAD - 12, fill="#666666")
    for number, span in enumerate(spans):
        _row(root, span, scale, _HEAD + _ROW * number)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


class _Scale:
    def __init__(self, first: float, length: float) -> None:
        self._first, self._length = first, length

    def x(self, second: float) -> float:
        """Return the x coordinate of a time, in pixels."""
        return round(_MARGIN + _NAMES + _BARS * (second - self._first) / self._length, 1)


def _row(root: etree._Element, span: Span, scale: _Scale, top: int) -> None:
    x, colour = scale.x(span.start), _COLOURS[span.kind]
    inset = 0 if span.kind in ("stage", "mark") else 12
    text = top + _ROW - 6
    name = f"{span.name}{' *' if span.critical else ''}"[:42]
    weight = "bold" if span.kind in ("stage", "mark") else "normal"
    _add(root, "text", text=name, x=_MARGIN + inset, y=text, fill="#222222", font_weight=weight)
    if span.kind == "mark":
        _add(root, "circle", cx=x, cy=top + _ROW / 2, r=5, fill=colour)
        _add(root, "text", text=f"{span.start:.1f} s", x=x + 9, y=text, fill="#666666")
        return
    wide = round(max(scale.x(span.end) - x, 1.0), 1)
    bar = _add(root, "rect", x=x, y=top + 3, width=wide, height=_ROW - 6, fill=colour)
    _add(bar, "title", text=f"{span.name}: {span.start:.2f} s + {span.seconds:.2f} s")
    _add(root, "text", text=f"{span.seconds:.2f} s", x=x + wide + 4, y=text, fill="#666666")


def _ticks(seconds: float) -> list[int]:
    """Return round numbers of seconds, about ten or fewer."""
    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 3600)
    step = next((step for step in steps if seconds / step <= 10), 10 * 3600)
    return list(range(0, int(seconds) + 1, step))


def _add(
    parent: etree._Element, tag: str, *, text: str | None = None, **attributes: object
) -> etree._Element:
    names = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
    element = etree.SubElement(parent, tag, attrib=names)
    # XML does not allow control characters, escaped or not.
    element.text = None if text is None else "".join(c for c in text if c.isprintable())
    return element
