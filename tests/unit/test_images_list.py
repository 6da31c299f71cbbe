"""``image list``: the cache, the catalogs, one of them silent, and what completes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import MissingCapability, NotFound, Unreachable
from armvm.base.progress import Quiet
from armvm.cli.image_list import age_text
from armvm.images.cache.store import Cache
from armvm.images.resolve import Settings, obtain, resolve
from armvm.provision.golden.fit import check_system
from armvm.provision.image.list_ import on_offer, used_by
from armvm.settings.catalogs import DISTROS
from armvm.settings.system import FAMILIES, OperatingSystem
from armvm.settings.verify import Verify
from tests.catalog_trees import alpine_tree, debian_tree, fedora_tree, list_directories
from tests.image_server import ImageServer, ubuntu_tree
from tests.images_tools import Heard, qcow2_image, quick
from tests.support import armvm

#: A port where nobody listens.
SILENT = "http://127.0.0.1:1/"

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageServer]:
    root = tmp_path_factory.mktemp("tree")
    image = qcow2_image(tmp_path_factory.mktemp("image") / "image.qcow2", payload=1 << 20)
    ubuntu_tree(root / "ubuntu", image)
    ubuntu_tree(root / "ubuntu", image, "22.04", "20260828")
    debian_tree(root / "debian", image, "13")
    fedora_tree(root / "fedora", image)
    alpine_tree(root / "alpine", image)
    list_directories(root)
    with ImageServer(root) as running:
        yield running


def mirrors(server: ImageServer) -> dict[str, str]:
    """Only these four answer."""
    names = ("ubuntu", "debian", "fedora", "alpine")
    return {one: f"{server.url}{one}/" if one in names else SILENT for one in DISTROS}


def test_a_catalog_that_does_not_answer_is_a_line(server: ImageServer, tmp_path: Path) -> None:
    wanted = Settings(mirrors=mirrors(server), web=quick(), verify=Verify.DIGEST)
    cache = Cache(tmp_path / "cache")
    obtain(resolve("ubuntu:jammy", wanted), cache=cache, progress=Quiet(), web=quick())
    progress = Heard()
    found = on_offer([], progress, wanted=wanted, cache=cache)
    assert [(one.catalog, one.reference, one.cached) for one in found] == [
        ("ubuntu", "ubuntu:24.04", False),
        ("ubuntu", "ubuntu:22.04", True),
        ("debian", "debian:13", False),
        ("fedora", "fedora:43", False),
        ("alpine", "alpine:3.22", False),
    ]
    silent = [one for one in DISTROS if mirrors(server)[one] == SILENT]
    assert "opensuse" in silent
    told = sorted(one.split(" to ")[0] for one in progress.warned)
    assert told == sorted(f"{one}: cannot connect" for one in silent)
    assert all("127.0.0.1:1" in one for one in progress.warned)


def test_only_some_catalogs_are_asked(server: ImageServer, tmp_path: Path) -> None:
    wanted = Settings(mirrors=mirrors(server), web=quick())
    progress = Heard()
    found = on_offer(
        ["fedora"], progress, every=True, wanted=wanted, cache=Cache(tmp_path / "cache")
    )
    assert [one.reference for one in found] == ["fedora:43/1.6"]
    assert progress.warned == []
    with pytest.raises(NotFound) as caught:
        on_offer(["plan9"], progress, wanted=wanted)
    assert "opensuse" in (caught.value.hint or "")


def test_when_none_answers(tmp_path: Path) -> None:
    wanted = Settings(mirrors={"debian": "http://127.0.0.1:1/"}, web=quick())
    with pytest.raises(Unreachable):
        on_offer(["debian"], Heard(), wanted=wanted, cache=Cache(tmp_path / "cache"))


def test_who_uses_an_image() -> None:
    users = {"ab" * 32: ["web-01.qcow2", "ci.qcow2"], "cd" * 32: []}
    assert used_by(f"sha256:{'ab' * 32}", users) == ["ci", "web-01"]
    assert used_by(f"sha256:{'cd' * 32}", users) == []
    assert used_by(f"sha256:{'ef' * 32}", users) == []
    assert used_by("", None) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "now"), (3, "now"), (60, "1 min"), (7300, "2 h"), (86400 * 40.7, "40 d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def run(home: Path, *args: str, **env: str) -> Any:
    return armvm(
        *args,
        env={
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "ARMVM_CONNECT": "test:///default",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **env,
        },
    )


def test_the_command(server: ImageServer, tmp_path: Path) -> None:
    config = tmp_path / "config/armvm/config.toml"
    config.parent.mkdir(parents=True)
    tables = "".join(f'{name} = "{url}"\n' for name, url in mirrors(server).items())
    config.write_text(f"[mirrors]\n{tables}")
    done = run(tmp_path, "image", "list", "--remote", "--json", "ubuntu", "opensuse").ok()
    assert [one["reference"] for one in json.loads(done.out)] == ["ubuntu:24.04", "ubuntu:22.04"]
    assert [line for line in done.err.splitlines() if line.startswith("warning: opensuse:")]
    wanted = Settings(mirrors=mirrors(server), web=quick(), verify=Verify.DIGEST)
    here = Cache(tmp_path / "cache/armvm/images")
    obtain(resolve("ubuntu:jammy", wanted), cache=here, progress=Quiet(), web=quick())
    table = run(tmp_path, "image", "list").ok().out.splitlines()
    assert table[0].split() == "REFERENCE SERIAL SIZE AGE VERIFIED USED BY DIGEST".split()
    assert table[1].split()[:2] == ["ubuntu:22.04", "20260828"]
    assert "now" in table[1] and len(table) == 2
    (one,) = json.loads(run(tmp_path, "image", "list", "--json").ok().out)
    assert (one["reference"], one["serial"]) == ("ubuntu:22.04", "20260828")
    assert json.loads(run(tmp_path, "image", "list", "debian", "--json").ok().out) == []
    for name in ("ubuntu", "ubuntu:22.04", "ubuntu:22.04/20260828", one["digest"]):
        assert json.loads(run(tmp_path, "image", "list", name, "--json").ok().out) == [one]
    for name in ("debian", "local"):
        none = run(tmp_path, "image", "list", name).ok()
        assert (none.out, none.err.partition(":")[0]) == ("", "no images found")
    for name in ("nosuch", "ubuntu:24.04"):
        told = run(tmp_path, "image", "list", name).failed(4).err
        assert f"'{name}' is neither a catalog nor an image in the cache" in told
    remote = run(tmp_path, "image", "list", "--remote", "ubuntu").ok().out.splitlines()
    assert remote[0].split() == "REFERENCE SERIAL SIZE RELEASE CACHED".split()
    assert remote[2].split()[-2:] == ["jammy", "yes"]
    assert "--remote" in run(tmp_path, "image", "list", "--all").failed(2).err
    assert "plan9" in run(tmp_path, "image", "list", "--remote", "plan9").failed(4).err
    config.write_text('[mirrors]\nplan9 = "https://x/"\n')
    assert f"{config}: [mirrors] plan9" in run(tmp_path, "image", "list", "--remote").failed(3).err


def test_references_complete_without_a_server(tmp_path: Path) -> None:
    config = tmp_path / "config/armvm/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[images.corp]\nurl = "https://h.example/{version}"\nversions = ["2026.1"]\n')
    for begin, wanted in (
        ("deb", "debian:13"),
        ("fed", "fedora:latest"),
        ("alp", "alpine:latest"),
        ("open", "opensuse:tumbleweed"),
        ("ubuntu:l", "ubuntu:lts"),
        ("corp", "corp:2026.1"),
    ):
        done = run(
            tmp_path,
            _ARMVM_COMPLETE="complete_bash",
            COMP_WORDS=f"armvm image pull {begin}",
            COMP_CWORD="3",
            HTTPS_PROXY="http://127.0.0.1:1",
        )
        assert wanted in done.out.split()


def test_a_guest_without_systemd_is_no_golden() -> None:
    for distro, family in FAMILIES.items():
        system = OperatingSystem(distro=distro, version="1")
        if family.systemd:
            check_system(system)
        else:
            with pytest.raises(MissingCapability, match="systemd"):
                check_system(system)
    check_system(None)
