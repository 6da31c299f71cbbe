"""Results: their plain values, and the schemas that are generated from their types."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypedDict, Union, get_args, get_origin, get_type_hints

import jsonschema
import pytest

from armvm.base.result import Doc, as_json
from armvm.guest.boot.serial import Stage
from armvm.provision.manage.machines import describe, describe_created, overview
from armvm.settings.machine import Machine
from tests import schemas
from tests.unit.host_tools import INSTANCE

sys.path.insert(0, str(schemas.SCHEMAS.parent))  # as Python does for a script there
try:
    json_results = importlib.import_module("json_results")
    result_schema = importlib.import_module("result_schema")
finally:
    sys.path.pop(0)


class Colour(str, Enum):
    """A choice."""

    RED = "red"


class Known(TypedDict, total=False):
    """What may be known."""

    age: Annotated[int, Doc("Its age.")]


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    class_: Annotated[Colour | None, Doc("Its class.")]


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A result.

    The second paragraph is for developers.
    """

    path: Annotated[Path, Doc("A file.", pattern="^/")]
    parts: Annotated[tuple[Inner, ...], Doc("Its parts.")]
    best: Annotated[Inner | None, Doc("The best one.")]
    known: Known
    sizes: Annotated[dict[str, Annotated[int | None, Doc("Bytes.")]], Doc("Sizes.")]


VALUE = Outer(
    path=Path("/x"), parts=(Inner(class_=Colour.RED),), best=None, known={"age": 3}, sizes={"a": 1}
)


def test_a_result_becomes_plain_values_in_the_order_of_its_fields() -> None:
    plain = as_json(VALUE)
    assert plain == {
        "path": "/x",
        "parts": [{"class": "red"}],
        "best": None,
        "known": {"age": 3},
        "sizes": {"a": 1},
    }
    assert list(plain) == [one.name for one in fields(VALUE)]
    assert type(plain["parts"][0]["class"]) is str


def test_a_schema_says_what_the_type_says() -> None:
    schema = result_schema.schema("do", "What is done.", Outer)
    assert schema["title"] == "armvm do --json"
    assert schema["description"] == "What is done."
    assert schema["properties"]["path"] == {
        "type": "string",
        "description": "A file.",
        "pattern": "^/",
    }
    assert schema["properties"]["best"]["oneOf"] == [{"$ref": "#/$defs/Inner"}, {"type": "null"}]
    assert schema["$defs"]["Inner"]["properties"]["class"] == {
        "type": ["string", "null"],
        "description": "Its class.",
        "enum": ["red", None],
    }
    assert schema["$defs"]["Known"]["required"] == []
    check = jsonschema.Draft202012Validator(schema).validate
    good = as_json(VALUE)
    check(good)
    for change in ({"path": "x"}, {"best": 1}, {"known": {"age": "3"}}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            check({**good, **change})


def test_one_of_several_results_and_a_list() -> None:
    schema = result_schema.schema("do", "Done.", Outer | Annotated[list[Outer], Doc("All.")])
    assert [one.get("$ref", one.get("type")) for one in schema["oneOf"]] == [
        "#/$defs/Outer",
        "array",
    ]
    assert schema["$defs"]["Outer"]["description"] == "A result."


def test_a_field_without_a_meaning_or_of_a_strange_type_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mute:
        """A result."""

        name: str

    with pytest.raises(TypeError, match=r"Mute\.name has no Doc"):
        result_schema.schema("do", "Done.", Mute)
    with pytest.raises(TypeError, match="no values of"):
        result_schema.schema("do", "Done.", bytes)


def classes(kind: Any) -> Iterator[Any]:
    """Yield the dataclasses in a result's type."""
    if is_dataclass(kind):
        yield kind
        for inner in get_type_hints(kind, include_extras=True).values():
            yield from classes(inner)
    elif get_origin(kind) in (Annotated, Union, UnionType, list, tuple, dict):
        for inner in get_args(kind):
            yield from classes(inner)


@pytest.mark.parametrize("command", json_results.RESULTS)
def test_results_are_frozen_and_take_keywords_only(command: str) -> None:
    for kind in classes(json_results.RESULTS[command][1]):
        assert kind.__dataclass_params__.frozen, kind
        assert all(one.kw_only for one in fields(kind)), kind


def test_a_machine_is_as_its_schemas_say() -> None:
    record = replace(INSTANCE.record, settings=dict(Machine(name="m").summary()))
    machine: Any = replace(INSTANCE, state="shut off", record=record)
    domain: Any = None  # a machine that is off is not asked
    schemas.check("list", [as_json(overview(domain, machine))])
    schemas.check("show", as_json(describe(domain, machine)))
    made = as_json(describe_created(domain, machine, None, None))
    assert (made["ready_seconds"], made["stages"]) == (None, None)
    schemas.check("create", made)
    booted = as_json(describe_created(domain, machine, 12.345, {Stage.CLOUD_INIT: 7.06}))
    assert (booted["ready_seconds"], booted["stages"]) == (12.3, {"cloud-init": 7.1})
    schemas.check("create", booted)
