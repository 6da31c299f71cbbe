"""Shell completion, by each shell's protocol, and in a real bash."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from armvm.cli.bash_words import rejoin
from tests.support import armvm, environment


def bash(line: str, **more: str) -> list[str]:
    """Complete a line's last word as bash asks for it (without colons)."""
    words = line.split(" ")
    env = {
        "_ARMVM_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    return armvm(env={**env, **more}).ok().out.split()


def zsh(line: str, **more: str) -> list[str]:
    """Complete a line's last word as zsh asks for it."""
    env = {"_ARMVM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    out = armvm(env={**env, **more}).ok().out
    found = re.findall(r"""^(?:_arguments '\*: :\(\()?"([^"]+)\"""", out, re.MULTILINE)
    return [word.replace("\\\\:", ":") for word in found]


def fish(line: str, **more: str) -> list[str]:
    """Complete a line's last word as fish asks for it."""
    env = {
        "_ARMVM_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    rows = armvm(env={**env, **more}).ok().out.splitlines()
    return [row.split("\t")[0] for row in rows if row]


Ask = Callable[..., list[str]]
SHELLS = pytest.mark.parametrize("ask", [bash, zsh, fish], ids=["bash", "zsh", "fish"])


@SHELLS
def test_commands_presets_and_topics(ask: Ask) -> None:
    assert "create" in ask("armvm cr")
    assert "minimal" in ask("armvm create --preset mi")
    assert ask("armvm explain fir") == ["firmware"]


@SHELLS
def test_images_of_the_catalogs_and_the_cache(ask: Ask) -> None:
    assert "ubuntu:24.04" in ask("armvm create --image ubu")
    assert "local:debian-12" in ask("armvm image pull loc")


@SHELLS
def test_a_libvirt_that_does_not_answer_completes_to_nothing(ask: Ask, tmp_path: Path) -> None:
    silent = f"qemu+unix:///system?socket={tmp_path}/none"
    assert ask("armvm show a", ARMVM_CONNECT=silent) == []


@pytest.mark.parametrize(
    ("words", "current", "joined", "place", "before"),
    [
        ("armvm create --image ubuntu : 24", 5, "armvm create --image ubuntu:24", 3, "ubuntu:"),
        ("armvm create --image ubuntu :", 4, "armvm create --image ubuntu:", 3, "ubuntu:"),
        ("armvm image pull a : b c", 6, "armvm image pull a:b c", 4, ""),
        ("armvm run --mount a : b : ro", 7, "armvm run --mount a:b:ro", 3, "a:b:"),
        ("armvm show a", 2, None, None, None),
        ("armvm show a", 9, None, None, None),
    ],
)
def test_words_with_colons_are_put_together(
    words: str, current: int, joined: str | None, place: int | None, before: str | None
) -> None:
    given = {
        "_ARMVM_COMPLETE": "complete_bash",
        "COMP_WORDS": words.replace(" ", "\n"),
        "COMP_CWORD": str(current),
    }
    environ = dict(given)
    told = rejoin(environ)
    if joined is None:
        assert (environ, told) == (given, "")
        return
    assert environ["COMP_WORDS"] == joined.replace(" ", "\n")
    assert (environ["COMP_CWORD"], told) == (str(place), before)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("armvm create --image ubuntu:24\t", "ubuntu:24.04 "),
        ("armvm create --image local:deb\t2\t", "ian-12 "),
    ],
)
def test_a_real_bash_completes_an_image_with_its_colon(
    tmp_path: Path, typed: str, expected: str
) -> None:
    program = tmp_path / "armvm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m armvm "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    child = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile"],
        env=environment(PATH=path, PS1="> ", TERM="dumb"),
        encoding="utf-8",
        timeout=60,
    )
    try:
        child.sendline('bind "set enable-bracketed-paste off"')
        child.sendline('eval "$(_ARMVM_COMPLETE=source_bash armvm)"; echo rea""dy')
        child.expect("ready")
        child.expect("> ")
        child.send(typed)
        child.expect(expected)
    finally:
        child.close(force=True)
