"""What ``--json`` prints, held against the schemas in docs/schemas, which are its documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def check(command: str, document: Any) -> Any:
    """Return what a command printed with ``--json``, once its schema allows it.

    *command* is its name without ``armvm``: ``image list``.
    """
    schema = json.loads((SCHEMAS / f"{command.replace(' ', '-')}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    return document
