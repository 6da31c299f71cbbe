"""Draw the charts with lxml: a few SVG elements, for light and dark themes."""

from __future__ import annotations

from lxml import etree

_SVG = "http://www.w3.org/2000/svg"
#: Grey text and colours that are visible on white and on black; the dark theme gets its own
#: colours for better contrast.
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a; }
.title { font-weight: 600; fill: #1f2328; }
.small { font-size: 11px; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.ours { fill: #2f81f7; }
.peer { fill: #8c959f; }
.missing { fill: #bf8700; }
.range, .axis { stroke: #57606a; stroke-width: 1; }
.curve { fill: none; stroke: #2f81f7; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1; }
  .title { fill: #f0f6fc; }
  .range, .axis { stroke: #9198a1; }
}
"""


class Drawing:
    """An SVG image with a width in pixels; ``finish`` sets its height."""

    def __init__(self, width: int, title: str) -> None:
        """Begin an image; screen readers read its title."""
        self._width = width
        self._root = etree.Element(
            f"{{{_SVG}}}svg",
            {"role": "img", "aria-label": title},
            nsmap={None: _SVG},  # type: ignore[dict-item]
        )
        self._add("title").text = title
        self._add("style").text = _STYLE

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        """Write a text at its baseline."""
        self._add("text", x=f"{x:.1f}", y=f"{y:.1f}", **{"class": style}).text = text

    def bar(self, x: float, y: float, width: float, height: float, style: str) -> None:
        """Draw a filled bar, visible even if its width rounds to zero."""
        size = {"width": f"{max(width, 1.5):.1f}", "height": f"{height:.1f}", "rx": "2"}
        self._add("rect", x=f"{x:.1f}", y=f"{y:.1f}", **size, **{"class": style})

    def line(self, points: list[tuple[float, float]], style: str) -> None:
        """Draw a line through points."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._add("polyline", points=joined, **{"class": style, "fill": "none"})

    def finish(self, height: float) -> str:
        """Return the image as text."""
        self._root.set("viewBox", f"0 0 {self._width} {height:.0f}")
        self._root.set("width", str(self._width))
        self._root.set("height", f"{height:.0f}")
        text: str = etree.tostring(self._root, pretty_print=True, encoding="unicode")
        return text

    def _add(self, tag: str, **attributes: str) -> etree._Element:
        return etree.SubElement(self._root, f"{{{_SVG}}}{tag}", dict(attributes))
