"""From a Machine to an Instance that can be logged in to: the whole of ``armvm create``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from armvm.base.errors import ArmvmError, Conflict, NotFound
from armvm.base.progress import Progress
from armvm.guest.boot.ready import Boot
from armvm.guest.boot.serial import Stage
from armvm.host import confinement
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.instance import Instance, find_domain, observe
from armvm.images.model import Image, ImageSource
from armvm.provision.golden import choose, clone
from armvm.provision.golden.choose import Warm
from armvm.provision.golden.clone import reachable
from armvm.provision.machine import create
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.plan import CreatePlan, with_source
from armvm.provision.monitor import boot_history, login_check
from armvm.provision.monitor.wait import Ready, wait_ready
from armvm.settings.machine import Machine
from armvm.settings.verify import Verify


@dataclass(frozen=True, kw_only=True)
class Created:
    """A machine that was made; ``ready`` is None where it is not, or was not waited for.

    ``seconds`` is how long making it took, where that counts as a part of its start.
    """

    instance: Instance
    ready: Ready | None
    seconds: float = 0.0


def locate_image(reference: str, progress: Progress, verify: Verify | None = None) -> ImageSource:
    """Find an image. What fetches and builds images is not loaded for a clone of a golden."""
    from armvm.provision.image import find

    return find.locate(reference, progress, verify)


def obtain_image(source: ImageSource, progress: Progress) -> Image:
    """Return an image's file, fetched or built if need be."""
    from armvm.provision.image import find

    return find.obtain(source, progress)


def with_image(
    where: Where, plan: CreatePlan, *, timeout: float | None, progress: Progress
) -> tuple[CreatePlan, Image]:
    """Return a planned machine's image, in the form that it is to have, and the plan for it."""
    image = obtain_image(plan.source, progress)
    if not plan.machine.tuned:
        return plan, image
    from armvm.provision.launch.tuned import tuned

    image = tuned(where, plan, image, timeout=timeout, progress=progress)
    return with_source(plan, image.source), image


def find_source(
    where: Where, machine: Machine, progress: Progress, golden: Golden | None
) -> ImageSource:
    """Find the image of a machine: that of the golden asked for, or what its reference means.

    Raises NotVerified when what vouched for the golden's image is less than is asked for now.
    """
    source = choose.source_of(golden, machine) if golden is not None else None
    if golden is None or source is None:
        return locate_image(machine.image, progress, where.verify)
    # One made from a machine has a disk of the user's own: nothing was fetched.
    if where.verify is not None and not choose.from_machine(golden.mark.shape):
        from armvm.images.trust.provenance import require

        require(source, where.verify)
    return source


def decide(
    where: Where, machine: Machine, progress: Progress, golden: Golden | None = None
) -> CreatePlan:
    """Find the image and plan the machine; nothing is done yet.

    An image that *golden* was made from is not looked up again: its base is in the pool.
    """
    source = find_source(where, machine, progress, golden)
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
        # What is made of images bears their sha256; some sources promise a sha512 only, and the
        # tuned form has its own. What stands for a golden's own disk (no location) is no digest
        # of an image at all.
        known = digest is not None and digest.startswith("sha256:") and not plan.machine.tuned
        if digest is None or (plan.source.location and not known):
            plan, image = with_image(where, plan, timeout=timeout, progress=progress)
            digest = image.digest
        made = _from_golden(where, plan, digest, wish or Warm(), progress, disposable, wait)
        if made is not None:
            stays = not disposable
            return _when_ready(where, made, timeout, progress, stays) if wait else made
    elif wish is not None and wish.asked is not None:
        progress.say(
            "a clone begins in the middle of its golden's run: --no-start makes a cold one"
        )
    if image is None:
        if not plan.source.location:  # a golden's, which turned out to be of no use
            if plan.machine.image.startswith(choose.MACHINE):
                raise choose.no_image("it cannot be made from its golden", plan.machine.image)
            found = locate_image(plan.machine.image, progress, where.verify)
            plan = with_source(plan, found)
        plan, image = with_image(where, plan, timeout=timeout, progress=progress)
    domain = create.apply(where, plan, image, start=start, progress=progress, whole=not disposable)
    made = Created(instance=observe(domain), ready=None)
    if not (start and wait):
        return made
    return _when_ready(where, made, timeout, progress, not disposable)


def _when_ready(
    where: Where, made: Created, timeout: float | None, progress: Progress, stays: bool
) -> Created:
    """Wait for a machine that is not ready yet; an interruption removes it."""
    if made.ready is not None:
        return made
    name = made.instance.name
    with _removed_when_interrupted(where, name, progress):
        ready = wait_ready(where.connection, name, timeout=timeout, progress=progress, stays=stays)
    seen = {stage: at + made.seconds for stage, at in ready.boot.seen.items()}
    boot = Boot(seen={**seen, Stage.STARTED: 0.0})
    return Created(instance=ready.instance, ready=replace(ready, boot=boot))


@contextlib.contextmanager
def _removed_when_interrupted(where: Where, name: str, progress: Progress) -> Iterator[None]:
    """Remove a whole machine when its wait is interrupted; it stays after an error."""
    try:
        yield
    except Exception:
        raise  # the machine is whole: it stays
    except BaseException:  # Ctrl-C, SIGTERM
        progress.say(f"interrupted: removing {name}")
        with contextlib.suppress(NotFound):  # somebody else was faster
            domain = find_domain(where.connection, name)
            delete_domain(where.connection, domain, observe(domain))
        raise


def _from_golden(
    where: Where,
    plan: CreatePlan,
    digest: str,
    wish: Warm,
    progress: Progress,
    disposable: bool,
    wait: bool,
) -> Created | None:
    """Make the machine from a golden; None where there is none of use, or it did not work."""
    golden = choose.choose(where, plan, digest, wish, progress)
    if golden is None:
        return None
    begun = time.monotonic()
    try:
        domain = clone.make_clone(where, plan, golden, progress, disposable=disposable)
    except Conflict:
        raise  # the name is taken: a cold boot would not get it either
    except ArmvmError as error:
        directory = str(PurePosixPath(golden.overlay).parent)
        cause, cure = confinement.explain(error, directory, where.facts)
        progress.say(f"the golden {golden.name} is of no use: {cause}; booting cold")
        if cure is not None:
            progress.say(f"to use it: {cure}")
        return None
    instance, found = observe(domain), None
    if wait or instance.network is None:
        with _removed_when_interrupted(where, instance.name, progress):
            found = reachable(domain, instance)
            if found is not None and wait and not disposable and not clone.runs_in_background(plan):
                login_check.assert_lets_in(
                    domain, instance, found, log=str, progress=progress, session=False
                )
    seconds = time.monotonic() - begun
    if found is not None:
        stages = {Stage.STARTED: 0.0, Stage.SSH: seconds, Stage.READY: seconds}
        made = boot_history.LearntBoot(at=time.time() - seconds, uuid=instance.uuid, stages=stages)
        boot_history.learn(f"clone of {golden.name}", made)
    progress.say(f"made from the golden {golden.name} (--cold boots instead)")
    in_background = clone.runs_in_background(plan)
    if in_background:
        progress.say(f"armvm ssh {instance.name}   works now; cloud-init goes on with --user-data")
    if in_background or found is None:
        return Created(instance=instance, ready=None, seconds=seconds)
    return Created(
        instance=instance,
        ready=Ready(
            instance=instance,
            endpoint=found,
            boot=Boot(seen={Stage.STARTED: 0.0, Stage.SSH: seconds, Stage.READY: seconds}),
        ),
    )
