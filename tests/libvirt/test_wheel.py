"""The wheel and the sdist, installed away from the checkout: complete, and free of its paths."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from armvm import __version__
from tests.libvirt.world import World
from tests.support import ROOT, Result, armvm, environment


def call(*words: str | Path, cwd: Path) -> None:
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment(PIP_NO_INDEX="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


def build(target: str, tree: Path, folder: Path) -> Path:
    """Build the ``sdist`` or the ``wheel`` of a source tree, and return its file."""
    call(sys.executable, "-m", "hatchling", "build", "-d", folder, "-t", target, cwd=tree)
    (built,) = folder.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[target])
    return built


def install(package: Path, folder: Path) -> Path:
    """Install a built package into a new virtual environment.

    The packages that armvm and its build depend on come from the environment that the tests run in.
    armvm itself does not: a .pth file puts it there, and Python does not follow .pth files in a
    directory that another .pth file names.
    """
    venv = folder / "venv"
    call(sys.executable, "-m", "venv", venv, cwd=folder)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (venv / "bin" / "pip", "install", "--no-deps", "--no-build-isolation")
    call(*pip, package, cwd=folder)
    return venv


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, sdist: Path) -> Path:
    """A virtual environment with the wheel, which was built from the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    call("tar", "-xzf", sdist, cwd=folder)
    wheel = build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)
    return install(wheel, folder)


def run(installed: Path, *words: str | Path, cwd: Path, **env: str) -> Result:
    return armvm(*words, prefix=[str(installed / "bin" / "armvm")], env=env, cwd=cwd)


def test_it_runs_from_its_own_place(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "--version", cwd=tmp_path).ok().out == f"armvm {__version__}\n"
    code = "from armvm.base import paths; print(paths.__file__, paths.resources('templates'))"
    done = subprocess.run(
        [installed / "bin" / "python", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert all(Path(one).is_relative_to(installed) for one in done.stdout.split())


def test_the_sdist_installs_and_runs(sdist: Path, tmp_path: Path) -> None:
    """pip builds the sdist and installs it, as it does for a git URL."""
    assert sdist.name == f"armvm-{__version__}.tar.gz"
    venv = install(sdist, tmp_path)
    assert run(venv, "--version", cwd=tmp_path).ok().out == f"armvm {__version__}\n"
    assert "ds=nocloud" in run(venv, "explain", "xml", cwd=tmp_path).ok().out


def test_nothing_in_it_names_the_checkout(installed: Path) -> None:
    (packages,) = installed.glob("lib/python*/site-packages")
    files = [path for path in packages.glob("armvm*/**/*") if path.is_file()]
    data = {str(path.relative_to(packages)) for path in files}
    assert {
        "armvm/_data/templates/domain.xml",
        "armvm/_data/templates/presets/minimal.toml",
        "armvm/_data/cloud-init/user-data.yaml",
        "armvm/_data/docs/explain/xml.md",
    } <= data
    assert not any("tests" in name for name in data)
    for path in files:
        assert str(ROOT).encode() not in path.read_bytes(), path


def test_what_needs_its_data_works(
    installed: Path, world: World, image: Path, tmp_path: Path
) -> None:
    plan = run(
        installed,
        *("create", "--dry-run", "--json", "--image", image, "--name", "from-wheel"),
        *("--preset", "minimal"),
        cwd=tmp_path,
        **world.settings,
    ).ok()
    assert plan.json["memory_mib"] == 1024
    xml = run(installed, "xml", "--image", image, cwd=tmp_path, **world.settings).ok().out
    assert "<gic version=" in xml
    seed = run(installed, "seed", "--json", "-o", tmp_path / "s.iso", cwd=tmp_path).ok()
    assert (tmp_path / "s.iso").stat().st_size == seed.json["size"]
    assert "ds=nocloud" in run(installed, "explain", "xml", cwd=tmp_path).ok().out


def test_completion_knows_what_is_there(
    installed: Path, world: World, image: Path, name: str, tmp_path: Path
) -> None:
    """Names of machines, networks and presets, from the installed program."""
    world.held(name, image)

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        asked = {
            "_ARMVM_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        return run(installed, cwd=tmp_path, **world.settings, **asked).ok().out.split()

    assert complete(f"armvm show {name[:-2]}") == [name]
    assert "armvm" in complete("armvm create --network a")
    assert complete("armvm create --network us") == ["user"]
    assert "minimal" in complete("armvm create --preset m")
