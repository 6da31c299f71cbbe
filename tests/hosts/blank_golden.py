"""Save a golden of a blank disk, and load it again: run on another host, without a guest's boot.

python -m tests.hosts.blank_golden URI IMAGE    # prints, as JSON, what became of each

By both routes; loaded each time as `create --from` does, and as `run --from` does. The guest is
firmware that finds nothing to boot, so that there is nobody in it to take on an identity.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import libvirt

from armvm.base.errors import ArmvmError, NotFound
from armvm.base.progress import Quiet
from armvm.host import facts
from armvm.host.connection import connect
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import Golden, definition_of_clone, find_golden, nvram_size
from armvm.host.domain.handle import find_machine
from armvm.host.memory import route as memory
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.provision.golden import goldens
from armvm.provision.golden.bake import golden_machine, save
from armvm.provision.golden.clone import CLUSTER
from armvm.provision.image import find
from armvm.provision.machine import create
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.own_disk import delete_machine_volumes
from armvm.settings.machine import Machine

#: Seconds that a loaded guest must go on.
GOES_ON = 1.0


def main(uri: str, image: str) -> dict[str, Any]:
    """Return what became of each way to save and to load."""
    connection = connect(uri)
    where = Where(connection=connection, facts=facts.observe(connection))
    told: dict[str, Any] = {"best": memory.best(local=where.facts.local)}
    for route in (memory.COW, memory.SAVE_IMAGE):
        name = f"blank-{route}"
        try:
            golden = saved(where, name, image, route)
            told[route] = {
                "verified": goldens.verify(where, name).whole,
                "clone": loaded(where, golden, image, disposable=False),
                "throwaway": loaded(where, golden, image, disposable=True),
            }
        except ArmvmError as error:
            told[route] = f"not saved: {error.message}"
        finally:
            removed(where, name)
    return told


def planned(where: Where, name: str, image: str) -> Any:
    """Return the plan of a small machine with a blank disk, and its image."""
    machine = Machine(name=name, memory_mib=256, disk=1 << 30, image=image, headless=True)
    source = find.locate(image, Quiet())
    plan = create.make_plan(where, golden_machine(machine), source)
    return plan, find.obtain(source, Quiet())


def saved(where: Where, name: str, image: str, route: str) -> Golden:
    """Start a machine, and save it as a golden as it is."""
    plan, found = planned(where, name, image)
    names = volumes.volume_names(name)
    memory_file = str(PurePosixPath(plan.spec.overlay).with_name(names["memory"]))
    plan = replace(plan, spec=replace(plan.spec, memory_file=memory_file, memory_route=route))
    domain = create.apply(where, plan, found, start=True, progress=Quiet(), whole=False)
    time.sleep(GOES_ON)
    save(where, domain, plan, found.digest)
    return find_golden(where.connection, name)


def loaded(where: Where, golden: Golden, image: str, *, disposable: bool) -> str:
    """Load a clone, and see it go on."""
    connection, name = where.connection, f"{golden.name}-clone"
    plan, _ = planned(where, name, image)
    spec, names = plan.spec, volumes.volume_names(name)
    pool = pools.ensure_pool(connection, where.pool, where.facts)
    flash = None if disposable else nvram_size(golden)
    if flash is not None:
        spec = replace(spec, nvram=str(PurePosixPath(spec.overlay).with_name(names["nvram"])))
    domain = lifecycle.define(connection, to_text(build(spec, plan.record)), name)
    try:
        below = volumes.need_volume(pool, volumes.volume_names(golden.name)["overlay"])
        volumes.create_overlay(pool, names["overlay"], below, plan.machine.disk, cluster=CLUSTER)
        volumes.write_volume(connection, pool, names["seed"], b"", size=1 << 20)
        if flash is not None:
            volumes.create_hole(pool, names["nvram"], flash)
        element = definition_of_clone(golden, spec, plan.record, disposable=disposable)
        route = memory.route(golden.mark.route)
        clone = route.load(connection, pool, golden.name, element)
        if clone.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
            return "not paused after it was loaded"
        lifecycle.resume(clone)
        time.sleep(GOES_ON)
        return "goes on" if clone.state()[0] == libvirt.VIR_DOMAIN_RUNNING else "ended"
    except ArmvmError as error:
        return f"not loaded: {error.message}"
    finally:
        if domain.isActive():
            lifecycle.destroy(domain)
        lifecycle.undefine(domain)
        delete_machine_volumes(pool, name)


def removed(where: Where, name: str) -> None:
    """Remove a golden, or the machine that did not become one."""
    try:
        goldens.delete(where.connection, name)
    except NotFound:
        with contextlib.suppress(NotFound):
            delete_domain(find_machine(where.connection, name))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
