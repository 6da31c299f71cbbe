"""Read the pages of `armvm explain`: ``docs/explain/*.md``, which are also part of the site.

A page is Markdown: an introduction, then sections. A section has a heading that names its subject,
text, a list of explained attributes (``- `@name`: words``), and a line
``Source: [title](address)``. A comment ``<!-- when: WORD -->`` limits it to one kind of machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from armvm.base.errors import NotFound
from armvm.base.paths import resources
from armvm.base.result import Doc
from armvm.settings.names import shown

_ITEM = re.compile(r"- `@([^`]+)`: ")
_WHEN = re.compile(r"<!-- when: (\S+) -->")
_SOURCE = re.compile(r"Source: \[([^\]]+)\]\(([^)]+)\)")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A link to the upstream documentation."""

    title: Annotated[str, Doc("Its title.")]
    address: Annotated[str, Doc("Its URL, or a file in armvm's source tree.")]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page. ``items`` maps its attributes to their explanations."""

    heading: str
    paragraphs: tuple[str, ...]
    items: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    when: str | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """A topic's page."""

    topic: str
    title: str
    paragraphs: tuple[str, ...]
    sections: tuple[Section, ...]


def topics() -> list[str]:
    """Return the topics that have a page, sorted."""
    return sorted(path.stem for path in resources("docs/explain").glob("*.md"))


def read_page(topic: str) -> Page:
    """Return a topic's page. Raises NotFound."""
    if topic not in topics():
        raise NotFound(
            f"unknown topic {shown(topic)}",
            hint="known: " + ", ".join(topics()),
        )
    text = (resources("docs/explain") / f"{topic}.md").read_text(encoding="utf-8")
    head, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
    title, *paragraphs = _paragraphs(head)
    return Page(
        topic=topic,
        title=title.removeprefix("# "),
        paragraphs=tuple(paragraphs),
        sections=tuple(_section(part) for part in rest),
    )


def _section(text: str) -> Section:
    heading, _, body = text.partition("\n")
    paragraphs: list[str] = []
    items: dict[str, str] = {}
    source = when = None
    for paragraph in _paragraphs(body):
        if found := _WHEN.fullmatch(paragraph):
            when = found[1]
        elif found := _SOURCE.fullmatch(paragraph):
            source = Source(title=found[1], address=_address(found[2]))
        elif _ITEM.match(paragraph):
            words = _ITEM.split(paragraph)[1:]
            items |= {name: one.strip() for name, one in zip(words[::2], words[1::2], strict=True)}
        else:
            paragraphs.append(_LINK.sub(lambda link: f"{link[1]} ({_address(link[2])})", paragraph))
    return Section(
        heading=heading.strip().strip("`"),
        paragraphs=tuple(paragraphs),
        items=items,
        source=source,
        when=when,
    )


def _address(link: str) -> str:
    """Return a link's target; links to other pages become file names in the source tree."""
    return f"docs/{link.removeprefix('../')}" if link.startswith("../") else link


def _paragraphs(text: str) -> list[str]:
    """Return a text's paragraphs, each as one line."""
    return [" ".join(one.split()) for one in text.split("\n\n") if one.strip()]
