"""The help of every command, as a terminal of 100 columns without colours shows it.

How it is drawn is typer's and rich's affair and changes with their versions; what it says is
ours. So the drawing is compared where the versions are the recorded ones, else the words.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from typing import Any, cast

import pytest
from typer.main import get_command

from armvm.cli.app import app
from tests.expected.conftest import FILES, Expected

VERSIONS = "".join(f"{name} {version(name)}\n" for name in ("typer", "rich"))


def words(text: str) -> list[str]:
    """Return what a help says: its words, without frames and typer's names for types."""
    return sorted(re.findall(r"[^\s╭╮╰╯─│]+", re.sub(r"<\w+>|BOOLEAN|\[default: \w+\]", "", text)))


def names() -> list[str]:
    """Return the words of every command and group, the program's own help first."""
    found = [""]
    group = cast("Any", get_command(app))
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        found.append(name)
        found += [f"{name} {below}" for below in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("name", names(), ids=lambda name: name or "armvm")
def test_the_help_is_as_recorded(
    name: str, expected: Expected, request: pytest.FixtureRequest
) -> None:
    plain = {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    kept = ("PATH", "HOME", "VIRTUAL_ENV")
    done = subprocess.run(
        [sys.executable, "-m", "armvm", *name.split(), "--help"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**{key: os.environ[key] for key in kept if key in os.environ}, **plain},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    text = "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n") + "\n"
    assert max(map(len, text.splitlines())) <= 100
    file = f"help/{'-'.join(['armvm', *name.split()])}.txt"
    recorded = FILES / "help" / "VERSIONS"
    updating = request.config.getoption("--update-expected")
    if updating or recorded.read_text() == VERSIONS:
        expected("help/VERSIONS", VERSIONS)
        expected(file, text)
    else:
        assert words((FILES / file).read_text()) == words(text)


def test_words_are_what_is_said() -> None:
    drawn = "╭─ Options ─╮\n│ --force  <bool>  Pull the plug. [default: no] │\n"
    assert words(drawn) == sorted(["Options", "--force", "Pull", "the", "plug."])
