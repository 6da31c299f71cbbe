"""Many bytes into and out of a clone: they go on a disk that is plugged in for the copy."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from armvm.provision.access.channel_stream import LONG
from tests.support import armvm, fresh_name

CLONE_TIMEOUT = 180
SIZE = LONG + 1_000_001


@pytest.fixture(scope="module")
def clone(golden: str) -> Iterator[str]:
    name = fresh_name("armvm-bulk")
    armvm("create", "--from", golden, "--name", name, timeout=CLONE_TIMEOUT).ok()
    yield name
    armvm("delete", "--yes", name)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one long file, and small ones beside it."""
    place = tmp_path_factory.mktemp("bulk") / "tree"
    (place / "sub").mkdir(parents=True)
    (place / "long").write_bytes(random.Random(1).randbytes(SIZE))
    for number in range(20):
        (place / "sub" / f"{number}").write_text(f"{number}\n" * number)
    return place


def disks(connection: Any, name: str) -> int:
    xml = etree.fromstring(connection.lookupByName(name).XMLDesc(0))
    return len(xml.findall("devices/disk"))


def volumes(connection: Any, name: str) -> list[str]:
    pool = connection.storagePoolLookupByName("armvm")
    pool.refresh(0)
    return [one for one in pool.listVolumes() if one.startswith(f"{name}.transfer")]


def assert_nothing_is_left(connection: Any, name: str, before: int) -> None:
    assert volumes(connection, name) == []
    # The guest unplugs the disk after its answer.
    armvm("exec", name, "--", "sh", "-c", "while [ -e /dev/vdc ]; do sleep 0.2; done").ok()
    assert disks(connection, name) == before


def digest(name: str, path: str) -> str:
    return armvm("exec", name, "--", "sha256sum", path).ok().out.split()[0]


def digest_here(path: Path) -> str:
    return subprocess.run(
        ["sha256sum", path], check=True, capture_output=True, text=True
    ).stdout.split()[0]


def test_a_long_file_there_and_back(
    clone: str, tree: Path, tmp_path: Path, connection: Any
) -> None:
    before = disks(connection, clone)
    done = armvm("cp", tree / "long", f"{clone}:/var/tmp/long").ok()
    assert "takes longer" not in done.err
    assert digest(clone, "/var/tmp/long") == digest_here(tree / "long")
    assert_nothing_is_left(connection, clone, before)
    armvm("cp", f"{clone}:/var/tmp/long", tmp_path / "back").ok()
    assert digest_here(tmp_path / "back") == digest_here(tree / "long")
    assert_nothing_is_left(connection, clone, before)


@pytest.mark.slow
def test_a_large_directory_there_and_back(
    clone: str, tree: Path, tmp_path: Path, connection: Any
) -> None:
    before = disks(connection, clone)
    armvm("cp", "-r", tree, f"{clone}:/var/tmp/").ok()
    armvm("cp", "-r", f"{clone}:/var/tmp/tree", tmp_path / "back").ok()
    subprocess.run(["diff", "-r", tree, tmp_path / "back"], check=True)
    assert_nothing_is_left(connection, clone, before)


def test_a_command_that_fails_leaves_no_disk(clone: str, tree: Path, connection: Any) -> None:
    before = disks(connection, clone)
    failed = armvm("cp", tree / "long", f"{clone}:/none/long").failed(12)
    assert "/none/long" in failed.err
    assert_nothing_is_left(connection, clone, before)


@pytest.mark.slow
def test_run_mounts_a_large_directory(golden: str, tree: Path) -> None:
    script = "sha256sum long; tail -c +2 long >changed; : >sub/7"
    done = armvm(
        *("run", "--from", golden, "--mount", tree, "--", "sh", "-c", script),
        timeout=CLONE_TIMEOUT,
    ).ok()
    assert done.out.split()[0] == digest_here(tree / "long")
    assert (tree / "changed").read_bytes() == (tree / "long").read_bytes()[1:]
    assert (tree / "sub" / "7").read_bytes() == b""


@pytest.mark.slow
def test_without_a_free_port_the_channel_is_used(clone: str, tree: Path, connection: Any) -> None:
    device = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
    with pytest.raises(libvirt.libvirtError, match="PCI"):
        while True:
            connection.lookupByName(clone).attachDevice(device)
    done = armvm("cp", tree / "long", f"{clone}:/var/tmp/slow").ok()
    assert "no free PCIe port: copying through the channel, which takes longer" in done.err
    assert digest(clone, "/var/tmp/slow") == digest_here(tree / "long")
    assert volumes(connection, clone) == []
