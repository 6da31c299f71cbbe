"""Settings from several places: which wins, and where each value says it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.settings.layers import Layer, Resolved, environment_layer, resolve
from armvm.settings.table import SETTINGS

PLACES = (
    "the command line",
    "environment",
    "~/.config/armvm/config.toml",
    "/etc/armvm/config.toml",
    "preset minimal",
)


def layer(origin: str, **values: Any) -> Layer:
    return Layer(origin=origin, values=values)


@pytest.mark.parametrize("strongest", range(len(PLACES)))
def test_the_first_place_that_has_a_value_decides(strongest: int) -> None:
    layers = [
        layer(place, cpus=str(10 + number)) if number >= strongest else layer(place)
        for number, place in enumerate(PLACES)
    ]
    assert resolve(layers)["cpus"] == Resolved(value=10 + strongest, origin=PLACES[strongest])


def test_a_place_within_a_layer_is_told_rather_than_the_layer() -> None:
    file = Layer(origin="c.toml", values={"cpus": 3, "mem": 512}, places={"cpus": "c.toml [x]"})
    settings = resolve([environment_layer({"ARMVM_USER": "alice"}), file])
    assert [settings[key].origin for key in ("user", "cpus", "mem")] == [
        "ARMVM_USER",
        "c.toml [x]",
        "c.toml",
    ]


@pytest.mark.parametrize(
    ("key", "value"), [("cpus", 0), ("mem", "1M"), ("disk", "1M"), ("cpu", "a b"), ("user", "root")]
)
def test_what_no_machine_can_have_is_told_with_its_place(key: str, value: Any) -> None:
    file = Layer(origin="c.toml", values={key: value}, check=True)
    with pytest.raises(ConfigError, match=rf"^c.toml: {key}: "):
        resolve([file])


def test_without_layers_every_value_is_the_built_in_one() -> None:
    settings = resolve([])
    assert settings.keys() == SETTINGS.keys()
    assert {one.origin for one in settings.values()} == {"built-in"}
    assert settings["cpus"].value == 2
    assert settings["mem"].value == 2048
    assert settings["disk"].value == 10 << 30
    assert settings["image"].value == "ubuntu:24.04"
    assert settings["autologin"].value is True


def test_none_is_no_value_but_false_and_zero_are() -> None:
    below = layer("below", headless=True, cpus=3)
    settings = resolve([layer("above", headless=None, cpus=None), below])
    assert (settings["headless"].value, settings["cpus"].value) == (True, 3)
    settings = resolve([layer("above", headless=False, cpus=0), below])
    assert (settings["headless"].value, settings["cpus"].value) == (False, 0)


def test_the_environment_knows_every_key() -> None:
    environ = {f"ARMVM_{key.upper()}": "1" for key in SETTINGS}
    assert environment_layer(environ).values == dict.fromkeys(SETTINGS, "1")


def test_empty_and_foreign_variables_are_none() -> None:
    environ = {"ARMVM_CPUS": "", "ARMVM_CONNECT": "qemu:///x", "CPUS": "4", "armvm_mem": "4"}
    assert environment_layer(environ).values == {}


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("cpus", 4, 4),
        ("cpus", "4", 4),
        ("mem", 1024, 1024),
        ("mem", "1G", 1024),
        ("disk", 20, 20 << 30),
        ("disk", "20G", 20 << 30),
        ("image", "debian:12", "debian:12"),
        ("headless", True, True),
        ("headless", "yes", True),
        ("headless", "FALSE", False),
        ("headless", "0", False),
        ("autologin", "no", False),
        ("user", "alice", "alice"),
        ("network", "user", "user"),
        ("cpu", "max", "max"),
    ],
)
def test_values_are_read_by_their_kind(key: str, written: Any, value: Any) -> None:
    assert resolve([layer("file", **{key: written})])[key].value == value


@pytest.mark.parametrize(
    "values",
    [
        {"cpus": "two"},
        {"cpus": True},
        {"cpus": 2.5},
        {"cpus": "9" * 5000},
        {"cpus": [2]},
        {"mem": "lots"},
        {"mem": True},
        {"disk": {"size": 1}},
        {"image": 24.04},
        {"headless": "perhaps"},
        {"headless": 2},
        {"user": ["a"]},
    ],
    ids=lambda values: str(values)[:40],
)
def test_a_value_of_the_wrong_kind_names_its_place(values: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([Layer(origin="/etc/armvm/config.toml", values=values)])
    assert caught.value.message.startswith("/etc/armvm/config.toml: ")
    assert len(caught.value.message) < 250


def test_a_wrong_variable_is_named_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"^ARMVM_CPUS: invalid cpus 'many'"):
        resolve([environment_layer({"ARMVM_CPUS": "many"})])


def test_a_value_that_is_overridden_is_not_read() -> None:
    assert resolve([layer("a", cpus=1), layer("b", cpus="nonsense")])["cpus"].value == 1


def test_an_unknown_key_names_its_place_even_where_nothing_uses_it() -> None:
    layers = [layer("the command line", cpus=1), layer("/home/a/config.toml", cpu_count=3)]
    with pytest.raises(ConfigError) as caught:
        resolve(layers)
    assert caught.value.message == "/home/a/config.toml: unknown setting 'cpu_count'"
    assert caught.value.hint is not None
    assert "cpus" in caught.value.hint


@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.one_of(st.text(), st.integers())))
def test_any_values_resolve_or_are_a_config_error(values: dict[str, Any]) -> None:
    try:
        settings = resolve([Layer(origin="file", values=values)])
    except ConfigError as error:
        assert error.message.startswith("file: ")
    else:
        assert all(settings[key].origin == "file" for key in values)
