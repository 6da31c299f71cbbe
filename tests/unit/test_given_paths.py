"""Paths that users give: empty ones, ``~``, and paths in commands that are printed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from armvm.base.errors import ArmvmError, ConfigError, NotFound, PermissionDenied, UsageError
from armvm.base.progress import Quiet
from armvm.cli.app import app
from armvm.guest.ssh.scp import read_copy
from armvm.host.connection import connect
from armvm.images.reference import parse
from armvm.provision.image.care import import_image
from armvm.provision.launch.run_mount import read_mount
from armvm.provision.machine.seedless import medium
from armvm.provision.manage.mount import wanted_share
from armvm.provision.rootfs.emulate import emulate as emulate_program
from armvm.provision.rootfs.place import free_place
from armvm.settings.user_path import absolute, given_path
from armvm.usermode.binfmt import execution
from armvm.usermode.programs import emulate
from armvm.usermode.rootfs.build import Mode
from armvm.usermode.rootfs.enter import check_root


def parameters(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every parameter of every command, with the words that lead to it."""
    for one in command.params:
        yield " ".join([*words, one.opts[0]]), one
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from parameters(command.get_command(None, name), (*words, name))


def test_every_path_is_read_in_one_way() -> None:
    """typer's own paths take the empty one for the working directory, and know no ``~``."""
    every = dict(parameters(typer.main.get_command(app)))
    assert "seed --output" in every
    assert [name for name, one in every.items() if one.type.name == "path"] == []


@pytest.mark.parametrize("text", ["", "~no-such-user-of-armvm/x"])
def test_a_path_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given_path(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", [".", "/", "a b", "./~x", "x~", "-"])
def test_another_path_is_taken_as_it_is(text: str) -> None:
    assert given_path(text) == Path(text)


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_path("~/.ssh/x.pub") == tmp_path / ".ssh" / "x.pub"
    assert given_path("~") == tmp_path
    (tmp_path / "src").mkdir()
    assert read_mount("~/src:/x").directory == tmp_path / "src"


@pytest.mark.parametrize(
    "words",
    [
        ("seed", "--image", "local:debian-12", "-o", "x", "--ssh-key", ""),
        ("seed", "--image", "local:debian-12", "-o", "x", "--user-data="),
        ("seed", "-o", ""),
        ("rootfs", "to-tar", ""),
        ("rootfs", "to-tar", ".", "--output="),
        ("binfmt", "explain", ""),
        ("emulate", ""),
        ("image", "import", "", "--as", "x"),
        ("config", "check", ""),
        ("run", "--mount", ""),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="it is empty"):
        app(args=[*words], prog_name="armvm", obj=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("image", "export", "local:x"),
        ("rootfs", "create", "d", "--image", "debian:12", "--keyring"),
        ("run", "--mount"),
        ("golden", "export", "x", "--sign"),
        ("seed", "--image", "local:x", "-o", "x", "--user-data"),
    ],
    ids=" ".join,
)
def test_a_path_that_is_too_long_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="it is too long"):
        app(args=[*words, "x" * 300], prog_name="armvm", obj=[])


@pytest.mark.parametrize("words", [("", "m:"), ("m:x", ""), ("a", "", "m:")])
def test_an_empty_path_is_not_copied(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="invalid path"):
        read_copy(words)


def hint_of(error: ArmvmError) -> list[str]:
    return shlex.split(error.hint or "")


def test_commands_in_hints_can_be_pasted(tmp_path: Path) -> None:
    program = tmp_path / "it's a program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o644)
    with pytest.raises(PermissionDenied) as denied:
        emulate.look(program)
    assert hint_of(denied.value) == ["chmod", "+x", str(program)]
    with pytest.raises(UsageError) as copied:
        read_copy(["a:it's", "b:x y"])
    assert hint_of(copied.value)[4:7] == ["armvm", "cp", "a:it's"]
    assert "b:x y." in hint_of(copied.value)
    assert execution.command(Path("it's")) == shlex.quote("./it's")


@pytest.mark.parametrize(
    "work",
    [
        absolute,
        lambda path: parse(f"./{path}"),
        medium,
        lambda _path: wanted_share(connect("test:///default"), ".", "/x", tag=None, read_only=True),
        lambda _path: read_mount("."),
        lambda path: free_place(path, Mode.ROOT),
        lambda path: import_image(path, "x", sha256=None, force=False, progress=Quiet()),
        lambda _path: emulate_program(".", [], progress=Quiet()),
    ],
    ids=["path", "image", "cdrom", "mount", "run --mount", "rootfs create", "import", "emulate"],
)
def test_a_deleted_working_directory_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Path], object]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(NotFound, match="the current directory no longer exists") as caught:
        work(Path("x.iso"))
    assert caught.value.hint


def test_a_name_that_begins_with_a_tilde_is_expanded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """given_path() takes ./~name as it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    assert check_root(Path("~")) == tmp_path / "~"
    assert free_place(Path("~"), Mode.ROOT) == tmp_path / "~"
    with pytest.raises(NotFound, match=f"{tmp_path}/~/x not found"):
        import_image(Path("~/x"), "x", sha256=None, force=False, progress=Quiet())
