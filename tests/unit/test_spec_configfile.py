"""Configuration files: valid contents, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.settings.config_file import file_layer, lines_of, read_config, read_toml, top_level
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
    assert layer.places == {"cpus": f"{file}:2"}


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
    "data", [b"\xff\xfe", b"a = " + b"[" * 20_000], ids=["no UTF-8", "very deep"]
)
def test_hostile_bytes_are_no_toml(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="invalid TOML"):
        read_toml(file)


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("# mine\ncpus = 2\n", ":2: cpus: belongs below [machine]", ""),
        ("machine = 2\n", ":1: [machine]: expected a table", ""),
        ("warm = 'use'\n[machines]\n", ":2: machines: unknown entry", "did you mean [machine]?"),
        ("[fleet.a]\n", ":1: fleet: unknown entry", "known: warm, verify, keyserver, [machine]"),
        ("wram = 'use'\n", ":1: wram: unknown entry", "did you mean warm?"),
        ("[machine]\n\ncpu_s = 2\n", ":3: [machine] cpu_s: unknown setting", "mean cpus?"),
        ("machine = {memory = 2}\n", ":1: [machine] memory: unknown", "mean mem?"),
        ("machine.hedless = true\n", ":1: [machine] hedless: unknown", "mean headless?"),
        ("[machine]\nwarm = 'use'\n", ":2: [machine] warm: belongs above", ""),
        ('[machine]\n"\u001b[2J" = 2\n'.replace("\x1b", "\\u001b"), ":2: ", "known: cpus"),
    ],
)
def test_what_does_not_belong_is_told_with_line_and_key(
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
    with pytest.raises(ConfigError, match=":1: wram"):
        top_level("warm", [file])


@pytest.mark.parametrize("value", ["'two'", "0", "[2]"])
def test_a_wrong_value_is_told_with_file_and_line(tmp_path: Path, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[machine]\nmem = 512\ncpus = {value}\n")
    with pytest.raises(ConfigError) as caught:
        resolve([file_layer(file)])
    assert caught.value.message.startswith(f"{file}:3: ")


def test_a_value_above_the_tables_says_its_line(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("\n# when goldens are made\nwarm = 'auto'\n")
    found = top_level("warm", [tmp_path / "a.toml", tmp_path / "b.toml"])
    assert found == ("auto", f"{tmp_path / 'b.toml'}:3")
    assert top_level("verify", [tmp_path / "b.toml"]) is None


LINES = """\
warm = "auto"  # = [x]
keyserver = [
  "https://a",
  # cpus = 3
]

[machine]
cpus = 4
"user" = '''
mem = 1
'''

mem = "4G"
[images."a b"]   # [images.c]
url = "x"
[ images . c ]
x.y = 1
inline = {z = 2}
[[fleet]]
name = 1
[[fleet]]
other = 2
"""


def test_the_line_of_every_way_to_write_a_key() -> None:
    assert lines_of(LINES) == {
        ("warm",): 1,
        ("keyserver",): 2,
        ("machine",): 7,
        ("machine", "cpus"): 8,
        ("machine", "user"): 9,
        ("machine", "mem"): 13,
        ("images",): 14,
        ("images", "a b"): 14,
        ("images", "a b", "url"): 15,
        ("images", "c"): 16,
        ("images", "c", "x"): 17,
        ("images", "c", "x", "y"): 17,
        ("images", "c", "inline"): 18,
        ("images", "c", "inline", "z"): 18,
        ("fleet",): 19,
        ("fleet", "name"): 20,
        ("fleet", "other"): 22,
    }
    assert lines_of(LINES.replace("\n", "\r\n")) == lines_of(LINES)


def test_a_key_that_is_not_there_is_told_by_its_table(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("\n[images.a]\nurl = 'x'\n")
    config = read_config(file)
    assert config is not None
    assert config.place("images", "a", "checksums") == f"{file}:2"
    assert config.place("machine") == str(file)


@given(st.text(alphabet="ab=[]{}\"'#., \n1", max_size=60))
def test_any_text_has_lines(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of(text).values())


def test_a_directory_in_a_files_place_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        file_layer(tmp_path)
