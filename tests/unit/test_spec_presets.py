"""Presets."""

from __future__ import annotations

import pytest

from armvm.base.errors import NotFound
from armvm.settings.layers import resolve
from armvm.settings.machine import Machine
from armvm.settings.presets import preset_layer, preset_names


def test_the_presets_that_the_help_names_are_there() -> None:
    assert {"default", "minimal"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_makes_a_machine(name: str) -> None:
    values = {key: one.value for key, one in resolve([preset_layer(name)]).items()}
    machine = Machine(
        name="m", cpus=values["cpus"], memory_mib=values["mem"], headless=values["headless"]
    )
    assert machine.cpus >= 1


def test_a_preset_says_its_name_as_origin() -> None:
    assert resolve([preset_layer("minimal")])["headless"].origin == "preset minimal"
    assert resolve([preset_layer("minimal")])["mem"].value == 1024


@pytest.mark.parametrize("name", ["", "none", "../default", "default.toml", "\x1b"])
def test_an_unknown_preset_is_not_found(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        preset_layer(name)
    assert caught.value.hint is not None
    assert "minimal" in caught.value.hint
