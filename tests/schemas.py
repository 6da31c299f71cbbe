"""What ``--json`` prints, held against the schemas in docs/schemas, which are its documentation."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

SCHEMAS = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def read(file: str) -> Any:
    """Return a schema by its file's name, which is how one refers to another."""
    return json.loads((SCHEMAS / file).read_text())


@functools.cache
def validator(command: str) -> jsonschema.Draft202012Validator:
    """Return what holds documents against a command's schema."""
    schema = read(f"{command.replace(' ', '-')}.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    names = [path.name for path in SCHEMAS.glob("*.json")]
    files = Registry[Any]().with_resources(
        (name, Resource[Any].from_contents(read(name))) for name in names
    )
    return jsonschema.Draft202012Validator(schema, registry=files)


def check(command: str, document: Any) -> Any:
    """Return what a command printed with ``--json``, once its schema allows it.

    *command* is its name without ``armvm``: ``image list``.
    """
    validator(command).validate(document)
    return document


def command_of(args: Sequence[str]) -> str | None:
    """Return the command that *args* call with ``--json``; None for any other call."""
    ours = list(args[: args.index("--")] if "--" in args else args)
    if ours[1:3] == ["-m", "armvm"]:  # by a Python, as another user calls it
        ours = ours[3:]
    if "--json" not in ours:
        return None
    words = [word for word in ours if word != "--debug"]
    group = f"{words[0]}-{words[1]}.json" if len(words) > 1 else ""
    return " ".join(words[:2] if (SCHEMAS / group).is_file() else words[:1])
