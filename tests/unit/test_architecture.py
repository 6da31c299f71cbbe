"""The house plan, held against the code: who imports whom, and how large a module may be."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "armvm"

GROUND = {"errors", "limits", "progress", "process", "programs", "paths", "signals"}
MIDDLE = {"images", "guest", "host", "usermode"}
#: Which rooms a room may import besides itself. The version in armvm itself is anybody's.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "progress": {"errors"},
    "limits": set(),
    "process": {"errors", "limits", "programs"},
    "programs": {"errors"},
    "paths": {"errors"},
    "signals": set(),
    "spec": GROUND,
    **{room: GROUND | {"spec"} for room in MIDDLE},
    "provision": GROUND | {"spec"} | MIDDLE,
    "cli": GROUND | {"spec", "provision"},
    "__main__": {"cli"},
    "__init__": set(),
}
#: Third-party modules that one room alone may import.
OWNERS = {"libvirt": "host", "libvirt_qemu": "host", "subprocess": "process"}
#: What the front door must not load before it is needed. (typer itself brings subprocess.)
HEAVY = ("libvirt", "requests", "lxml", "pycdlib", "yaml", "cryptography", "bcrypt")

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, late ones too."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def rooms_imported(path: Path) -> set[str]:
    """Return the rooms of armvm's that a file imports, its own left out."""
    names = {name for name in imports(path) if name.startswith("armvm.")}
    rooms = {name.split(".")[1] for name in names} - {"__version__", room_of(path)}
    assert rooms <= ARROWS.keys(), f"{path} imports a room that is not in the plan: {rooms}"
    return rooms


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_go_down_only(path: Path) -> None:
    assert rooms_imported(path) <= ARROWS[room_of(path)]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_some_modules_belong_to_one_room(path: Path) -> None:
    for name in imports(path):
        owner = OWNERS.get(name.split(".")[0])
        assert owner is None or room_of(path) == owner, f"{name} belongs to {owner}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_what_is_public_is_explained(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing = [] if path.name == "__init__.py" or ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        inner = [
            one
            for one in (node.body if isinstance(node, ast.ClassDef) else [])
            if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")
        ]
        missing += [one.name for one in (node, *inner) if not ast.get_docstring(one)]
    assert missing == []


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    """The tests above are worth what this function sees."""
    file = PACKAGE / "cli" / "golden.py"
    assert {"armvm.cli", "armvm.cli.complete", "typer", "typing.Annotated"} <= imports(file)
    late = imports(PACKAGE / "cli" / "create.py")
    assert "armvm.provision.launch" in late
    assert room_of(file) == "cli"
    assert room_of(PACKAGE / "errors.py") == "errors"


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["--help"], {}),
        (["create", "--help"], {}),
        (["image", "--help"], {}),
        (["--version"], {}),
        ([], {"_ARMVM_COMPLETE": "complete_bash", "COMP_WORDS": "armvm cr", "COMP_CWORD": "1"}),
        (
            [],
            {
                "_ARMVM_COMPLETE": "complete_bash",
                "COMP_WORDS": "armvm create --preset m",
                "COMP_CWORD": "3",
            },
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_completion_load_nothing_heavy(
    words: list[str], environment: dict[str, str]
) -> None:
    code = (
        "import json, sys, atexit\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        "from armvm.cli.run import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "armvm.cli.app" in loaded
    assert loaded & set(HEAVY) == set()
