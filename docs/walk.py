"""Print which functions of armvm a word of its command line reaches, in the order of the calls.

.venv/bin/python docs/walk.py WORD -- ARGUMENTS...
.venv/bin/python docs/walk.py web -- create --dry-run --name web --image ./small.qcow2

A function counts if a parameter is the word, or a list, a dict or a dataclass with the word as one
of its values. The command runs: --dry-run changes nothing.
"""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from armvm.cli.main import main

PACKAGE = Path(__file__).resolve().parent.parent / "armvm"


def carries(value: Any, word: str) -> bool:
    """Tell whether a value is the word, or has it as one of its own values."""
    if isinstance(value, str):
        return value == word
    if is_dataclass(value):
        value = [getattr(value, one.name, None) for one in fields(value)]
    elif isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(isinstance(x, str) and x == word for x in value)


def walk(word: str, arguments: list[str]) -> list[tuple[str, str]]:
    """Run armvm, and return the file and the name of each function that the word reaches."""
    found: dict[tuple[str, str], None] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(f"{PACKAGE}/"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(carries(frame.f_locals.get(name), word) for name in names):
            file = str(Path(code.co_filename).relative_to(PACKAGE))
            found.setdefault((file, getattr(code, "co_qualname", code.co_name)))

    sys.setprofile(look)
    try:
        main(arguments)
    except SystemExit:
        return list(found)
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(__doc__)
    steps = walk(sys.argv[1], sys.argv[3:])
    for file, function in steps:
        print(f"{file:40} {function}", file=sys.stderr)
    print(f"{len(steps)} functions in {len({file for file, _ in steps})} files", file=sys.stderr)
