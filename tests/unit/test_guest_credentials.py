"""Public keys, armvm's own key, passwords."""

from __future__ import annotations

import base64
import stat
import threading
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError, NotFound, PermissionDenied
from armvm.guest.cloudinit.credentials import (
    callers_keys,
    hash_password,
    is_public_key,
    own_key,
    read_public_keys,
)
from armvm.guest.identity import new_key_pair

PAIR = new_key_pair(comment="alice@laptop")
KEY = PAIR.public
OTHER = new_key_pair(comment="bob").public
BLOB = KEY.split()[1]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def blob(*fields: str) -> str:
    parts = [len(one).to_bytes(4, "big") + one.encode() for one in fields]
    return base64.b64encode(b"".join(parts)).decode()


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        KEY + "\n",
        KEY.rsplit(" ", 1)[0],
        f"  {KEY}  ",
        KEY + " with a longer comment",
        f"ssh-rsa {blob('ssh-rsa', 'e', 'n')} rsa",
        f"ecdsa-sha2-nistp256 {blob('ecdsa-sha2-nistp256', 'nistp256', 'q')}",
        "sk-ssh-ed25519@openssh.com " + blob("sk-ssh-ed25519@openssh.com", "pk", "ssh:"),
    ],
    ids=lambda line: line[:11],  # the key is another each time
)
def test_a_public_key_is_known(line: str) -> None:
    assert is_public_key(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#comment",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        f"ssh-rsa {BLOB}",
        f"ssh-dss {blob('ssh-dss', 'p', 'q', 'g', 'y')}",
        f"ssh-ed25519 {BLOB[:-3]}",
        f"ssh-ed25519 {BLOB[:-4]}",
        f"ssh-ed25519 {BLOB[:-20]}",
        f"ssh-ed25519 {BLOB}AAAA",
        f"ssh-rsa {blob('ssh-rsa', 'e')}",
        f"ssh-ed25519 {BLOB[:10]}\t{BLOB[10:]}",
        f"ssh-ed25519 *{BLOB}",
        f"ssh-ed25519 {blob('ssh-ed25519', '')}",
        f"ssh-ed25519 {BLOB} \x1b[31m",
        f"ssh-ed25519 {BLOB} \x00",
        f'command="reboot" {KEY}',
        f"no-pty,from=* {KEY}",
        PAIR.private.splitlines()[0],
    ],
    ids=lambda line: line[:11],  # the key is another each time
)
def test_what_is_no_plain_public_key_is_not_taken(line: str) -> None:
    assert not is_public_key(line)


@given(st.text())
def test_any_line_can_be_asked_about(line: str) -> None:
    assert not is_public_key(line)


def test_keys_come_from_all_files_once_in_order(tmp_path: Path) -> None:
    one = write(tmp_path / "one.pub", f"{KEY}\n")
    two = write(tmp_path / "two.pub", f"# mine\n\n{OTHER}\n{KEY}\n")
    assert read_public_keys([one, two]) == (KEY, OTHER)


def test_windows_line_ends_are_no_part_of_a_key(tmp_path: Path) -> None:
    file = write(tmp_path / "key.pub", f"{KEY}\r\n{OTHER}\r\n")
    assert read_public_keys([file]) == (KEY, OTHER)


def test_for_a_private_key_the_public_one_beside_it_is_read(tmp_path: Path) -> None:
    private = write(tmp_path / "id_ed25519", PAIR.private)
    write(tmp_path / "id_ed25519.pub", KEY)
    assert read_public_keys([private]) == (KEY,)


def test_a_private_key_alone_is_never_taken(tmp_path: Path) -> None:
    private = write(tmp_path / "id_ed25519", PAIR.private)
    with pytest.raises(ConfigError, match="invalid ssh public key") as caught:
        read_public_keys([private])
    assert PAIR.private.splitlines()[1] not in str(vars(caught.value))


def test_a_public_key_may_have_any_file_name(tmp_path: Path) -> None:
    assert read_public_keys([write(tmp_path / "mine", KEY)]) == (KEY,)


