"""Goldens as files: exported and imported by a real libvirtd, whole and tampered with.

The golden's guest is firmware that finds nothing to boot. The file is imported into another pool,
with the cache of another user, so that nothing of the image is there already.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
import zstandard

from armvm.base.progress import Quiet
from armvm.host.domain import golden_domain as goldens
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import Golden, definition_of_clone, find_golden
from armvm.host.domain.lifecycle import define
from armvm.host.memory import route as memory
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.images.check.backing import set_backing
from armvm.images.oci.packed import Packer
from armvm.provision.golden import bake as baking
from armvm.provision.golden.goldens import delete as delete_golden
from armvm.provision.golden.source import from_machine, source_in
from armvm.provision.machine import create
from armvm.provision.machine.own_disk import delete_machine_volumes
from armvm.provision.machine.plan import with_source
from tests.golden_files import GoldenFile
from tests.libvirt.test_golden_memory import prepared
from tests.libvirt.world import SYSTEM, World, apply, until, virsh
from tests.support import ARMVM, Result, armvm, environment, fresh_name, spawn

ROUTES = (memory.COW, memory.SAVE_IMAGE)


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Another pool and another user's cache: what the file meets on another host."""

    pool: str
    directory: Path
    cache: Path

    def armvm(self, *args: str | Path, **options: Any) -> Result:
        """Run armvm there."""
        return armvm(*args, env=self.settings, **options)

    @property
    def settings(self) -> dict[str, str]:
        """The environment of armvm there."""
        return {
            "ARMVM_CONNECT": SYSTEM,
            "ARMVM_POOL": self.pool,
            "XDG_CACHE_HOME": str(self.cache),
        }

    def left(self, name: str) -> list[str]:
        """Return what is left of a golden, and of the import of it."""
        found = [path.name for path in self.directory.iterdir() if path.name.startswith(name)]
        found += [path.name for path in self.cache.glob("armvm/goldens/*")]
        return found + [one for one in virsh("list", "--all", "--name").split() if one == name]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    pool = fresh_name("armvm-pool")
    directory = Path("/var/lib/libvirt/images") / pool
    virsh("pool-define-as", pool, "dir", "--target", directory)
    try:
        virsh("pool-build", pool)
        virsh("pool-start", pool)
        directory.chmod(0o711)
        yield Elsewhere(pool=pool, directory=directory, cache=tmp_path / "cache")
    finally:
        virsh("pool-destroy", pool, check=False)
        virsh("pool-undefine", pool)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def made(world: World, image: Path) -> Iterator[Callable[[str], Golden]]:
    """Make a golden by a route, once for all tests."""
    found: dict[str, Golden] = {}

    def make(route: str) -> Golden:
        if route not in found:
            name = fresh_name("armvm-golden")
            where, plan, obtained = prepared(world, image, name, route)
            domain = apply(where, (plan, obtained), start=True)
            baking.save(where, domain, plan, obtained.digest)
            found[route] = find_golden(world.connection, name)
        return found[route]

    yield make
    for golden in found.values():
        delete_golden(world.connection, golden.name)


