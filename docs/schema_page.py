"""Render docs/json.md, the ``--json`` output of each command, from docs/schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_HEAD = """# JSON

`docs/generate.py` generates this page from `docs/schemas/*.json`; do not edit it. Each section
describes the output of a command with `--json`. The files are JSON Schemas (draft 2020-12) for use
with validators, and the tests compare real output with them.

`[]` in a key stands for each entry of a list. *optional* marks keys that can be absent; all others
are always present, possibly as `null`.

With `--json`, an error is one object, the last line of standard error; lines about progress and
warnings can precede it. The exit code depends on
[the kind of error](commands.md#exit-codes):

```json
{"error": {"reference": "not-found", "exit_code": 4, "message": "…", "detail": null, "hint": "…"}}
```
"""


def render(schemas: Mapping[str, str]) -> str:
    """Return the whole page. *schemas* are the schemas' texts, by their files' names."""
    parts = [_HEAD.strip()]
    for file, text in sorted(schemas.items()):
        schema = json.loads(text)
        command = schema["title"].removesuffix(" --json")
        parts.append(
            f"## {command}\n\n{schema['description']} "
            f"([schemas/{file}](schemas/{file}), "
            f"[`{command}`](commands.md#{command.replace(' ', '-')}))"
        )
        parts += _Section(schema).parts()
    return "\n\n".join(parts) + "\n"


class _Section:
    """One schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema

    def parts(self) -> Iterator[str]:
        """Yield the section's paragraphs and tables, one for each shape a document can have."""
        shapes = self.schema.get("oneOf", [self.schema])
        seen: list[Any] = []
        for shape in shapes:
            whole, prefix = self._whole(shape), ""
            if len(shapes) > 1:
                yield f"{'Or' if seen else 'Either'}: {whole['description']}"
            seen.append(shape)
            if whole.get("type") == "array":
                if whole["items"] in seen:
                    continue  # a list of the objects described above
                prefix, whole = "[]", self._whole(whole["items"])
            rows = list(self._rows(whole, prefix))
            rows = rows or [(prefix, _type(whole), whole.get("description", ""))]
            yield "\n".join(
                ["| key | type | |", "|---|---|---|"]
                + [f"| `{key}` | {kind} | {text} |" for key, kind, text in rows]
            )

    def _whole(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return a schema with the schema that it references merged in."""
        if "$ref" not in part:
            return part
        target = self.schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
        return {**target, **{key: value for key, value in part.items() if key != "$ref"}}

    def _rows(self, part: dict[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
        for key, value in part.get("properties", {}).items():
            whole = self._whole(value)
            path = f"{above}.{key}" if above else key
            inner = next((one for one in whole.get("oneOf", []) if one != {"type": "null"}), whole)
            kind = _type(self._whole(inner)) + (" or null" if inner is not whole else "")
            text = (
                whole.get("description", "")
                if key in part["required"]
                else (f"*optional* {whole['description']}")
            )
            yield path, kind, text.replace("|", chr(92) + "|")
            yield from self._rows(self._whole(inner), path)
            if inner.get("type") == "array":
                yield from self._rows(self._whole(inner["items"]), f"{path}[]")


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return " ".join(f"`{one}`" for one in part["enum"])
    if "const" in part:
        return f"`{json.dumps(part['const'])}`"
    if "type" not in part:
        return " or ".join(_type(one) for one in part.get("oneOf", part.get("anyOf", []))) or "any"
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    return " or ".join(kinds)
