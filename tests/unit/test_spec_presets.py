"""Presets and configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.errors import ConfigError, NotFound
from armvm.spec.layers import resolve
from armvm.spec.machine import Machine
from armvm.spec.presets import file_layer, preset_layer, preset_names, read_toml


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


def test_a_file_gives_the_settings_of_its_machine_table(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[machine]\ncpus = 4\nmem = "8G"\nimage = "debian:12"\n')
    layer = file_layer(file)
    assert layer.origin == str(file)
    assert layer.values == {"cpus": 4, "mem": "8G", "image": "debian:12"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "[machine]\n"])
def test_an_empty_file_has_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    assert file_layer(tmp_path / "config.toml").values == {}


def test_a_file_that_is_not_there_has_no_settings(tmp_path: Path) -> None:
    assert file_layer(tmp_path / "none.toml").values == {}
    (tmp_path / "file").write_text("")
    assert file_layer(tmp_path / "file" / "config.toml").values == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[machine]\ncpus = \n", "line 2"),
        ("[machine]\ncpus = 1\ncpus = 2\n", "line 3"),
        ("[machine\n", "line 1"),
        ('a = "b\n', "line 1"),
    ],
)
def test_what_is_no_toml_is_told_with_file_and_line(tmp_path: Path, text: str, where: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        file_layer(file)
    assert caught.value.message.startswith(f"{file}: not TOML: ")
    assert where in caught.value.message


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a = " + b"[" * 20_000], ids=["no UTF-8", "very deep"]
)
def test_hostile_bytes_are_no_toml(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="not TOML"):
        read_toml(file)


@pytest.mark.parametrize("text", ["cpus = 2\n", "machine = 2\n", "[machines]\n", "[fleet.a]\n"])
def test_other_entries_are_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{file}: unknown entry") as caught:
        file_layer(file)
    assert caught.value.hint is not None
    assert "[machine]" in caught.value.hint


def test_a_directory_in_a_files_place_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        file_layer(tmp_path)
