"""The reference is the program's own help and the schemas, whole and up to date."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load() -> ModuleType:
    sys.path.insert(0, str(DOCS))  # as Python does for a script
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DOCS))
    return module


GENERATE = load()
COMMANDS: list[tuple[str, Any]] = list(GENERATE.commands())
PAGE = (DOCS / "commands.md").read_text()


def section(name: str) -> str:
    return PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("path", GENERATE.pages(), ids=lambda path: path.name)
def test_the_page_is_up_to_date(path: Path) -> None:
    assert GENERATE.pages()[path] == path.read_text(), "run docs/generate.py"


def test_the_commands_of_the_issue_are_there() -> None:
    wanted = "create list show start stop delete console ssh wait xml seed doctor".split()
    wanted += ["image list", "image pull", "image build", "image rm"]
    assert {f"armvm {name}" for name in wanted} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_option_is_on_the_page_and_explained(name: str, command: Any) -> None:
    text = section(name)
    for parameter in GENERATE.visible(command):
        assert parameter.help, f"{parameter.name} is not explained"
        if parameter.param_type_name == "option":
            for word in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{word}" in text


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_an_example_that_parses(name: str, command: Any) -> None:
    """An example in the help names the command, and only options that it has."""
    examples = [
        line.strip().removeprefix("Example:").strip()
        for line in (command.epilog or "").splitlines()
        if name in line
    ]
    assert examples
    known = {word for one in command.params for word in (*one.opts, *one.secondary_opts)}
    for example in examples:
        words = example.split(name, 1)[1].split(" | ")[0].split(" > ")[0].split()
        ours = words[: words.index("--")] if "--" in words else words
        assert {word for word in ours if word.startswith("-") and word != "-"} <= known


def test_every_exit_code_is_on_the_page() -> None:
    from armvm.base import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ArmvmError):
            assert f"| {kind.exit_code} | `{kind.reference}`: " in section("Exit codes")


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=DOCS.parent,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in ("index", "tutorial", "commands", "json", "explain/xml", "howto/ci"):
        assert (tmp_path / f"{page}.html").is_file()


def test_a_manual_page_for_every_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--man", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = {f"{name.replace(' ', '-')}.1" for name, _ in COMMANDS} | {"armvm.1"}
    assert {path.name for path in tmp_path.iterdir()} == names
    text = (tmp_path / "armvm-create.1").read_text()
    assert '.TH "ARMVM-CREATE" 1' in text
    assert ".B \\-\\-cpus N\n" in text


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man")
def test_man_has_nothing_to_say_against_the_pages(tmp_path: Path) -> None:
    pages = dict(GENERATE.man_pages.pages(GENERATE.get_command(GENERATE.app), COMMANDS, "1.0"))
    for name in ("armvm.1", "armvm-create.1", "armvm-run.1", "armvm-ssh.1", "armvm-explain.1"):
        (tmp_path / name).write_text(pages[name])
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-l", str(tmp_path / name)],
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "SEE ALSO" in re.sub(".\b", "", done.stdout)  # bold is a letter over itself
