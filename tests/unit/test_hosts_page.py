"""The page of hosts: its rows are the features in tests/hosts, its cells their results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import merge
from tests.support import ROOT
from tests.unit.test_docs import load

PAGE = load().hosts_page


def row(feature: str, outcome: str, **more: str) -> dict[str, Any]:
    known = {"suite": "sid", "role": "root", "date": "2026-01-02", "seconds": 1, "reason": ""}
    return {**known, "feature": feature, "outcome": outcome, **more}


def test_the_rows_are_what_is_tried() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests" / "hosts").rglob("test_*.py"))
    assert set(re.findall(r'mark\.feature\("(.+)"\)', sources)) == set(PAGE.FEATURES)


def test_a_cell_says_what_was_seen(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    first, second, third, fourth = PAGE.FEATURES[:4]
    known: dict[str, Any] = {"hosts": {}, "results": []}
    version = {"libvirt": "12.8.0", "qemu": "11.1.3", "python": "3.14.1", "systemd": "262"}
    seen = [row(first, "passed"), row(second, "failed"), row(third, "skipped")]
    merge(known, {"sid": version}, seen)
    file.write_text(json.dumps(known))
    text = PAGE.render(file)
    assert "| Debian sid | 12.8.0 | 11.1.3 | 3.14.1 | 262 | 2026-01-02 |" in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {line[0].removeprefix("| "): line[4] for line in lines}
    told = [cells[feature] for feature in (first, second, third, fourth)]
    assert told == ["yes", "**no**", "not run", "not run"]
    known["results"].append(row("a dance", "passed"))
    file.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="a dance"):
        PAGE.render(file)


def test_a_run_adds_to_earlier_ones() -> None:
    known: dict[str, Any] = {"hosts": {}, "results": [row("a", "passed"), row("b", "failed")]}
    merge(known, {}, [row("b", "passed"), row("c", "failed"), row("c", "passed")])
    told = {one["feature"]: one["outcome"] for one in known["results"]}
    assert told == {"a": "passed", "b": "passed", "c": "failed"}
