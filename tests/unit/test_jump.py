"""The way to a remote libvirt's machines: ssh's words, the shared connection, and hostile URIs."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import MissingCapability, UsageError
from armvm.guest.ssh.options import JUMP, proxy_command, words
from armvm.provision.access import jump as jumping
from armvm.provision.access.forward import _ssh_forward
from armvm.provision.access.jump import (
    LONGEST,
    Jump,
    host_of,
    jump_of,
    need_way,
    other_way,
    socket_of,
    trouble,
)
from armvm.provision.access.ssh import Endpoint, answers
from armvm.settings.ports import PortForward


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own, with a name as short as they are."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


def program(path: Path, text: str) -> str:
    """Write a program that stands where ssh would, and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("qemu+ssh://me@far:2222/system", "ssh -p 2222 -l me -- far"),
        ("qemu+ssh://far/session?socket=/run/x&netcat=nc&mode=direct", "ssh -- far"),
        ("qemu+ssh://far/system?keyfile=/k%20ey&no_tty=1", "ssh -i '/k ey' -- far"),
        ("qemu+ssh://far/system?no_verify=1", "ssh -o StrictHostKeyChecking=no -- far"),
        ("qemu+ssh://far/system?no_verify=0&known_hosts=/x", "ssh -- far"),
        ("qemu+ssh://far/system?command=/opt/my%20ssh", "'/opt/my ssh' -- far"),
        ("qemu+ssh://DOM%5Cme@[fd00::1]/system", "ssh -l 'DOM\\me' -- fd00::1"),
        ("qemu+libssh://far/system?command=x", "ssh -- far"),
        (
            "qemu+libssh2://far/system?known_hosts=/k%2525&known_hosts_verify=auto"
            "&sshauth=agent,privkey,password",
            "ssh -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=\"/k%%25\"' "
            "-o PreferredAuthentications=publickey,password -- far",
        ),
    ],
)
def test_a_uri_tells_ssh_what_it_tells_libvirt(uri: str, command: str) -> None:
    jump = jump_of(uri)
    assert jump is not None
    assert shlex.join(jump.command()) == command


@pytest.mark.parametrize(
    "uri",
    ["qemu:///system", "qemu+unix:///system", "qemu+tls://far/system", "qemu+tcp://far/system",
     "qemu+ext:///system?command=x", "qemu+ssh:///system", "test:///default"],
)  # fmt: skip
def test_other_ways_to_libvirt_are_none_to_its_machines(uri: str) -> None:
    assert jump_of(uri) is None


@pytest.mark.parametrize("host", ["-oProxyCommand=id", "-F", "a;b", "a`b`", "$(id)", "a'b"])
def test_a_host_or_user_that_is_no_name_is_refused(host: str) -> None:
    for uri in (f"qemu+ssh://{host}/system", f"qemu+ssh://{host}@far/system"):
        with pytest.raises(UsageError):
            jump_of(uri)


def test_a_percent_sign_in_a_user_cannot_hide_an_option() -> None:
    with pytest.raises(UsageError):
        jump_of("qemu+ssh://%2DoProxyCommand=id@far/system")


def test_where_only_libvirt_is_reached_the_refusal_says_how_else() -> None:
    for uri, word in (("qemu+tls://far/system", "far"), ("qemu+ext:///session", "qemu+ext")):
        with pytest.raises(MissingCapability) as caught:
            need_way(uri, "box")
        assert word in str(caught.value)
        assert "qemu+ssh://USER@" in str(caught.value.hint)
        assert "qemu+ssh://USER@" in str(other_way(uri))
        assert host_of(uri) == word
    for uri in ("qemu:///system", "qemu+ssh://far/system"):
        need_way(uri, "box")
        assert other_way(uri) is None


@pytest.mark.parametrize(
    "text", ["a b", "100%", "it's", 'say "x"', "$HOME", "a;b", "%h%%", "~", "\\"]
)
def test_ssh_runs_the_jump_with_the_words_as_they_are(tmp_path: Path, text: str) -> None:
    """By ssh itself, which has a shell run it and expands what begins with a %."""
    said = tmp_path / "said"
    there = tmp_path / f"{text} dir"
    there.mkdir()
    name = program(
        there / f"{text} ssh", f'printf "%s\\n" "$@" >> {shlex.quote(str(said))}; exit 1'
    )
    jump = Jump(host="far", program=name, options=("-i", text))
    command = proxy_command(jump.through("10.0.0.2", 22))
    said.unlink()  # what asked for the shared connection
    options = ("-F", "none", "-o", "BatchMode=yes", "-o", f"ProxyCommand={command}")
    subprocess.run(["ssh", *options, "-l", "me", "somewhere"], capture_output=True, check=False)
    assert said.read_text().splitlines() == [
        *("-i", text, "-W", "10.0.0.2:22"),
        *(*words(JUMP), "--", "far"),
    ]


def test_a_port_of_this_host_is_led_on() -> None:
    jump = jump_of("qemu+ssh://me@far/system")
    assert jump is not None
    words = _ssh_forward(jump, PortForward(host=8080, guest=80), "10.0.0.2:80")
    assert words == "ssh -l me -N -L 8080:10.0.0.2:80 -- far"


