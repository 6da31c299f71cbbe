"""JSON schemas (draft 2020-12) of results: dataclasses and TypedDicts whose fields have a Doc."""

from __future__ import annotations

import inspect
import types
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_UNIONS = (Union, types.UnionType)


def schema(command: str, text: str, kind: Any) -> dict[str, Any]:
    """Return the schema of what ``armvm COMMAND --json`` prints; *kind* is a result's type."""
    whole = _Schema()
    choices = get_args(kind) if get_origin(kind) in _UNIONS else (kind,)
    parts = [whole.part(one) for one in choices]
    body = parts[0] if len(parts) == 1 else {"oneOf": parts}
    if "$ref" in body and not whole.again(body["$ref"]):
        body = whole.parts.pop(body["$ref"].rpartition("/")[2])
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"armvm {command} --json",
        **body,
        "description": text,
    }
    return {**found, "$defs": whole.parts} if whole.parts else found


class _Schema:
    """A schema that is being made; *parts* are the classes met, by name, for ``$defs``."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self._met: dict[str, Any] = {}
        self._uses: list[str] = []

    def again(self, reference: str) -> bool:
        """Tell whether a class is referred to more than once."""
        return self._uses.count(reference) > 1

    def part(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type. Raises TypeError for one that results must not have."""
        origin, inner = get_origin(kind), get_args(kind)
        if origin is Annotated:
            found = self.part(inner[0])
            for doc in kind.__metadata__:
                found = {**found, "description": doc.text, **doc.rules}
            return found
        if kind is Any:
            return {}
        if kind in _SIMPLE:
            return {"type": _SIMPLE[kind]}
        if kind is Path:
            return {"type": "string"}
        if origin in _UNIONS:
            return self._union([self.part(one) for one in inner])
        if origin in (list, tuple):
            return {"type": "array", "items": self.part(inner[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.part(inner[1])}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"type": "string", "enum": [one.value for one in kind]}
        if is_dataclass(kind) or is_typeddict(kind):
            return self._reference(kind)
        raise TypeError(f"results have no values of {kind}")

    def _union(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the schema of one of several: a list of types where that says it."""
        if any("type" not in part for part in parts):
            return {"oneOf": parts}
        merged = {key: value for part in parts for key, value in part.items()}
        kinds = [part["type"] for part in parts]
        if "enum" in merged and "null" in kinds:
            merged["enum"] = [*merged["enum"], None]
        return {**merged, "type": kinds}

    def _reference(self, kind: Any) -> dict[str, Any]:
        name = kind.__name__
        if self._met.setdefault(name, kind) is not kind:
            raise TypeError(f"two results are called {name}: {kind}, {self._met[name]}")
        if name not in self.parts:
            self.parts[name] = {}
            self.parts[name] = self._object(kind)
        self._uses.append(f"#/$defs/{name}")
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, kind: Any) -> dict[str, Any]:
        hints = get_type_hints(kind, include_extras=True)
        typed = is_typeddict(kind)
        names = list(hints) if typed else [one.name for one in fields(kind)]
        keys = {name: name.removesuffix("_") for name in names}
        needed = [name for name in names if not typed or name in kind.__required_keys__]
        properties = {keys[name]: self.part(hints[name]) for name in names}
        for key, part in properties.items():
            if "description" not in part and "$ref" not in part:
                raise TypeError(f"{kind.__name__}.{key} has no Doc")
        return {
            "type": "object",
            "description": _words(kind),
            "properties": properties,
            "required": [keys[name] for name in needed],
            "additionalProperties": False,
        }


def _words(kind: Any) -> str:
    """Return the first paragraph of a class's docstring."""
    return inspect.cleandoc(kind.__doc__).split("\n\n")[0].replace("\n", " ").replace("``", "")