@pytest.fixture(scope="module")
def exported(
    world: World, made: Callable[[str], Golden], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A golden's file, for all tests."""
    path = tmp_path_factory.mktemp("golden") / "a.golden"
    world.armvm("golden", "export", made(memory.COW).name, path).ok()
    return path


@pytest.fixture
def file(exported: Path, tmp_path: Path) -> Path:
    """A golden's file, for one test."""
    return Path(shutil.copy(exported, tmp_path))


@pytest.mark.parametrize("route", ROUTES)
def test_an_imported_golden_starts_clones(
    world: World, image: Path, made: Callable[[str], Golden], elsewhere: Elsewhere, name: str,
    tmp_path: Path, route: str,
) -> None:  # fmt: skip
    original, path = made(route), tmp_path / "a.golden"
    told = world.armvm("golden", "export", original.name, path, "--json").json
    assert told["size"] == path.stat().st_size
    assert path.stat().st_mode & 0o077 == 0
    assert str(world.directory).encode() not in path.read_bytes()
    done = elsewhere.armvm("golden", "import", path, "--as", name, "--json").json
    try:
        assert (done["fits"], done["route"], done["shape"]["pool"]) == (True, route, elsewhere.pool)
        assert elsewhere.left("import-") == []
        elsewhere.armvm("golden", "verify", name).ok()
        golden = find_golden(world.connection, name)
        assert golden.mark.imported == told["digest"]
        assert golden.mac == original.mac
        # Each part is as it was, and holes are holes.
        for part in ("memory", "seed", "state"):
            theirs = world.directory / volumes.volume_names(original.name)[part]
            if theirs.exists():
                ours = elsewhere.directory / volumes.volume_names(name)[part]
                assert ours.read_bytes() == theirs.read_bytes()
                assert ours.stat().st_blocks <= theirs.stat().st_blocks + 256
        overlay = elsewhere.directory / f"{name}.qcow2"
        info = json.loads(
            subprocess.run(
                ["qemu-img", "info", "--output=json", overlay], check=True, capture_output=True
            ).stdout
        )
        base = world.base_of(image)
        assert info["backing-filename"] == str(elsewhere.directory / base.name)
        assert (elsewhere.directory / base.name).read_bytes() == base.read_bytes()
        loaded(replace(world, pool=elsewhere.pool, directory=elsewhere.directory), image, golden)
    finally:
        elsewhere.armvm("golden", "delete", name, "--yes").ok()
    assert elsewhere.left(name) == []


def loaded(world: World, image: Path, golden: Golden) -> None:
    """Load a clone, as `create --from` does, and see it run."""
    connection, name = world.connection, f"{golden.name}-c"
    plan, _ = world.plan(name, image, network="user", memory_mib=256)
    pool = pools.find_pool(connection, world.pool)
    names = volumes.volume_names(name)
    domain = define(connection, to_text(build(plan.spec, plan.record)), name)
    try:
        volumes.write_volume(connection, pool, names["seed"], b"", size=1 << 20)
        below = volumes.need_volume(pool, volumes.volume_names(golden.name)["overlay"])
        volumes.create_overlay(pool, names["overlay"], below, plan.machine.disk)
        size = goldens.nvram_size(golden)
        assert size is not None
        volumes.create_hole(pool, names["nvram"], size)
        spec = replace(plan.spec, nvram=str(world.directory / names["nvram"]))
        element = definition_of_clone(golden, spec, plan.record)
        clone = memory.route(golden.mark.route).load(connection, pool, golden.name, element)
        clone.resume()
        assert clone.state(0)[0] == libvirt.VIR_DOMAIN_RUNNING
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        delete_machine_volumes(pool, name)


def test_a_file_through_a_pipe(
    world: World, made: Callable[[str], Golden], elsewhere: Elsewhere, name: str
) -> None:
    words = [*ARMVM, "golden", "export", made(memory.COW).name, "-", "--quiet"]
    importing = [*ARMVM, "golden", "import", "-", "--as", name, "--quiet"]
    with subprocess.Popen(
        words, env=environment(**world.settings), stdout=subprocess.PIPE
    ) as process:
        subprocess.run(
            importing, env=environment(**elsewhere.settings), stdin=process.stdout, check=True
        )
    assert process.returncode == 0
    assert elsewhere.left("import-") == []
    elsewhere.armvm("golden", "delete", name, "--yes").ok()


def test_a_golden_without_its_base_uses_the_hosts_image(
    world: World, image: Path, made: Callable[[str], Golden], elsewhere: Elsewhere, name: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "a.golden"
    original = made(memory.COW)
    told = world.armvm("golden", "export", original.name, path, "--no-base", "--json").json
    assert "base" not in told["parts"]
    failed = elsewhere.armvm("golden", "import", path, "--as", name).failed(4)
    assert "its image" in failed.err
    assert elsewhere.left(name) == []
    # A machine of the image there brings the base.
    elsewhere.armvm("create", "--name", f"{name}-m", "--image", image, "--no-start").ok()
    elsewhere.armvm("golden", "import", path, "--as", name).ok()
    for words in (("golden", "delete", name), ("delete", f"{name}-m")):
        elsewhere.armvm(*words, "--yes").ok()


def test_a_golden_made_from_a_machine_stands_alone(
    world: World, image: Path, elsewhere: Elsewhere, name: str, tmp_path: Path
) -> None:
    world.held(f"{name}-m", image, "--disk", "10G")
    where, plan, found = prepared(world, image, name, memory.COW)
    source = from_machine("web-01", uuid=plan.spec.uuid, now="2026-01-01T00:00:00Z", system="")
    plan, found = with_source(plan, source), replace(found, source=source, digest=source.digest)
    original = volumes.need_volume(pools.find_pool(world.connection, world.pool), f"{name}-m.qcow2")

    def copy(pool: Any, volume: str) -> None:
        volumes.copy_volume(pool, volume, original, "qcow2")

    domain = create.apply(where, plan, found, start=True, progress=Quiet(), disk=copy)
    baking.save(where, domain, plan, found.digest)
    world.armvm("delete", f"{name}-m", "--yes").ok()
    told = world.armvm("golden", "export", name, tmp_path / "a.golden", "--json").json
    assert "base" not in told["parts"]
    delete_golden(world.connection, name)
    elsewhere.armvm("golden", "import", tmp_path / "a.golden").ok()
    try:
        assert (elsewhere.directory / f"{name}.qcow2").exists()
        assert [one.name for one in elsewhere.directory.glob("base-*")] == []
        elsewhere.armvm("golden", "verify", name).ok()
        golden = find_golden(world.connection, name)
        assert source_in(golden) == source
        loaded(replace(world, pool=elsewhere.pool, directory=elsewhere.directory), image, golden)
    finally:
        elsewhere.armvm("golden", "delete", name, "--yes").ok()


def test_an_imported_golden_is_used_only_by_name(
    world: World, image: Path, made: Callable[[str], Golden], file: Path, elsewhere: Elsewhere,
    name: str,
) -> None:  # fmt: skip
    elsewhere.armvm("golden", "import", file, "--as", name).ok()
    try:
        shape = ("--network", "user", "--mem", "256", "--image", image, "--no-start")
        done = elsewhere.armvm("create", "--name", f"{name}-m", *shape).ok()
        assert name not in done.err.replace(f"{name}-m", "")
        elsewhere.armvm("delete", f"{name}-m", "--yes").ok()
    finally:
        elsewhere.armvm("golden", "delete", name, "--yes").ok()


def test_a_taken_name_and_an_existing_file(
    world: World, made: Callable[[str], Golden], file: Path
) -> None:
    name = made(memory.COW).name
    assert "already exists" in world.armvm("golden", "import", file).failed(5).err
    before = file.read_bytes()
    assert "--force" in world.armvm("golden", "export", name, file).failed(5).err
    assert file.read_bytes() == before
    world.armvm("golden", "export", name, file, "--force").ok()
    world.armvm("golden", "export", name, file.parent / "no" / "file").failed(4)
    world.armvm("golden", "verify", name).ok()


def test_signatures(
    world: World, made: Callable[[str], Golden], elsewhere: Elsewhere, file: Path, name: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    for one in ("ours", "theirs"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / one)]
        subprocess.run(words, check=True)
    public = tmp_path / "ours.pub"
    wanted = ("--as", name, "--signed-by", public)
    assert "is not signed" in elsewhere.armvm("golden", "import", file, *wanted).failed(8).err
    signed = tmp_path / "signed.golden"
    export = ("golden", "export", made(memory.COW).name, signed, "--force", "--sign")
    world.armvm(*export, tmp_path / "theirs").ok()
    assert (
        "not signed by a key" in elsewhere.armvm("golden", "import", signed, *wanted).failed(8).err
    )
    assert elsewhere.left(name) == []
    world.armvm(*export, tmp_path / "ours").ok()
    elsewhere.armvm("golden", "import", signed, *wanted).ok()
    assert find_golden(world.connection, name).mark.signer == "golden"
    elsewhere.armvm("golden", "delete", name, "--yes").ok()


# --- files that are not as armvm wrote them ---


def repacked(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    """Return a packed layer with its contents changed."""
    contents = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(data))
    change(contents)
    target = io.BytesIO()
    packer = Packer(target)
    packer.feed(bytes(contents))
    packer.finish("a/b", "x")
    return target.getvalue()


def backing(path: str) -> Callable[[bytearray], None]:
    def change(contents: bytearray) -> None:
        contents[: 64 << 10] = set_backing(bytes(contents[: 64 << 10]), path)

    return change


def longer(contents: bytearray) -> None:
    contents += bytes(1 << 20)


def flipped(contents: bytearray) -> None:
    contents[len(contents) // 2] ^= 1


def layer(part: str, change: Callable[[bytearray], None]) -> Callable[[GoldenFile], None]:
    def tamper(file: GoldenFile) -> None:
        file.layers[part] = repacked(file.layers[part], change)

    return tamper


def config(**changes: Any) -> Callable[[GoldenFile], None]:
    return lambda file: file.config.update(changes)


def inner(key: str, **changes: Any) -> Callable[[GoldenFile], None]:
    return lambda file: file.config[key].update(changes)


def lies(change: Callable[[dict[str, Any]], None]) -> Callable[[GoldenFile], None]:
    def tamper(file: GoldenFile) -> None:
        file.lies = change

    return tamper


def larger_memory(file: GoldenFile) -> None:
    file.config["parts"]["memory"]["size"] += 1 << 20


def no_backing_format(file: GoldenFile) -> None:
    file.config["parts"]["base"]["content"] = "sha256:" + "0" * 64


def other_device(file: GoldenFile) -> None:
    file.config["hardware"].append("hostdev type=pci")


def swapped(file: GoldenFile) -> None:
    file.layers["seed"], file.layers["state"] = file.layers["state"], file.layers["seed"]


TAMPERED: dict[str, tuple[int, str, Callable[[GoldenFile], None]]] = {
    "a backing file": (8, "backing file", layer("overlay", backing("/etc/shadow"))),
    "a base with a backing file": (8, "", layer("base", backing("/etc/shadow"))),
    "a base of other contents": (8, "digest differs", no_backing_format),
    "a longer memory": (8, "more bytes", layer("memory", longer)),
    "a memory of another size": (8, "size is wrong", larger_memory),
    "another state": (8, "was changed", layer("state", flipped)),
    "parts swapped": (8, "", swapped),
    "another device": (5, "hostdev", other_device),
    "more CPUs": (5, "cpus", inner("settings", cpus=3)),
    "another CPU": (5, "cpu", inner("shape", cpu="max")),
    "another preset": (4, "preset", inner("settings", preset="none-of-ours")),
    "another QEMU": (5, "QEMU", inner("ground", QEMU="8.2.0 Fedora")),
    "a newer libvirt": (5, "libvirt", inner("ground", libvirt="99.0.0")),
    "another firmware": (5, "firmware sha256:", inner("ground", firmware="sha256:" + "0" * 64)),
    "another machine type": (5, "machine type", inner("ground", **{"machine type": "virt-9"})),
    "an invalid user": (8, "user", config(user="root; reboot")),
    "an invalid host key": (8, "record", config(host_key="ssh-ed25519 ?")),
    "a path as a serial": (8, "", inner("image", serial="a\u0000b")),
    "a layer too many": (8, "", lies(lambda one: one["layers"].append(one["layers"][0]))),
    "a layer missing": (8, "missing", lies(lambda one: one["layers"].pop())),
    "a wrong size": (8, "says", lies(lambda one: one["layers"][1].update(size=5))),
    "a wrong digest": (8, "missing", lies(
        lambda one: one["layers"][1].update(digest="sha256:" + "1" * 64))),
    "another artifact": (8, "not a golden", lies(lambda one: one.update(artifactType="a/b"))),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_file_is_refused_and_leaves_nothing(
    elsewhere: Elsewhere, file: Path, name: str, what: str
) -> None:
    code, words, tamper = TAMPERED[what]
    content = GoldenFile.read(file)
    tamper(content)
    bad = content.write(file.with_name("bad.golden"))
    failed = elsewhere.armvm("golden", "import", bad, "--as", name).failed(code)
    assert words in failed.err
    assert elsewhere.left(name) == []


def test_a_truncated_or_damaged_file_is_refused_and_leaves_nothing(
    elsewhere: Elsewhere, file: Path, name: str
) -> None:
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) * 3 // 4] ^= 1
    for data in (whole[: len(whole) // 2], whole[:100], b"", bytes(damaged)):
        file.write_bytes(data)
        elsewhere.armvm("golden", "import", file, "--as", name).failed(8)
        assert elsewhere.left(name) == []


@pytest.mark.parametrize(
    "delay", [0.8, *(pytest.param(one, marks=pytest.mark.slow) for one in (0.5, 1.1, 1.5))]
)
def test_an_interrupted_import_leaves_nothing(
    elsewhere: Elsewhere, file: Path, name: str, delay: float
) -> None:
    process = spawn("golden", "import", file, "--as", name, env=elsewhere.settings)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT)
    if elsewhere.armvm("golden", "show", name).code == 0:
        elsewhere.armvm("golden", "verify", name).ok()  # the signal came after the import
        elsewhere.armvm("golden", "delete", name, "--yes").ok()
    assert elsewhere.left(name) == []


def test_an_interrupted_export_leaves_nothing(
    world: World, made: Callable[[str], Golden], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    settings = {**world.settings, "XDG_CACHE_HOME": str(cache)}
    target = tmp_path / "a.golden"
    process = spawn("golden", "export", made(memory.COW).name, target, env=settings)
    until(lambda: list(cache.glob("armvm/goldens/export-*/*")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT)
    assert list(cache.glob("armvm/goldens/*")) == []
    assert [path.name for path in tmp_path.iterdir() if ".partial" in path.name] == []


def test_what_an_import_that_was_killed_left_is_removed(
    elsewhere: Elsewhere, file: Path, name: str
) -> None:
    process = spawn("golden", "import", file, "--as", name, env=elsewhere.settings)
    until(lambda: name in virsh("list", "--all", "--name") or process.poll() is not None)
    process.kill()
    process.communicate(timeout=60)
    elsewhere.armvm("golden", "import", file, "--as", name, "--quiet").ok()
    elsewhere.armvm("golden", "delete", name, "--yes").ok()