def test_an_answer_through_a_jump_is_a_servers_banner(tmp_path: Path) -> None:
    def seen(text: str) -> bool:
        name = program(tmp_path / "ssh", f'case "$*" in *-M*) exit 1;; esac; {text}')
        return answers(Endpoint(host="h", port=1, jump=Jump(host="far", program=name)))

    assert seen("echo SSH-2.0-server")
    assert not seen("echo SSH-2.0-server >&2; exit 255")
    assert not seen(":")
    assert not seen("echo HTTP/1.1")
    jump = Jump(host="far", program=str(tmp_path / "nothing"))
    assert not answers(Endpoint(host="h", port=1, jump=jump))


def test_why_a_host_is_no_jump_is_said_in_sshs_words(tmp_path: Path) -> None:
    def told(text: str) -> str | None:
        return trouble(Jump(host="far", program=program(tmp_path / "ssh", text)))

    assert told("exit 0") is None
    assert told("echo 'channel 0: open failed: connect failed: refused' >&2; exit 255") is None
    prohibited = "channel 0: open failed: administratively prohibited: open failed"
    assert "AllowTcpForwarding" in str(told(f"echo '{prohibited}' >&2; exit 255"))
    assert told("echo Banner >&2; echo 'no route to far' >&2; exit 255") == "no route to far"
    assert told("echo 'Permission denied (publickey).' >&2; exit 255") is not None


class Shared:
    """A program in ssh's place that keeps what it was called with, and can hold a socket."""

    def __init__(self, directory: Path) -> None:
        self._said = directory / "calls"
        self.jump = Jump(
            host="far", program=program(directory / "ssh", f'echo "$*" >> {self._said}')
        )

    def uses(self) -> list[str]:
        """Return the options that use the shared connection, and forget the calls before."""
        self._said.unlink(missing_ok=True)
        return jumping._shared(self.jump)

    def calls(self) -> list[str]:
        return self._said.read_text().splitlines()


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def test_a_connection_is_opened_once_and_then_used(shared: Shared, tmp_path: Path) -> None:
    assert shared.uses() == []  # the program made no socket: each ssh connects by itself
    assert "-M" in shared.calls()[-1]
    path = socket_of(shared.jump)
    assert path is not None
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        assert shared.uses() == ["-S", str(path), "-o", "ControlMaster=no"]
    assert not any("-M" in call for call in shared.calls())


def test_a_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    """Asked of ssh itself: it says of such a socket that nobody is there."""
    jump = Jump(host="localhost", options=("-F", "none", "-p", "1", "-o", "BatchMode=yes"))
    path = socket_of(jump)
    assert path is not None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    begun = time.monotonic()
    assert jumping._shared(jump) == []  # nobody listens at port 1 either
    assert time.monotonic() - begun < 30
    assert not path.exists()


def test_a_connection_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumping, "ALIVE_TIMEOUT", 0.3)
    jump = Jump(host="far", program=program(tmp_path / "ssh", 'case "$*" in *-W*) sleep 60;; esac'))
    path = socket_of(jump)
    assert path is not None
    path.touch()
    assert jumping._shared(jump) == []
    assert not path.exists()


def test_a_pipe_of_ours_is_not_held_open_by_the_shared_connection(tmp_path: Path) -> None:
    text = "import sys; sys.path.insert(0, '.'); from armvm.base import process; " \
        "process.into_background(['sh', '-c', 'sleep 30 & echo x >&2'])"  # fmt: skip
    begun = time.monotonic()
    words = [os.sys.executable, "-c", text]  # type: ignore[attr-defined]
    root = Path(__file__).parents[2]
    subprocess.run(words, cwd=root, capture_output=True, check=True, timeout=25)
    assert time.monotonic() - begun < 25


def test_the_sockets_directory_is_the_users_alone(runtime: Path) -> None:
    jump = Jump(host="far")
    path = socket_of(jump)
    assert path is not None
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o755)
    assert socket_of(jump) is None
    path.parent.rmdir()
    (runtime / "other").mkdir(mode=0o700)
    path.parent.symlink_to(runtime / "other")
    assert socket_of(jump) is None


def test_a_socket_has_a_name_of_its_own_that_fits(runtime: Path) -> None:
    one, other = Jump(host="far"), Jump(host="far", options=("-p", "2222"))
    assert socket_of(one, runtime) != socket_of(other, runtime)
    longest = socket_of(one, runtime / ("x" * (LONGEST - len(f"{runtime}//armvm/ssh-") - 16)))
    assert longest is not None
    assert len(str(longest)) == LONGEST
    assert socket_of(one, runtime / ("x" * LONGEST)) is None
    assert socket_of(one, runtime / "${HOME}") is None


def test_ssh_takes_a_sockets_path_as_it_is(runtime: Path) -> None:
    path = socket_of(Jump(host="far"), runtime / "a %h b")
    assert path is not None
    words: list[Any] = ["ssh", "-F", "none", *jumping._by(path), "-G", "far"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert f"controlpath {path}" in told.replace("%%", "%")