@pytest.mark.parametrize("text", ["", "hello", "\0\0\0", "x" * 100_000])
def test_a_file_without_a_key_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_public_keys([write(tmp_path / "x.pub", text)])
    assert caught.value.hint is not None
    assert "ssh-ed25519" in caught.value.hint


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (f'command="echo hi" {OTHER}', "options"),
        (f'from="10.0.0.0/8",no-pty {OTHER}', "options"),
        (OTHER[:60], "cut off"),
        (f"ssh-ed25519 {OTHER.split()[1][:-4]} bob", "cut off"),
        (f"{OTHER[:40]}\n{OTHER[40:]}", "cut off"),
        (f"ssh-dss {blob('ssh-dss', 'p', 'q', 'g', 'y')}", "DSA"),
        (f"ssh-ed25519-cert-v01@openssh.com {BLOB}", "certificate"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "RFC 4716"),
        (PAIR.private, "private key"),
        ("hello", "unknown key type"),
    ],
    ids=lambda value: value[:9],
)
def test_no_line_is_dropped(tmp_path: Path, bad: str, why: str) -> None:
    """An invalid key line is reported, even beside valid keys; the message does not quote it."""
    file = write(tmp_path / "authorized_keys", f"# team\n{KEY}\n\n{bad}\n")
    with pytest.raises(ConfigError, match=why) as caught:
        read_public_keys([file])
    assert "line 4: invalid ssh public key" in caught.value.message
    assert caught.value.hint
    assert OTHER.split()[1][:20] not in str(vars(caught.value))


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    file = write(tmp_path / "key.pub", f"\ufeff{KEY}\n")
    assert read_public_keys([file]) == (KEY,)
    (tmp_path / ".ssh").mkdir()
    write(tmp_path / ".ssh" / "id_a.pub", f"\ufeff{KEY}\n")
    assert callers_keys(tmp_path) == (KEY,)


@pytest.mark.parametrize("name", ["", ".", "/", "..", "/etc"])
def test_a_directory_is_no_key(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid ssh public key"):
        read_public_keys([Path(name)])


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"ssh key .* not found"):
        read_public_keys([tmp_path / "none"])


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "."])
def test_an_impossible_file_is_a_config_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid ssh public key"):
        read_public_keys([tmp_path / name])


def test_the_callers_keys(tmp_path: Path) -> None:
    assert callers_keys(tmp_path) == ()
    (tmp_path / ".ssh").mkdir()
    write(tmp_path / ".ssh" / "id_b.pub", OTHER)
    write(tmp_path / ".ssh" / "id_a.pub", KEY)
    write(tmp_path / ".ssh" / "other.pub", new_key_pair(comment="x").public)
    write(tmp_path / ".ssh" / "id_broken.pub", "nonsense")
    (tmp_path / ".ssh" / "id_dir.pub").mkdir()
    assert callers_keys(tmp_path) == (KEY, OTHER)


def test_the_own_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "armvm"
    private, public = own_key(directory)
    assert is_public_key(public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert own_key(directory) == (private, public)
    assert sorted(path.name for path in directory.iterdir()) == [
        ".lock",
        "id_ed25519",
        "id_ed25519.pub",
    ]


def test_a_lost_public_half_comes_back_and_the_private_key_stays(tmp_path: Path) -> None:
    private, public = own_key(tmp_path)
    before = private.read_bytes()
    (tmp_path / "id_ed25519.pub").unlink()
    assert own_key(tmp_path) == (private, public)
    assert private.read_bytes() == before


def test_many_first_uses_at_once_make_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        found.append(own_key(tmp_path)[1])

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_place_that_cannot_hold_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionDenied) as caught:
        own_key(tmp_path / "file" / "armvm")
    assert caught.value.hint is not None
    assert "--ssh-key" in caught.value.hint


def test_a_password_is_kept_as_a_bcrypt_hash() -> None:
    hashed = hash_password("correct horse")
    assert hashed.startswith("$2b$10$")
    assert bcrypt.checkpw(b"correct horse", hashed.encode())
    assert hash_password("correct horse") != hashed


@pytest.mark.parametrize("password", ["", "x" * 73, "é" * 37, "a\0b"])
def test_a_password_that_would_be_cut_is_refused(password: str) -> None:
    with pytest.raises(ConfigError, match="72 bytes"):
        hash_password(password)
