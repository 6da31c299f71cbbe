"""The version, the changelog, the README and the contributor's pages agree with each other."""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from armvm import __version__
from tests.support import ROOT
from tests.unit.test_docs import COMMANDS, GENERATE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
#: The pages beside the code, which the site's own check of links does not read.
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
#: The blocks of a page between ``` and ```, each with its language.
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def test_the_version_has_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    source = (ROOT / PROJECT["tool"]["hatch"]["version"]["path"]).read_text()
    assert re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE) == [__version__]


def test_the_changelog_begins_with_what_is_unreleased_and_then_this_version() -> None:
    first, newest, *_ = headings((ROOT / "CHANGELOG.md").read_text())
    assert first == "[Unreleased]"
    match = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", newest)
    assert match is not None
    assert match[1] == __version__
    assert date.fromisoformat(match[2])


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted((ROOT / "docs").glob("**/*.md"))], ids=lambda path: path.name
)
def test_no_page_names_another_version(path: Path) -> None:
    if path.name != "CHANGELOG.md":
        named = re.findall(r"(?<![/\w])(?:armvm[ -]|v)(\d+\.\d+\.\d+)\b", path.read_text())
        assert set(named) <= {__version__}


def test_the_manual_pages_bear_the_version() -> None:
    pages = dict(GENERATE.man_pages.pages(GENERATE.get_command(GENERATE.app), [], __version__))
    assert f'"armvm {__version__}"' in pages["armvm.1"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"])
def test_every_file_that_a_page_names_is_there(name: str) -> None:
    folders = "armvm|templates|cloud-init|tests|docs|scripts|.github|.ci"
    named = re.findall(rf"`((?:{folders})/[^`\s*{{}}…]+)`", (ROOT / name).read_text())
    assert named
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_the_readme_is_short_and_has_its_two_commands() -> None:
    assert len(README.split()) <= 900
    first = BLOCK.search(README)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[2].splitlines()] == [
        "make vm",
        "make test",
    ]
    rules = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{rule}:", rules, re.MULTILINE) for rule in ("vm", "test"))


def test_every_command_in_the_readme_parses() -> None:
    known = dict(COMMANDS)
    lines = [
        line for lang, text in BLOCK.findall(README) if lang == "sh" for line in text.splitlines()
    ]
    words_of = [line.split("#")[0].split(" -- ")[0].split() for line in lines]
    ours = [words for words in words_of if words[:1] == ["armvm"]]
    assert len(ours) >= 12
    for words in ours:
        name = next(" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known)
        options = {word for one in known[name].params for word in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options


def test_ci_covers_every_supported_python_and_calls_what_is_there() -> None:
    document = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    jobs = document["jobs"]
    pythons = jobs["unit"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"
    rules = (ROOT / "Makefile").read_text()
    markers = {one.split(":")[0] for one in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    for step in (step for job in jobs.values() for step in job["steps"]):
        words = step.get("run", "").removeprefix("sudo -H ").split()
        if words[:1] == ["make"]:
            assert f"\n{words[1]}:" in rules
            (layers,) = re.findall(r'LAYERS="(.+)"', step["run"])
            assert set(layers.split(" or ")) <= markers
        elif words and words[0].startswith("scripts/"):
            assert (ROOT / words[0]).is_file()
