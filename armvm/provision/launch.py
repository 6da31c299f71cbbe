"""From a Machine to an Instance that can be logged in to: the whole of ``armvm create``."""

from __future__ import annotations

from dataclasses import dataclass

from armvm.host.instance import Instance, observe
from armvm.images.model import ImageSource
from armvm.progress import Progress
from armvm.provision import create, images
from armvm.provision.create import Where
from armvm.provision.delete import delete_domain
from armvm.provision.plan import CreatePlan
from armvm.provision.wait import Ready, wait_ready
from armvm.spec.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Created:
    """A machine that was made; ``ready`` is None where it was not waited for."""

    instance: Instance
    ready: Ready | None


def decide(where: Where, machine: Machine, progress: Progress) -> CreatePlan:
    """Find the image and plan the machine; nothing is done yet."""
    source: ImageSource = images.locate(machine.image, progress)
    plan = create.make_plan(where, machine, source)
    for warning in plan.warnings:
        progress.warn(warning)
    return plan


def launch(
    where: Where,
    plan: CreatePlan,
    *,
    start: bool,
    wait: bool,
    timeout: float | None,
    progress: Progress,
) -> Created:
    """Fetch the image, make the machine, and (unless told not to) wait until it is ready.

    A failure or an interruption while it is made leaves nothing behind; so does an interruption
    while it is waited for. A machine that is whole but not ready in time (NotReady), or whose
    cloud-init ended in error (CommandFailed), stays for the user to look at.
    """
    image = images.obtain(plan.source, progress)
    domain = create.apply(where, plan, image, start=start, progress=progress)
    if not (start and wait):
        return Created(instance=observe(domain), ready=None)
    try:
        ready = wait_ready(
            where.connection,
            plan.machine.name,
            timeout=timeout,
            progress=progress,
        )
    except Exception:
        raise  # the machine is whole: it stays
    except BaseException:  # Ctrl-C, SIGTERM
        progress.say(f"interrupted: removing {plan.machine.name}")
        delete_domain(where.connection, domain, observe(domain))
        raise
    return Created(instance=ready.instance, ready=ready)
