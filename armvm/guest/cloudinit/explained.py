"""A seed's documents for `armvm explain`, key by key, with secrets hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from armvm.base.errors import ConfigError
from armvm.guest.cloudinit.archive import taken_apart
from armvm.guest.cloudinit.yaml_text import load

#: Keys whose value is a secret.
_SECRET = re.compile(r"(_private|passwd|password)\Z")
HIDDEN = "(a secret: not shown)"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a document. ``path`` is its name without list indexes, as ``users.sudo``.

    ``line`` is the key with its value; nested keys follow it, one level deeper.
    """

    file: str
    path: str
    line: str
    depth: int


def keys(files: Mapping[str, bytes]) -> Iterator[Key]:
    """Yield every key of a seed's documents, by NoCloud's file names."""
    for file, data in files.items():
        text = data.decode(errors="replace")
        parts = taken_apart(text)
        if parts is not None:
            theirs, text = parts
            yield Key(file=file, path="", line=f"{_first(theirs)} …", depth=0)
        try:
            document = load(text, file)
        except ConfigError:
            document = None
        mapping = isinstance(document, dict)
        if file.endswith("user-data") and not (mapping and text.startswith("#cloud-config")):
            yield Key(file=file, path="", line=f"{_first(text)} …", depth=0)
        elif mapping:
            yield from _walk(file, document, "", 0)


def _first(text: str) -> str:
    return text.split("\n", 1)[0]


def _walk(file: str, table: Mapping[str, Any], above: str, depth: int) -> Iterator[Key]:
    for name, value in table.items():
        path = f"{above}{name}"
        entries = value if isinstance(value, list) else [value]
        inner = [one for one in entries if isinstance(one, dict)]
        if not inner:
            yield Key(file=file, path=path, line=f"{name}: {_value(str(name), value)}", depth=depth)
            continue
        yield Key(file=file, path=path, line=f"{name}:", depth=depth)
        for one in inner:
            yield from _walk(file, one, f"{path}.", depth + 1)


def _value(name: str, value: Any) -> str:
    if isinstance(value, str) and _SECRET.search(name):
        return HIDDEN
    return value if isinstance(value, str) and value.isprintable() else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
