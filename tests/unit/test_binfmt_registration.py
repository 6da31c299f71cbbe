"""The line that registers: Debian's in magic and mask, and never one that the kernel refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError, NotFound
from armvm.provision.binfmt.status import conf
from armvm.usermode.architectures import ARCHITECTURES, Architecture, find
from armvm.usermode.binfmt.handlers import parse
from armvm.usermode.binfmt.registration import line, normal_flags, parse_line, rule_for
from tests.unit.test_binfmt_handlers import DATA, STATUS

RULE = rule_for(find("aarch64"), "/usr/bin/qemu-aarch64-static")
#: Debian's files: those recorded, and this host's own where it has them.
PLACES = [DATA / "binfmt.d", Path("/usr/lib/binfmt.d")]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)
def test_magic_and_mask_are_debians_byte_for_byte(architecture: Architecture, place: Path) -> None:
    file = place / f"qemu-{architecture.name}.conf"
    if not file.is_file():
        pytest.skip("this host has no such file")
    debian = file.read_text().strip().split(":")
    ours = conf(architecture.name).split(":")
    assert (ours[1], ours[2]) == (debian[1], debian[2])
    assert ours[4:6] == debian[4:6]
    assert sorted(ours[7]) == sorted(debian[7])


def test_debians_whole_lines_are_understood() -> None:
    files = sorted((DATA / "binfmt.d").iterdir())
    assert len(files) == 9
    for file in files:
        rule = parse_line(file.read_text().strip())
        assert rule is not None
        assert len(rule.magic) == len(rule.mask)
        assert parse_line(line(rule)) == rule


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)
def test_the_kernels_rules_are_kept(architecture: Architecture) -> None:
    text = line(rule_for(architecture, "/opt/qemu/bin/qemu"))
    assert 11 <= len(text) <= 1920
    _, name, kind, offset, magic, mask, interpreter, flags = text.split(":")
    assert (name, kind, offset) == (f"qemu-{architecture.name}", "M", "0")
    assert re.fullmatch(r"(\\x[0-9a-f]{2}){20}", magic)
    assert re.fullmatch(r"(\\x[0-9a-f]{2}){20}", mask)
    assert (interpreter, set(flags)) == ("/opt/qemu/bin/qemu", set("POF"))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "register"},
        {"name": "status"},
        {"name": "a:b"},
        {"name": "a\nb"},
        {"name": "x" * 65},
        {"interpreter": "qemu"},
        {"interpreter": ""},
        {"interpreter": "/a:b"},
        {"interpreter": "/a\n:evil:E::x::/tmp/evil:"},
        {"interpreter": "/a\0b"},
        {"interpreter": "/a\\x3a"},
        {"interpreter": "/" + "x" * 127},
        {"interpreter": "/" + "ü" * 64},
        {"flags": "PP"},
        {"flags": "X"},
        {"flags": "F\n"},
        {"magic": b""},
        {"mask": b"\xff"},
        {"offset": -1},
        {"offset": 109},
        {"magic": b"x" * 129, "mask": b""},
    ],
    ids=str,
)
def test_what_the_kernel_would_refuse_is_refused_with_a_reason(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        line(replace(RULE, **changes))
    assert caught.value.hint


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=5))
def test_any_line_that_is_made_says_what_it_should(name: str, path: str, flags: str) -> None:
    rule = replace(RULE, name=name, interpreter="/" + path, flags=flags)
    try:
        text = line(rule)
    except ConfigError:
        return
    assert "\n" not in text
    assert len(text.encode()) <= 1920
    assert parse_line(text) == rule


@given(st.text(max_size=300))
def test_no_line_of_a_file_is_too_strange(text: str) -> None:
    parse_line(text)


def test_a_line_is_held_against_what_the_kernel_shows() -> None:
    debian = parse_line((DATA / "binfmt.d" / "qemu-aarch64.conf").read_text().strip())
    assert debian is not None
    shown = (STATUS / "debian-pof").read_text()
    assert debian.is_handler(parse("qemu-aarch64", shown))
    assert debian.is_handler(parse("qemu-aarch64", shown.replace("enabled", "disabled")))
    assert not debian.is_handler(parse("other", shown))
    assert debian.is_handler(parse("other", shown), whatever_name=True)
    for old, new in (
        ("POF", "POCF"),
        ("aarch64-binfmt-P", "x"),
        ("b700", "b701"),
        ("fff\n", "ffe\n"),
    ):
        assert not debian.is_handler(parse("qemu-aarch64", shown.replace(old, new)))


def test_the_kernel_shows_flags_in_its_own_order() -> None:
    assert normal_flags("FC") == "OCF", "C brings O"
    assert normal_flags("OPF") == "POF"


def test_conf_takes_flags_and_an_interpreter() -> None:
    text = conf("armhf", flags="f", program="/opt/qemu-arm")
    assert text.startswith(":qemu-arm:M:0:")
    assert text.endswith(":/opt/qemu-arm:F")
    with pytest.raises(NotFound):
        conf("vax")
    with pytest.raises(ConfigError):
        conf("arm", flags="Z")
