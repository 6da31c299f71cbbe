"""Goldens in a real registry: pushed, pulled, and pulled through a bad connection."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.base.progress import Quiet
from armvm.host.domain.golden_domain import Golden, find_golden
from armvm.host.memory import route as memory
from armvm.images.oci.reference import parse
from armvm.images.oci.registry import Registry
from armvm.provision.golden.export import packed
from armvm.provision.golden.pull import ensure
from tests.libvirt import test_golden_files
from tests.libvirt.test_golden_files import Elsewhere
from tests.libvirt.world import Reporter, World
from tests.registry_tools import Front, serving, unpacked
from tests.support import fresh_name

elsewhere = test_golden_files.elsewhere
made = test_golden_files.made


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("docker-registry"))


@pytest.fixture(scope="module")
def registry(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry's host and port."""
    with serving(program, tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def pushed(world: World, made: Callable[[str], Golden], registry: str) -> str:
    """A golden's reference."""
    reference = f"oci://{registry}/goldens/ci:v1"
    world.armvm("golden", "push", made(memory.COW).name, reference).ok()
    return reference


def removed(there: Elsewhere, *names: str) -> None:
    for name in names:
        there.armvm("golden", "delete", name, "--yes").ok()


def test_what_the_registry_has_is_not_sent_again(
    world: World, made: Callable[[str], Golden], registry: str
) -> None:
    words = ("golden", "push", made(memory.COW).name, f"oci://{registry}/again/ci:v1", "--json")
    first, second = world.armvm(*words).json, world.armvm(*words).json
    assert first["sent"] > 0
    assert second["sent"] == 0
    assert second["present"] == first["sent"] + first["present"]
    assert second["digest"] == first["digest"]


def test_a_pulled_golden_is_as_one_from_a_file(
    world: World, made: Callable[[str], Golden], elsewhere: Elsewhere, pushed: str, name: str
) -> None:
    done = elsewhere.armvm("golden", "pull", pushed, "--as", name, "--json").json
    assert done["fits"] is True
    original = world.directory / f"{made(memory.COW).name}.memory"
    assert (elsewhere.directory / f"{name}.memory").read_bytes() == original.read_bytes()
    elsewhere.armvm("golden", "verify", name).ok()
    removed(elsewhere, name)
    # Again, from the cache.
    done = elsewhere.armvm("golden", "pull", pushed, "--as", name).ok()
    assert "downloading" not in done.err
    removed(elsewhere, name)


def test_a_reference_is_pulled_once(
    world: World, elsewhere: Elsewhere, pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere.cache))
    dry = ("create", "--name", "armvm-oci", "--dry-run", "--json", "--from")
    assert "armvm golden pull" in elsewhere.armvm(*dry, pushed).failed(4).err
    where = replace(world.where(), pool=elsewhere.pool)
    golden = ensure(where, pushed, Reporter())
    try:
        assert golden.name == f"oci-{str(golden.mark.imported)[7:19]}"
        starts: list[str] = []
        assert ensure(where, pushed, Reporter(on_start=starts.append)).name == golden.name
        assert starts == []
        # With a digest, the registry is not asked: nobody listens there.
        assert elsewhere.armvm(*dry, pushed).ok().json["memory_mib"] == 256
        elsewhere.armvm(*dry, f"oci://127.0.0.1:9/goldens/ci@{golden.mark.imported}").ok()
    finally:
        removed(elsewhere, golden.name)


def test_a_host_that_differs_boots_cold_and_says_so(
    world: World, made: Callable[[str], Golden], elsewhere: Elsewhere, registry: str
) -> None:
    golden = made(memory.COW)
    mark = replace(golden.mark, ground={**golden.mark.ground, "QEMU": "8.2.0 Fedora"})
    there = Registry(parse(f"oci://{registry}/other/ci:v1"))
    with packed(world.where(), replace(golden, mark=mark), base=False, progress=Quiet()) as whole:
        for blob, source in whole.blobs:
            there.put_blob(blob, source, lambda _done: None)
        there.put_manifest(whole.manifest, "v1")
    there.session.close()
    name = fresh_name()
    words = ("create", "--name", name, "--no-start", "--from", str(there.reference))
    done = elsewhere.armvm(*words).ok()
    assert "falling back to a cold boot: golden" in done.err
    assert " here, 8.2.0 Fedora where it was made" in done.err
    assert "armvm golden create" in done.err
    shown = elsewhere.armvm("show", name, "--json").json
    assert (shown["memory_mib"], shown["golden"]) == (256, None)
    elsewhere.armvm("delete", name, "--yes").ok()
    assert [one for one in elsewhere.armvm("golden", "list", "--json").json
            if one["shape"]["pool"] == elsewhere.pool] == []  # fmt: skip


