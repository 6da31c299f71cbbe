"""Text from guests and servers cannot control the terminal."""

from __future__ import annotations

import io

import pytest

from armvm.base.errors import DomainError
from armvm.base.printable import printable, printable_lines
from armvm.base.progress import Live, Plain, Progress
from armvm.cli.context import print_fields, print_rows
from armvm.cli.error_text import report

#: Sets a terminal's title; shows what follows from right to left; moves the cursor.
HOSTILE = "a\x1b]0;pwned\x07b\u202ec\rd\x9b2Je"
SHOWN = r"a\x1b]0;pwned\x07b\u202ec\rd\x9b2Je"


def is_safe(text: str) -> bool:
    return text.replace("\n", "").isprintable()


def test_only_what_cannot_be_printed_is_escaped() -> None:
    assert printable("naïve – 文字 …") == "naïve – 文字 …"
    assert printable(HOSTILE) == SHOWN
    assert printable("a\nb\tc") == r"a\nb\tc"
    assert printable_lines("a\nb\tc\x1b") == "a\nb\tc" + r"\x1b"
    assert printable("\udcff") == r"\udcff"


def test_errors_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    error = DomainError(f"one {HOSTILE}\ntwo", detail=f"first\nsecond {HOSTILE}", hint=HOSTILE)
    report(error, as_json=False)
    told = capsys.readouterr().err
    assert is_safe(told)
    assert told.startswith(f"armvm: one {SHOWN}\ntwo\n    first\n")
    assert told.endswith(f"hint: {SHOWN}\n")


def test_tables_and_fields_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(["A", "B"], [[HOSTILE, "x\ny"], ["short", "z"]])
    print_fields({"name": HOSTILE, "list": [HOSTILE, "b"], "inner": {"name": "x\ny"}})
    told = capsys.readouterr().out
    assert is_safe(told)
    rows = told.splitlines()
    assert rows[1] == rf"{SHOWN}  x\ny"
    assert rows[2].index("z") == len(SHOWN) + 2
    assert len(rows) == 7


@pytest.mark.parametrize("kind", [Plain, Live])
def test_progress_is_printable(kind: type[Plain | Live]) -> None:
    stream = io.StringIO()
    progress: Progress = kind(stream)
    progress.say(HOSTILE)
    progress.warn(HOSTILE)
    with progress.task(HOSTILE) as task:
        task.update(text=HOSTILE, outlook=HOSTILE)
    assert is_safe(stream.getvalue())
    assert stream.getvalue().startswith(f"{SHOWN}\nwarning: {SHOWN}\n")
