"""The drawings in docs/architecture.md show the imports of the code, and no others."""

from __future__ import annotations

import pytest

from tests.support import ROOT
from tests.unit.test_architecture import ARROWS, INNER
from tests.unit.test_docs import GENERATE

PICTURE = GENERATE.rooms_picture


def test_the_arrows_are_those_that_the_plan_allows() -> None:
    rooms = PICTURE.graph(ROOT / "armvm", ROOT)
    assert {"cli", "provision", "host", "base"} <= rooms.keys()
    assert all(to <= ARROWS[room] for room, to in rooms.items())
    folders = PICTURE.graph(ROOT / "armvm" / "provision", ROOT)
    assert folders.keys() == INNER["provision"].keys()
    assert all(to <= INNER["provision"][folder] for folder, to in folders.items())


def test_nothing_is_lost_by_leaving_implied_arrows_out() -> None:
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": set()}
    shown = PICTURE.reduced(arrows)
    assert shown == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": set()}
    assert all(PICTURE.below(shown, one) == PICTURE.below(arrows, one) for one in arrows)


def test_every_arrow_leads_to_a_lower_row() -> None:
    rooms = PICTURE.graph(ROOT / "armvm", ROOT)
    rows = PICTURE.layers(rooms)
    assert rows[0] == ["cli"]
    assert rows[-1] == ["base"]
    at = {one: number for number, row in enumerate(rows) for one in row}
    assert all(at[one] < at[to] for one, tos in rooms.items() for to in tos)


def test_a_circle_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"circular imports: \['a', 'b'\]"):
        PICTURE.layers({"a": {"b"}, "b": {"a"}, "c": set()})


def test_a_picture_has_a_box_for_each_part_and_an_arrow_for_each_import() -> None:
    text = PICTURE.picture({"a": {"b"}, "b": set(), "c": {"b"}}, "a & b")
    assert "<title>a &amp; b</title>" in text
    assert [text.count(f">{name}</text>") for name in "abc"] == [1, 1, 1]
    assert text.count("marker-end") == 2
