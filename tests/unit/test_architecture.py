"""The house plan, checked against the imports of the code."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "armvm"

MIDDLE = {"images", "guest", "host", "usermode"}
#: Which rooms a room may import besides itself. The version in armvm itself is anybody's.
ARROWS: dict[str, set[str]] = {
    "base": set(),
    "settings": {"base"},
    **{room: {"base", "settings"} for room in MIDDLE},
    "provision": {"base", "settings"} | MIDDLE,
    # OpenStack: Nova has its own libvirt.
    "cloud": {"base", "settings", "images", "guest"},
    "cli": {"base", "settings", "provision", "cloud"},
    "__main__": {"cli"},
    "__init__": set(),
}
#: The folders of a room, and which of their neighbours each may import.
INNER: dict[str, dict[str, set[str]]] = {
    "images": {
        "check": set(),
        "fetch": set(),
        "trust": {"fetch"},
        "cache": {"check", "fetch"},
        "oci": {"cache", "fetch"},
        "distros": {"check", "fetch", "trust"},
    },
    "guest": {"agents": set(), "boot": set(), "cloudinit": set(), "ssh": set()},
    "host": {
        "agent": set(),
        "network": {"agent"},
        "storage": {"agent"},
        "memory": {"storage"},
        "console": {"agent", "storage"},
        "domain": {"agent", "console", "memory", "network"},
    },
    "usermode": {"programs": set(), "binfmt": {"programs"}, "rootfs": {"binfmt", "programs"}},
    "provision": {
        "image": set(),
        "binfmt": set(),
        "rootfs": {"image"},
        "machine": {"image"},
        "access": {"machine"},
        "accelerate": {"access"},
        "monitor": {"access"},
        "golden": {"access", "image", "machine", "monitor"},
        "launch": {"access", "golden", "image", "machine", "monitor", "rootfs"},
        "manage": {"access", "golden", "machine", "monitor"},
        "inspect": {"access", "image", "manage"},
        "fleet": {"golden", "launch", "machine", "manage"},
    },
}
#: Third-party modules that one room alone may import.
OWNERS = {
    "libvirt": "host",
    "libvirt_qemu": "host",
    "subprocess": "base",
    "openstack": "cloud",
    "keystoneauth1": "cloud",
}
#: Parts of a program that runs in guests, without the rest of armvm.
IN_GUESTS = {("armvm/guest/agents/command_server.py", "subprocess")}
#: What the front door must not load before it is needed. (typer itself brings subprocess.)
HEAVY = ("libvirt", "requests", "lxml", "pycdlib", "yaml", "cryptography", "bcrypt", "openstack")

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
        if (relative(path), name) in IN_GUESTS:
            continue
        assert owner is None or room_of(path) == owner, f"{name} belongs to {owner}"


def folder_of(name: str) -> tuple[str, str] | None:
    """Return the room and the folder in which a dotted name of armvm's lies, None outside both."""
    parts = name.split(".")
    if len(parts) < 3 or not (PACKAGE / parts[1] / parts[2]).is_dir():
        return None
    return parts[1], parts[2]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_folders_of_a_room_import_only_what_the_plan_allows(path: Path) -> None:
    here = folder_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if here is None or here[0] not in INNER:
        return
    room, folder = here
    found = {other for name in imports(path) if (other := folder_of(name)) and other[0] == room}
    assert {other for _, other in found} - {folder} <= INNER[room][folder]


@pytest.mark.parametrize("room", INNER)
def test_the_plan_of_a_room_names_its_folders_and_has_no_circle(room: str) -> None:
    folders = INNER[room]
    there = {one.name for one in (PACKAGE / room).iterdir() if (one / "__init__.py").is_file()}
    assert folders.keys() == there
    placed: set[str] = set()
    while ready := {one for one, below in folders.items() if one not in placed and below <= placed}:
        placed |= ready
    assert placed == folders.keys()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_what_is_public_is_explained(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing = [] if path.name == "__init__.py" or ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list):
            continue  # a signature only: the function itself is explained
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
    assert "armvm.provision.launch.launch" in late
    assert room_of(file) == "cli"
    assert room_of(PACKAGE / "base" / "errors.py") == "base"


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
        "from armvm.cli.main import main\n"
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


def test_python_starts_without_the_current_directory() -> None:
    """`python -m` and a bare `python -c` import from it; `programs.own` and -I do not."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"sys\.executable,(?! \"-I\")", path.read_text())
    }
    assert users == {"base/programs.py"}
