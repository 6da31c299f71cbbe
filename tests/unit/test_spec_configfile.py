"""Configuration files: valid contents, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base.errors import ConfigError
from armvm.settings.config_file import file_layer, read_config, read_toml, top_level
from armvm.settings.layers import resolve


def test_a_file_gives_the_settings_of_its_machine_table(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[machine]\ncpus = 4\nmem = "8G"\nimage = "debian:12"\n')
    layer = file_layer(file)
    assert layer.origin == str(file)
    assert layer.values == {"cpus": 4, "mem": "8G", "image": "debian:12"}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("\ufeff[machine]\ncpus = 2\n", encoding="utf-8")
    layer = file_layer(file)
    assert layer.values == {"cpus": 2}


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
    assert caught.value.message.startswith(f"{file}: invalid TOML: ")
    assert where in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"a = " + b"[" * 20_000,
        b"a = " + b"[" * 200 + b"]" * 200,
        b"[machine]\ncpus = 0x" + b"f" * 5000,
    ],
    ids=["no UTF-8", "very deep", "deep", "huge"],
)
def test_hostile_bytes_are_no_toml(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="invalid TOML"):
        read_toml(file)


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("# mine\ncpus = 2\n", ": cpus: belongs below [machine]", ""),
        ("machine = 2\n", ": [machine]: expected a table", ""),
        ("warm = 'use'\n[machines]\n", ": machines: unknown entry", "did you mean [machine]?"),
        ("[fleet.a]\n", ": fleet: unknown entry", "known: warm, verify, keyserver, [machine]"),
        ("wram = 'use'\n", ": wram: unknown entry", "did you mean warm?"),
        ("[machine]\n\ncpu_s = 2\n", ": [machine] cpu_s: unknown setting", "mean cpus?"),
        ("machine = {memory = 2}\n", ": [machine] memory: unknown", "mean mem?"),
        ("machine.hedless = true\n", ": [machine] hedless: unknown", "mean headless?"),
        ("[machine]\nwarm = 'use'\n", ": [machine] warm: belongs above", ""),
        ('[machine]\n"\u001b[2J" = 2\n'.replace("\x1b", "\\u001b"), ": ", "known: cpus"),
    ],
)
def test_what_does_not_belong_is_told_with_file_and_key(
    tmp_path: Path, text: str, where: str, hint: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        file_layer(file)
    assert caught.value.message.startswith(f"{file}{where}")
    assert caught.value.message.isprintable()
    assert hint in (caught.value.hint or "")


def test_every_reader_says_what_does_not_belong(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("wram = 'use'\n")
    with pytest.raises(ConfigError, match=r"config\.toml: wram"):
        top_level("warm", [file])


@pytest.mark.parametrize("value", ["'two'", "0", "[2]"])
def test_a_wrong_value_is_told_with_its_file(tmp_path: Path, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[machine]\nmem = 512\ncpus = {value}\n")
    with pytest.raises(ConfigError) as caught:
        resolve([file_layer(file)])
    assert caught.value.message.startswith(f"{file}: ")


def test_a_value_above_the_tables_says_its_file(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("\n# when goldens are made\nwarm = 'auto'\n")
    found = top_level("warm", [tmp_path / "a.toml", tmp_path / "b.toml"])
    assert found == ("auto", str(tmp_path / "b.toml"))
    assert top_level("verify", [tmp_path / "b.toml"]) is None


def test_which_keys_a_file_has(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("warm = 'use'\n[images.a]\nurl = 'x'\n")
    config = read_config(file)
    assert config is not None
    assert config.place == str(file)
    assert config.has("warm")
    assert config.has("images", "a", "url")
    assert not config.has("images", "a", "checksums")
    assert not config.has("warm", "x")
    assert not config.has("machine")


def test_a_directory_in_a_files_place_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        file_layer(tmp_path)
