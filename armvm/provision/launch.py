"""From a Machine to an Instance that can be logged in to: the whole of ``armvm create``."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from armvm.errors import ArmvmError, Conflict
from armvm.guest.ready import Boot
from armvm.guest.serial import Stage
from armvm.host.golden import Golden
from armvm.host.instance import Instance, observe
from armvm.images.model import Image, ImageSource
from armvm.progress import Progress
from armvm.provision import clone, create, images, warm
from armvm.provision.create import Where
from armvm.provision.delete import delete_domain
from armvm.provision.plan import CreatePlan
from armvm.provision.ssh import LOOPBACK, Endpoint
from armvm.provision.wait import Ready, wait_ready
from armvm.provision.warm import Warm
from armvm.spec.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Created:
    """A machine that was made; ``ready`` is None where it was not waited for."""

    instance: Instance
    ready: Ready | None


def decide(
    where: Where, machine: Machine, progress: Progress, golden: Golden | None = None
) -> CreatePlan:
    """Find the image and plan the machine; nothing is done yet.

    An image that *golden* was made from is not looked up again: its base is in the pool.
    """
    source: ImageSource | None = None
    if golden is not None:
        source = warm.source_of(golden, machine)
    plan = create.make_plan(where, machine, source or images.locate(machine.image, progress))
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
    wish: Warm | None = None,
    disposable: bool = False,
) -> Created:
    """Make the machine: from a golden that fits, else from its image by a cold boot.

    A failure or an interruption while it is made leaves nothing behind; so does an interruption
    while it is waited for. A machine that is whole but not ready in time (NotReady), or whose
    cloud-init ended in error (CommandFailed), stays for the user to look at. A *disposable* one
    is to end with this process, and keeps its mark.
    """
    image: Image | None = None
    if start:
        digest = plan.source.digest
        if digest is None:
            image = images.obtain(plan.source, progress)
            digest = image.digest
        made = _from_golden(where, plan, digest, wish or Warm(), progress, disposable)
        if made is not None:
            return made
    elif wish is not None and wish.asked is not None:
        progress.say(
            "a clone begins in the middle of its golden's run: --no-start makes a cold one"
        )
    if image is None:
        if not plan.source.location:  # a golden's, which turned out to be of no use
            if plan.machine.image.startswith(warm.MACHINE):
                raise warm.no_image("it cannot be made from its golden", plan.machine.image)
            plan = replace(plan, source=images.locate(plan.machine.image, progress))
        image = images.obtain(plan.source, progress)
    domain = create.apply(where, plan, image, start=start, progress=progress, whole=not disposable)
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


def _from_golden(
    where: Where, plan: CreatePlan, digest: str, wish: Warm, progress: Progress, disposable: bool
) -> Created | None:
    """Make the machine from a golden; None where there is none of use, or it did not work."""
    golden = warm.choose(where, plan, digest, wish, progress)
    if golden is None:
        return None
    begun = time.monotonic()
    try:
        domain = clone.make_clone(where, plan, golden, progress, disposable=disposable)
    except Conflict:
        raise  # the name is taken: a cold boot would not get it either
    except ArmvmError as error:
        progress.say(f"the golden {golden.name} is of no use: {error.message}; booting cold")
        return None
    seconds = time.monotonic() - begun
    progress.say(f"made from the golden {golden.name} (--cold boots instead)")
    instance = observe(domain)
    return Created(
        instance=instance,
        ready=Ready(
            instance=instance,
            endpoint=Endpoint(host=LOOPBACK, port=instance.record.forward or 0),
            boot=Boot(seen={Stage.STARTED: 0.0, Stage.SSH: seconds, Stage.READY: seconds}),
        ),
    )
