"""Whose a file in a shared directory is: nobody in the guest is root on the host."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armvm.base.errors import MissingCapability
from armvm.host.domain.idmap import IdMap, Range, id_map

COUNT = 65536


def account(name: str = "joe", uid: int = 1000, gid: int = 1001) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", "/bin/sh"))


def given_away(directory: Path, subuid: str, subgid: str | None = None) -> dict[str, Path]:
    """Write the files that say which numbers users may give away."""
    files = {"subuid": directory / "subuid", "subgid": directory / "subgid"}
    files["subuid"].write_text(subuid)
    files["subgid"].write_text(subuid if subgid is None else subgid)
    return files


def on_host(ranges: tuple[Range, ...], number: int) -> int:
    """Return the host's number for one of the guest's."""
    (found,) = [one for one in ranges if one.start <= number < one.start + one.count]
    return found.target + number - found.start


@settings(max_examples=10)
@given(uid=st.integers(0, COUNT - 1), gid=st.integers(0, COUNT - 1))
def test_the_guests_user_is_the_hosts_and_all_others_are_nobody(
    tmp_path_factory: pytest.TempPathFactory, uid: int, gid: int
) -> None:
    files = given_away(tmp_path_factory.mktemp("sub"), f"joe:100000:{COUNT}\n")
    ids = id_map(account(), uid, gid, **files)
    for ranges, guest, host in ((ids.uids, uid, 1000), (ids.gids, gid, 1001)):
        numbers = [on_host(ranges, number) for number in range(COUNT)]
        assert numbers[guest] == host
        assert len(set(numbers)) == COUNT, "no two of the guest's are one on the host"
        others = {*numbers} - {host}
        assert min(others) >= 100000
        assert max(others) < 100000 + COUNT


def test_the_users_own_line_counts_by_name_or_number(tmp_path: Path) -> None:
    text = "ann:1:9\n# joe\njoe:200000:10\n1000:300000:65536\njoe:x:y\n"
    ids = id_map(account(), 1000, 1000, **given_away(tmp_path, text))
    assert ids == IdMap(
        uids=(
            Range(start=0, target=300000, count=1000),
            Range(start=1000, target=1000, count=1),
            Range(start=1001, target=301000, count=64536),
        ),
        gids=(
            Range(start=0, target=300000, count=1000),
            Range(start=1000, target=1001, count=1),
            Range(start=1001, target=301000, count=64536),
        ),
    )


@pytest.mark.parametrize("text", ["", "ann:1:65536\n", "joe:100000:1000\n", "joe:²:³\n"])
def test_who_has_no_numbers_hears_how_to_get_some(tmp_path: Path, text: str) -> None:
    with pytest.raises(MissingCapability) as caught:
        id_map(account(), 1000, 1000, **given_away(tmp_path, text))
    assert "usermod --add-subuids" in str(caught.value.hint)
    files = given_away(tmp_path, "joe:100000:65536\n", text)
    with pytest.raises(MissingCapability) as caught:
        id_map(account(), 1000, 1000, **files)
    assert "usermod --add-subgids" in str(caught.value.hint)


def test_without_the_file_it_is_the_same(tmp_path: Path) -> None:
    with pytest.raises(MissingCapability):
        id_map(account(), 1, 1, subuid=tmp_path / "none", subgid=tmp_path / "none")
