"""Every command with ``--json`` has a schema, strict and explained, and every schema a command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from armvm.cli.app import app
from tests import schemas

FILES = sorted(path.name for path in schemas.SCHEMAS.glob("*.json"))


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def with_json() -> list[str]:
    return [
        name
        for name, command in commands(get_command(app))
        if any("--json" in parameter.opts for parameter in command.params)
    ]


def parts(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a schema and all schemas in it, each with its path."""
    yield path, schema
    for key in ("properties", "$defs"):
        for name, part in schema.get(key, {}).items():
            yield from parts(part, f"{path}/{key}/{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], f"{path}/{key}")
    for key in ("oneOf", "anyOf", "allOf"):
        for number, part in enumerate(schema.get(key, [])):
            yield from parts(part, f"{path}/{key}/{number}")


def test_every_command_with_json_has_a_schema_and_every_schema_a_command() -> None:
    assert sorted(f"{name.replace(' ', '-')}.json" for name in with_json()) == FILES


@pytest.mark.parametrize("file", FILES)
def test_a_schema_is_one_named_after_its_command(file: str) -> None:
    command = next(name for name in with_json() if f"{name.replace(' ', '-')}.json" == file)
    schema: Any = schemas.validator(command).schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"armvm {command} --json"


@pytest.mark.parametrize("file", FILES)
def test_a_schema_is_strict_and_explained(file: str) -> None:
    for path, part in parts(schemas.read(file)):
        if "/oneOf/" in path and part == {"type": "null"}:
            continue
        told = part.get("description") or "$ref" in part or path.endswith("/items")
        assert told, f"{path} says nothing"
        if part.get("type") == "object" and "properties" in part:
            closed = "additionalProperties" in part or "unevaluatedProperties" in part
            used = f'"#{path[1:]}"' in json.dumps(schemas.read(file))  # closed where it is used
            assert closed or used, f"{path} lets anything in"


@pytest.mark.parametrize("file", FILES)
def test_what_a_schema_refers_to_is_there(file: str) -> None:
    for _, part in parts(schemas.read(file)):
        if "$ref" in part:
            name, _, path = part["$ref"].partition("#")
            target = schemas.read(name or file)
            for step in path.strip("/").split("/"):
                target = target[step]


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (["list", "--json"], "list"),
        (["image", "list", "--json"], "image list"),
        (["--debug", "golden", "show", "ci", "--json"], "golden show"),
        (["show", "list", "--json"], "show"),
        (["list"], None),
        (["/usr/bin/python3", "-m", "armvm", "image", "list", "--json"], "image list"),
        (["run", "--from", "ci", "--", "list", "--json"], None),
    ],
)
def test_the_command_of_a_call(args: list[str], command: str | None) -> None:
    assert schemas.command_of(args) == command


def test_a_document_that_is_not_as_said_is_refused() -> None:
    good = {"path": "/x", "exists": True}
    assert schemas.check("config path", [good]) == [good]
    wrong: list[Any] = [{}, [], [{**good, "more": 1}], [{"path": "/x"}], [{**good, "exists": "y"}]]
    for bad in wrong:
        with pytest.raises(jsonschema.ValidationError):
            schemas.check("config path", bad)
