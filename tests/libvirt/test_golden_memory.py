"""A golden's memory and state, saved and loaded by real QEMU, with a guest that need not boot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from armvm.host.domain import golden_domain as goldens
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import Golden, definition_of_clone, find_golden
from armvm.host.domain.instance import find_domain
from armvm.host.domain.lifecycle import define
from armvm.host.memory import route as memory
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.images.model import Image
from armvm.provision.golden import bake as baking
from armvm.provision.golden.goldens import delete as delete_golden
from armvm.provision.machine.create import Where
from armvm.provision.machine.own_disk import delete_machine_volumes
from armvm.provision.machine.plan import CreatePlan
from tests.libvirt.world import World, apply


def prepared(world: World, image: Path, name: str, route: str) -> tuple[Where, CreatePlan, Image]:
    """Plan a machine that is to become a golden."""
    plan, found = world.plan(name, image, network="user", memory_mib=256)
    path = str(world.directory / volumes.volume_names(name)["memory"])
    spec = replace(plan.spec, memory_file=path, memory_route=route)
    return world.where(), replace(plan, spec=spec), found


@pytest.fixture(params=[memory.COW, memory.SAVE_IMAGE])
def golden(
    request: pytest.FixtureRequest, world: World, image: Path, name: str
) -> Iterator[Golden]:
    """A golden of a machine that has come as far as its firmware."""
    where, plan, found = prepared(world, image, name, request.param)
    domain = apply(where, (plan, found), start=True)
    baking.save(where, domain, plan, found.digest)
    yield find_golden(world.connection, name)
    delete_golden(world.connection, name)


@pytest.mark.parametrize("disposable", [True, False], ids=["disposable", "lasting"])
def test_a_clone_starts_from_a_goldens_memory(
    world: World, image: Path, golden: Golden, disposable: bool
) -> None:
    name = f"{golden.name}-c"
    plan, _ = world.plan(name, image, network="user", memory_mib=256)
    pool = pools.find_pool(world.connection, world.pool)
    route = memory.route(golden.mark.route)
    assert route.check(
        world.connection, pool, golden.name, golden.definition, golden.mark.state_digest
    ) is None  # fmt: skip
    domain = define(world.connection, to_text(build(plan.spec, plan.record)), name)
    try:
        names = volumes.volume_names(name)
        volumes.write_volume(world.connection, pool, names["seed"], b"", size=1 << 20)
        below = volumes.need_volume(pool, volumes.volume_names(golden.name)["overlay"])
        volumes.create_overlay(pool, names["overlay"], below, plan.machine.disk)
        spec = plan.spec
        if not disposable and (size := goldens.nvram_size(golden)) is not None:
            spec = replace(spec, nvram=str(world.directory / names["nvram"]))
            volumes.create_hole(pool, names["nvram"], size)
        element = definition_of_clone(golden, spec, plan.record, disposable=disposable)
        clone = route.load(world.connection, pool, golden.name, element)
        assert clone.state(0)[0] == libvirt.VIR_DOMAIN_PAUSED
        clone.resume()
        assert clone.state(0)[0] == libvirt.VIR_DOMAIN_RUNNING
        assert clone.UUIDString() == plan.spec.uuid
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        delete_machine_volumes(pool, name)


def test_what_qemu_refuses_while_it_saves_is_told_in_its_words(
    world: World, image: Path, name: str
) -> None:
    where, plan, found = prepared(world, image, name, memory.COW)
    domain = apply(where, (plan, found), start=True)
    pool = pools.find_pool(world.connection, world.pool)
    domain.suspend()
    memory.route(memory.COW).save(world.connection, pool, domain)
    # What was saved once can be saved no more.
    with pytest.raises(memory.Refused, match="previous migration"):
        baking.save(where, domain, plan, found.digest)
    assert find_domain(world.connection, name).isActive(), "the caller removes it"
