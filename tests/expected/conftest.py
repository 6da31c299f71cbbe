"""The comparison with recorded files; ``--update-expected`` rewrites them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parent / "files"

Expected = Callable[[str, str], None]


@pytest.fixture
def expected(request: pytest.FixtureRequest) -> Expected:
    """Return what compares a text with the recorded file of a name."""
    update = bool(request.config.getoption("--update-expected"))

    def compare(name: str, text: str) -> None:
        file = FILES / name
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return
        assert file.exists(), f"{file} is not recorded yet: --update-expected writes it"
        recorded = file.read_text(encoding="utf-8")
        if recorded != text:
            lines = difflib.unified_diff(
                recorded.splitlines(), text.splitlines(), f"recorded {name}", "now", lineterm=""
            )
            pytest.fail("\n".join(lines) or "line ends differ", pytrace=False)

    return compare