def test_an_interrupted_download_resumes(
    elsewhere: Elsewhere, pushed: str, registry: str, name: str
) -> None:
    front = Front(registry, cut=3 << 18, cuts=2)
    with front.running() as host:
        elsewhere.armvm("golden", "pull", pushed.replace(registry, host), "--as", name).ok()
    assert front.cuts == 0
    assert front.ranges[0] == f"bytes={3 << 18}-"
    removed(elsewhere, name)


def test_damage_on_the_way_is_found(
    elsewhere: Elsewhere, pushed: str, registry: str, name: str
) -> None:
    with Front(registry, spoil=True).running() as host:
        failed = elsewhere.armvm("golden", "pull", pushed.replace(registry, host), "--as", name)
        assert "digest" in failed.failed(8).err
    assert elsewhere.left(name) == []
    assert list(elsewhere.cache.glob("armvm/blobs/sha256-*")) == []


def test_signatures_in_a_registry(
    world: World, made: Callable[[str], Golden], elsewhere: Elsewhere, registry: str, name: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    for one in ("ours", "theirs"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / one)]
        subprocess.run(words, check=True)
    reference = f"oci://{registry}/signed/ci:v1"
    push = ("golden", "push", made(memory.COW).name, reference)
    pull = ("golden", "pull", reference, "--as", name, "--signed-by", tmp_path / "ours.pub")
    world.armvm(*push).ok()
    assert "is not signed" in elsewhere.armvm(*pull).failed(8).err
    world.armvm(*push, "--sign", tmp_path / "theirs").ok()
    assert "not signed by" in elsewhere.armvm(*pull).failed(8).err
    world.armvm(*push, "--sign", tmp_path / "ours").ok()
    elsewhere.armvm(*pull).ok()
    assert find_golden(world.connection, name).mark.signer == "golden"
    removed(elsewhere, name)


def login(directory: Path, host: str, password: str) -> dict[str, str]:
    """Write what `docker login` writes; return the environment that uses it."""
    directory.mkdir()
    auth = base64.b64encode(f"ann:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(directory)}


def test_a_registry_with_passwords(
    world: World, made: Callable[[str], Golden], program: Path, tmp_path: Path
) -> None:
    with serving(program, tmp_path, password="secret") as host:
        push = ("golden", "push", made(memory.COW).name, f"oci://{host}/ci:v1")
        assert f"docker login {host}" in world.armvm(*push).failed(8).err
        wrong = login(tmp_path / "wrong", host, "wrong")
        world.armvm(*push, env=wrong).failed(8)
        done = world.armvm(*push, env=login(tmp_path / "right", host, "secret")).ok()
        assert "secret" not in done.err + done.out


def test_a_registry_with_tokens(
    world: World, made: Callable[[str], Golden], registry: str, tmp_path: Path
) -> None:
    front = Front(registry, token="t0ken")
    with front.running() as host:
        push = ("golden", "push", made(memory.COW).name, f"oci://{host}/tokens/ci:v1")
        world.armvm(*push, env=login(tmp_path / "docker", host, "secret")).ok()
    assert front.logins
    assert set(front.logins) == {"Basic " + base64.b64encode(b"ann:secret").decode()}


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("oci://{host}/none/such:v1", 8), ("oci://127.0.0.1:9/a/b:v1", 8), ("oci://x", 2),
        ("{host}/a/b", 2), ("oci://{host}/A/B", 2), ("oci://{host}/../x:v1", 2),
        ("oci://user:password@{host}/a", 2),
    ],
)  # fmt: skip
def test_bad_references(elsewhere: Elsewhere, registry: str, reference: str, code: int) -> None:
    elsewhere.armvm("golden", "pull", reference.format(host=registry)).failed(code)
