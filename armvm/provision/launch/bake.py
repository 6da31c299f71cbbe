"""``armvm golden create``: boots a machine from an image and saves it as a golden."""

from __future__ import annotations

from dataclasses import replace

from armvm.base.progress import Progress
from armvm.host.domain.golden_domain import Golden
from armvm.provision.golden.bake import bake, golden_machine
from armvm.provision.image import find as images
from armvm.provision.launch.launch import with_image
from armvm.provision.machine.create import Where, check_name, make_plan
from armvm.settings.machine import Machine


def create(
    where: Where,
    machine: Machine,
    *,
    timeout: float | None,
    progress: Progress,
    save_image: bool = False,
    packages: tuple[str, ...] = (),
) -> Golden:
    """Boot *machine*, wait until it is idle, and save it as a golden.

    *packages* are added to the image first, or else installed by the guest. Raises NotFound for an
    unknown package, and the errors of bake() and of obtaining the image.
    """
    wanted = golden_machine(machine)
    check_name(where.connection, wanted.name)
    source = images.locate(wanted.image, progress, where.verify)
    source = replace(source, packages=packages)
    plan = make_plan(where, wanted, source)
    plan, image = with_image(where, plan, timeout=timeout, progress=progress)
    return bake(where, plan, image, timeout=timeout, progress=progress, save_image=save_image)
