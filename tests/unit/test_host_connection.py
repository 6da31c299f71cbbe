"""Which libvirt is meant, and what a URI says."""

from __future__ import annotations

import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from armvm.base.errors import ConnectFailed, PermissionDenied, UsageError
from armvm.host.connection import SESSION, SYSTEM, connect, default_uri, is_local, is_session
from tests.support import ARMVM


def test_variables_decide_in_their_order(tmp_path: Path) -> None:
    both = {"ARMVM_CONNECT": "qemu+ssh://a/system", "LIBVIRT_DEFAULT_URI": "test:///default"}
    assert default_uri(both, ()) == ("qemu+ssh://a/system", "ARMVM_CONNECT")
    assert default_uri({**both, "ARMVM_CONNECT": ""}, ()) == (
        "test:///default",
        "LIBVIRT_DEFAULT_URI",
    )


def test_blanks_around_a_uri_are_no_part_of_it() -> None:
    assert default_uri({"LIBVIRT_DEFAULT_URI": "qemu:///system \n"}, ()) == (
        SYSTEM,
        "LIBVIRT_DEFAULT_URI",
    )
    assert default_uri({"ARMVM_CONNECT": "  "}, ())[0] == SESSION
    assert connect(" test:///default ").getURI() == "test:///default"


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("qemu://system", "qemu:///system?"),
        ("qemu://session/", "qemu:///session?"),
        ("qemu+ssh://system", "qemu+ssh://system/system?"),
        ("qemu+ssh://me@lab", "qemu+ssh://me@lab/system?"),
        ("qemu:///sys tem", "for example"),
        ("nonsense", "for example"),
    ],
)
def test_a_uri_that_names_no_daemon(uri: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(uri)
    assert meant in (caught.value.hint or "")


def test_without_variables_the_system_daemon_if_it_lets_us_in(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    assert default_uri({}, (path,))[0] == SESSION
    path.write_text("no socket")
    assert default_uri({}, (path,))[0] == SESSION
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert default_uri({}, (path,))[0] == SESSION, "nobody listens"
        server.listen()
        assert default_uri({}, (tmp_path / "none", path))[0] == SYSTEM


def test_the_hint_is_about_the_host_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "armvm").mkdir()
    (tmp_path / "armvm" / "config.toml").write_text(
        '[hosts]\nlab1 = "qemu+ssh://lab1.invalid/system"\n'
    )
    lab9 = "qemu+ssh://lab9.invalid/system?no_verify=1&x=2"
    for uri, doctor in (
        ("qemu+ssh://lab1.invalid/system", "armvm doctor --on lab1"),
        (lab9, f"armvm doctor --connect '{lab9}'"),
    ):
        with pytest.raises(ConnectFailed) as caught:
            connect(uri)
        assert caught.value.hint == f"check the host: {doctor}", "ssh fails: no daemon to start"
    gone = "qemu+unix:///system?socket=/nowhere"
    with pytest.raises(ConnectFailed) as caught:
        connect(gone)
    assert caught.value.hint
    assert f"armvm doctor --connect '{gone}'; if libvirt's daemon is not running: " in (
        caught.value.hint
    )
    monkeypatch.setenv("ARMVM_CONNECT", gone)
    with pytest.raises(ConnectFailed) as caught:
        connect()
    assert caught.value.hint
    assert caught.value.hint.startswith("check the host: armvm doctor; if libvirt's daemon")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("me@lab1: Permission denied (publickey).", "ssh refused the login"),
        ("Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied", "that host"),
    ],
)
def test_who_denied_permission_on_another_host(
    said: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 255\n')
    ssh.chmod(0o755)
    with pytest.raises(PermissionDenied) as caught:
        connect(f"qemu+ssh://lab1/system?command={ssh}")
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu+unix:///system?socket=/x", True),
        ("test:///default", True),
        ("qemu://host/system", False),
        ("qemu+ssh://host/system", False),
        ("qemu+ssh:///system", False),
        ("qemu+tcp://localhost/system", False),
        ("", False),
    ],
)
def test_a_local_uri_means_our_own_files(uri: str, local: bool) -> None:
    assert is_local(uri) is local


@pytest.mark.parametrize(
    ("uri", "session"),
    [
        ("qemu:///session", True),
        ("qemu:///session?socket=/run/x", True),
        ("qemu+ssh://host/session", True),
        ("qemu:///system", False),
        ("qemu:///system?x=/session", False),
    ],
)
def test_a_session_is_known_by_its_path(uri: str, session: bool) -> None:
    assert is_session(uri) is session


@pytest.mark.parametrize("command", ["show", "golden delete", "network show"])
def test_a_name_that_is_not_utf8_is_not_found(command: str) -> None:
    program = " ".join(shlex.quote(word) for word in ARMVM)
    line = f"exec {program} {command} \"$(printf '\\377')\" --connect test:///default"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "'\\udcff'" in done.stderr
