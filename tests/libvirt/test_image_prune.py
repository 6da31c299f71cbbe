"""``armvm image prune --unused``: bases in a pool without an image in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from armvm.host.domain.metadata import Creator, to_element
from armvm.host.storage.base_image import base_name
from armvm.host.xml import to_text
from tests.libvirt.world import World, virsh
from tests.schemas import check
from tests.support import fresh_name
from tests.unit.host_tools import RECORD


@pytest.fixture
def domain() -> Iterator[str]:
    """A name for a domain, which is removed afterwards."""
    name = fresh_name()
    yield name
    virsh("undefine", name, check=False)


def test_a_base_that_nobody_uses_is_removed(
    world: World, image: Path, tmp_path: Path, name: str, domain: str
) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}

    def pruned(*options: str) -> set[str]:
        done = world.armvm("image", "prune", "--unused", *options, "--json", env=env).ok().json
        assert {one["what"] for one in check("image prune", done)} <= {"base"}
        return {one["path"] for one in done}

    world.remove_bases()
    world.held(name, image)
    mine = world.base_of(image).name
    assert pruned() == set()
    made, listed = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    for digest in (made, listed):
        (world.directory / base_name(digest)).write_bytes(bytes(512))
    creating = replace(RECORD, image={"digest": made}, creator=Creator(host="h", pid=1, started=1))
    world.connection.defineXML(
        f"<domain type='qemu'><name>{domain}</name><memory>65536</memory>"
        "<os><type arch='aarch64' machine='virt'>hvm</type></os>"
        f"<metadata>{to_text(to_element(creating))}</metadata><devices>"
        f"<disk type='file'><source file='{world.directory / base_name(listed)}'/>"
        "<target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    assert pruned() == set()
    virsh("undefine", domain)
    unused = {base_name(made), base_name(listed)}
    assert pruned("--older-than", "1h") == set()
    assert pruned("--dry-run") == pruned() == unused
    assert world.bases() == {mine}
    world.armvm("delete", "--yes", name).ok()
    assert pruned() == {mine}
    assert world.bases() == set()
