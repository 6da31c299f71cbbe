"""What `run` removes afterwards: the machine that it made, and no other."""

from __future__ import annotations

from pathlib import Path

from armvm.provision.machine.delete import remove_temporary
from tests.libvirt.world import World, virsh


def test_a_machine_that_took_the_name_meanwhile_stays(world: World, image: Path, name: str) -> None:
    world.held(name, image)
    uuid = virsh("domuuid", name).strip()

    remove_temporary(world.connection, name, uuid="00000000-0000-4000-8000-000000000001")
    assert world.armvm("show", name, "--json").ok().json["uuid"] == uuid

    remove_temporary(world.connection, name, uuid=uuid)
    world.armvm("show", name).failed(4)
    remove_temporary(world.connection, name, uuid=uuid)  # gone already: no error
