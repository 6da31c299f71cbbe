"""``rootfs enter``: the ids and the environment it uses, and its errors."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError, MissingCapability, NotFound, PermissionDenied
from armvm.usermode.rootfs import enter
from armvm.usermode.rootfs.enter import Ids
from tests.elf_tools import exit_with
from tests.support import armvm

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "bin").mkdir(parents=True)
    (top / "bin/sh").write_bytes(exit_with(7))
    (top / "bin/sh").chmod(0o755)
    return top


def handler(root: Path, name: str, architecture: str, flags: str = "F", on: bool = True) -> None:
    root.mkdir(exist_ok=True)
    (root / "register").touch()
    magic = enter.header_of(architecture).hex()
    (root / name).write_text(
        f"{'enabled' if on else 'disabled'}\ninterpreter /usr/bin/q\nflags: {flags}\noffset 0\n"
        f"magic {magic}\nmask {'ff' * 20}\n"
    )


def test_the_header_is_how_programs_begin() -> None:
    assert enter.header_of("aarch64").hex() == "7f454c460201010000000000000000000200b700"
    assert enter.header_of("arm").hex() == "7f454c4601010100000000000000000002002800"
    assert enter.header_of("s390x").hex() == "7f454c4602020100000000000000000000020016"


def test_a_handler_for_arm_must_be_there_and_fixed(tmp_path: Path) -> None:
    handlers = tmp_path / "binfmt"
    with pytest.raises(MissingCapability, match="no binfmt handler runs arm") as caught:
        enter.ensure_runs("arm", root=handlers, machine="x86_64")
    assert caught.value.hint == "armvm binfmt register arm"
    handler(handlers, "other", "aarch64")
    handler(handlers, "off", "arm", on=False)
    with pytest.raises(MissingCapability, match="no binfmt handler"):
        enter.ensure_runs("arm", root=handlers, machine="x86_64")
    handler(handlers, "qemu-arm", "arm", flags="OC")
    with pytest.raises(MissingCapability, match="qemu-arm lacks flag F"):
        enter.ensure_runs("arm", root=handlers, machine="x86_64")
    handler(handlers, "qemu-arm", "arm", flags="POF")
    enter.ensure_runs("arm", root=handlers, machine="x86_64")
    enter.ensure_runs("aarch64", root=handlers, machine="x86_64")


def test_the_hosts_own_programs_need_no_handler(tmp_path: Path) -> None:
    for name, machine in (
        *(("x86_64", "x86_64"), ("i386", "x86_64")),
        *(("aarch64", "aarch64"), ("arm", "aarch64")),
    ):
        enter.ensure_runs(name, root=tmp_path / "none", machine=machine)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_whose_ids(tmp_path: Path, root: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    nobody = pwd.getpwnam("nobody")
    (etc / "subuid").write_text("nobody:200000:65536\n")
    (etc / "subgid").write_text("nobody:300000:65536\n")
    assert enter.ids_for(root, uid=0) is None, "root's own"
    os.chown(root, 200000, 300000)
    assert enter.ids_for(root, uid=0) == Ids(
        uid=[(0, 200000, 65536)], gid=[(0, 300000, 65536)], direct=True
    ), "an ordinary user's, with the ids of its root"
    assert enter.ids_for(root, uid=nobody.pw_uid, etc=etc) == Ids(
        uid=[(0, 200000, 65536)], gid=[(0, 300000, 65536)]
    )
    os.chown(root, nobody.pw_uid, nobody.pw_gid)
    assert enter.ids_for(root, uid=nobody.pw_uid, etc=etc) == Ids(
        uid=[(0, nobody.pw_uid, 1), (1, 200000, 65535)],
        gid=[(0, nobody.pw_gid, 1), (1, 300000, 65535)],
    )
    os.chown(root, 0, 0)
    with pytest.raises(PermissionDenied, match="belongs to root"):
        enter.ids_for(root, uid=nobody.pw_uid, etc=etc)
    (etc / "subgid").write_text("")
    with pytest.raises(MissingCapability, match="lacks ids in"):
        enter.ids_for(root, uid=nobody.pw_uid, etc=etc)


def test_the_environment_is_the_targets(root: Path) -> None:
    caller = {"PATH": "/opt/mine", "TERM": "xterm", "LD_PRELOAD": "/x.so", "http_proxy": "http://p"}
    values = enter.environment(root, "arm", caller, "x86_64")
    assert values["PATH"] == enter.PATH
    assert (values["HOME"], values["LANG"], values["TERM"]) == ("/root", "C.UTF-8", "xterm")
    assert values["http_proxy"] == "http://p"
    assert "LD_PRELOAD" not in values
    assert "QEMU_CPU" not in values
    assert enter.environment(root, "arm", {}, "x86_64")["TERM"] == "dumb"
    asked = enter.environment(root, "aarch64", {"QEMU_CPU": "cortex-a57"}, "x86_64")
    assert asked["QEMU_CPU"] == "cortex-a57"


def test_a_processor_that_qemu_for_arm_does_not_know_is_not_asked_for(root: Path) -> None:
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/arch").write_text("arm64\narmhf\n")
    assert "QEMU_CPU" not in enter.environment(root, "aarch64", {}, "x86_64")


def test_the_command_line_keeps_words_as_they_are(root: Path) -> None:
    words = ["sh", "-c", 'echo "$1"; --', "a b", "'", "\n"]
    argv = enter.command(root, words, ids=None, environment={"A": "b"})
    assert argv[-len(words) :] == words
    request = json.loads(str(argv[-len(words) - 1]))
    assert request["root"] == str(root)
    assert (request["ids"], request["resolv"]) == (None, "/etc/resolv.conf")
    offline = enter.command(root, words, ids=None, environment={}, network=False)
    assert json.loads(str(offline[-len(words) - 1]))["resolv"] is None


def test_what_is_no_root_file_system_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(NotFound):
        enter.check_root(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a directory"):
        enter.check_root(root / "bin/sh")
    (tmp_path / "host").symlink_to("/")
    with pytest.raises(ConfigError, match="own root file system"):
        enter.check_root(tmp_path / "host")
    (tmp_path / "ring").symlink_to("ring")
    with pytest.raises(ConfigError):
        enter.check_root(tmp_path / "ring")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no known program"):
        enter.architecture(tmp_path / "empty")
    assert enter.architecture(root) == "aarch64"
    assert enter.check_root(root) == root.resolve()


def test_the_login_shell_is_bash_where_there_is_one(root: Path) -> None:
    assert enter.shell(root) == ["/bin/sh", "-l"]
    (root / "bin/bash").write_bytes(b"")
    assert enter.shell(root) == ["/bin/bash", "-l"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["enter", "/nowhere", "--", "true"], 4),
        (["enter", "/", "--", "--debug"], 3),
        (["enter", "/etc", "--", "true"], 3),
        (["to-tar", "/nowhere"], 4),
        (["to-image", "/nowhere", "--as", "x"], 4),
        (["to-image", "/etc"], 2),
        (["to-image", "/etc", "--as", "x", "--output", "y"], 2),
        (["to-image", "/etc", "--as", "X Y"], 3),
    ],
    ids=str,
)
def test_refusals(words: list[str], code: int) -> None:
    armvm("rootfs", *words).failed(code)
