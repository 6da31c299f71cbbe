"""Names: valid ones are safe wherever they are used; others are refused with a hint."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.settings.machine import Machine
from armvm.settings.names import (
    check_machine_name,
    check_new_name,
    check_object_name,
    check_user_name,
    next_name,
    shown,
)

HOSTILE = [
    "",
    " ",
    "-",
    "-a",
    "a-",
    ".",
    "..",
    "../x",
    "a/b",
    "a.b",
    "A",
    "a b",
    "a\n",
    "\na",
    "a\0",
    'a"b',
    "a'b",
    "a<b",
    "a&b",
    "a;b",
    "$(a)",
    "a_b",
    "é",
    "١",
    "\x1b[31m",
    "\u202e",
    "a" * 64,
    "a" * 300,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_machine_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_machine_name(name)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 150
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a", "0", "arm64-01", "a" * 63, "x--y", "1-2"])
def test_an_ordinary_machine_name_is_taken_as_it_is(name: str) -> None:
    assert check_machine_name(name) == name


@pytest.mark.parametrize(
    "name", ["localhost", "ip6-localhost", "ip6-allnodes", "localdomain", "7", "127", "0x7f000001"]
)
def test_a_new_machine_takes_no_name_of_ssh_or_the_resolver(name: str) -> None:
    with pytest.raises(ConfigError, match="resolver") as caught:
        check_new_name(name)
    assert caught.value.hint
    assert check_machine_name(name) == name, "one that there is already can be removed"
    with pytest.raises(ConfigError, match="resolver"):
        Machine(name=name)


@pytest.mark.parametrize("name", ["localhost-1", "a", "1-2", "7a", "0xg", "arm64-01"])
def test_another_name_can_be_a_new_machines(name: str) -> None:
    assert check_new_name(name) == name


@given(st.one_of(st.text(), st.from_regex(r"[a-z0-9-]{0,70}", fullmatch=True)))
@example("a\n")
def test_what_is_accepted_is_an_rfc_1123_label(name: str) -> None:
    try:
        check_machine_name(name)
    except ConfigError:
        assert not re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(?<!-)", name)
    else:
        assert 1 <= len(name.encode()) <= 63
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert name[0] != "-" != name[-1]


@pytest.mark.parametrize("name", ["alice", "_svc", "a", "a-b_c9", "x" * 32])
def test_an_ordinary_user_name_is_taken(name: str) -> None:
    assert check_user_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Alice", "9a", "-a", "a:b", "a b", "a\n", "../a", "x" * 33, "%u", "a%s", "$USER"]
)
def test_an_odd_user_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid user name"):
        check_user_name(name)


@pytest.mark.parametrize(
    "name",
    "root daemon sshd nobody operator www-data staff sudo docker wheel systemd-network".split(),
)
def test_accounts_that_exist_already_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="already") as caught:
        check_user_name(name)
    assert caught.value.hint is not None
    assert "--user" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\n", "\x1b[0m", "x" * 256])
def test_an_impossible_network_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid network name"):
        check_object_name("network", name)


@pytest.mark.parametrize("name", ["default", "my net", "br0", "netz-ü", "x" * 255])
def test_libvirt_takes_many_object_names_and_so_do_we(name: str) -> None:
    assert check_object_name("network", name) == name


def test_the_next_name_is_the_first_gap() -> None:
    assert next_name([]) == "arm64-01"
    assert next_name(["arm64-01", "arm64-03", "other"]) == "arm64-02"
    assert next_name([f"arm64-{n:02d}" for n in range(1, 100)]) == "arm64-100"
    assert check_machine_name(next_name([])) == "arm64-01"


@given(st.text())
def test_shown_text_is_safe_to_print(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 61
    if text.isprintable() and len(text) < 50:
        assert text in shown(text)
