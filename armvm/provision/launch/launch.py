"""``armvm create``: from a Machine to an Instance that accepts logins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from armvm.base.errors import ArmvmError, Conflict, NotFound
from armvm.base.progress import Progress, Quiet
from armvm.guest.boot.ready import Boot
from armvm.guest.boot.serial import Stage
from armvm.host import confinement
from armvm.host.domain.golden_domain import Golden
from armvm.host.domain.handle import find_machine, observed
from armvm.host.domain.instance import Instance, observe
from armvm.images.model import FromImage, FromMedium, Image, ImageSource
from armvm.provision.golden import choose, clone, pool
from armvm.provision.golden.choose import Warm
from armvm.provision.golden.clone import reachable
from armvm.provision.golden.source import FromGolden, FromMachine
from armvm.provision.machine import create
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.plan import CreatePlan, with_source
from armvm.provision.monitor import boot_history, login_check
from armvm.provision.monitor.wait import Ready, wait_up
from armvm.settings.machine import Machine
from armvm.settings.verify import Verify


@dataclass(frozen=True, kw_only=True)
class Created:
    """A machine that was created; ``ready`` is None if it is not ready or armvm did not wait.

    ``seconds`` is the time that creating it took, if that counts as part of its start. ``pool`` is
    the golden whose pool has to be filled again.
    """

    instance: Instance
    ready: Ready | None
    seconds: float = 0.0
    pool: str | None = None


def locate_image(reference: str, progress: Progress, verify: Verify | None = None) -> FromImage:
    """Return the source of an image. The import is late: clones need no image code."""
    from armvm.provision.image import find

    return find.locate(reference, progress, verify)


def obtain_image(source: FromImage, progress: Progress) -> Image:
    """Return an image's file; fetch or build it if necessary."""
    from armvm.provision.image import find

    return find.obtain(source, progress)


def with_image(
    where: Where, plan: CreatePlan, *, timeout: float | None, progress: Progress
) -> tuple[CreatePlan, Image]:
    """Return a planned machine's image, with packages and tuned if requested, and the plan for it.

    If the source is a golden, locates the image that the golden was made from. Raises Conflict if
    the golden was made from a machine, because then no image exists.
    """
    source = plan.source
    if isinstance(source, FromMedium):
        from armvm.provision.machine.seedless import empty_disk

        return plan, empty_disk(source, progress)
    if isinstance(source, FromMachine):
        raise choose.no_image("the golden cannot be used", source)
    if not isinstance(source, FromImage):
        packages = source.packages
        source = locate_image(plan.machine.image, progress, where.verify)
        source = replace(source, packages=packages)
        plan = with_source(plan, source)
    image = obtain_image(source, progress)
    if source.packages:
        plan, image = _with_packages(plan, image, progress)
    if not plan.machine.tuned:
        return plan, image
    from armvm.provision.launch.tuned import tuned

    image = tuned(where, plan, image, timeout=timeout, progress=progress)
    return with_source(plan, image.source), image


def _with_packages(plan: CreatePlan, image: Image, progress: Progress) -> tuple[CreatePlan, Image]:
    """Return the plan and the image with the source's packages.

    If they cannot be installed in the image, the planned guest installs them. Raises NotFound for
    an unknown package, and the errors of installing.
    """
    from armvm.guest.cloudinit.documents import installing
    from armvm.provision.rootfs.install import Refused, installed

    packages = plan.source.packages
    try:
        image = installed(image, packages, progress)
    except Refused as refused:
        cause = ": ".join(text for text in (refused.message, refused.detail) if text)
        progress.warn(
            f"falling back to installing {', '.join(packages)} in the guest while it boots, which "
            f"takes minutes longer: {cause}"
        )
        if refused.hint is not None:
            progress.say(f"to install them in the image: {refused.hint}")
        machine = installing(plan.machine, packages)
        return replace(plan, machine=machine), image
    return with_source(plan, image.source), image


def find_source(
    where: Where, machine: Machine, progress: Progress, golden: Golden | None
) -> FromImage | FromGolden | FromMachine | FromMedium:
    """Return a machine's source: its installer, the requested golden's, or its image reference.

    Raises NotVerified if the golden's image was verified less strictly than required now.
    """
    if machine.cdrom is not None:
        from armvm.provision.machine.seedless import medium

        return medium(machine.cdrom)
    source = choose.source_of(golden, machine) if golden is not None else None
    if golden is None or source is None:
        return locate_image(machine.image, progress, where.verify)
    # A golden made from a machine has a disk of the user's own: no image was downloaded.
    if where.verify is not None and not isinstance(source, FromMachine):
        from armvm.images.trust.provenance import require

        require(source, where.verify)
    return source


def known_source(where: Where, machine: Machine, golden: Golden | None) -> ImageSource:
    """Return a machine's source as `find_source` does, but ask no server of a catalog or image."""
    if golden is not None and choose.source_of(golden, machine) is not None:
        return find_source(where, machine, Quiet(), golden)
    from armvm.images.reference import FileReference, LocalReference, parse
    from armvm.provision.image import find

    reference = parse(machine.image, catalogs=find.settings(where.verify).names)
    if isinstance(reference, FileReference | LocalReference):
        return locate_image(machine.image, Quiet(), where.verify)
    return ImageSource(reference=reference.text, system=find.guess_system(machine.image))


def decide(
    where: Where, machine: Machine, progress: Progress, golden: Golden | None = None
) -> CreatePlan:
    """Find the image and plan the machine, without creating anything.

    The image of *golden* is not looked up again: its base is in the pool.
    """
    create.check_name(where.connection, machine.name)
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
    warm: Warm | None = None,
    disposable: bool = False,
    pooled: bool = False,
) -> Created:
    """Create the machine: from a golden that fits, or else by a cold boot of its image.

    Nothing is left behind if creating fails or is interrupted, or if waiting is interrupted. A
    complete machine that is not ready in time (NotReady), or whose cloud-init fails
    (CommandFailed), is kept so that the user can examine it. A *disposable* machine keeps the mark
    of this process, so that it can be removed if the process is killed. If *pooled*, the machine
    may come from the golden's pool, with a name of its own.
    """
    image: Image | None = None
    if start and plan.machine.seeded:
        digest = _digest_of(plan)
        if digest is None:
            plan, image = with_image(where, plan, timeout=timeout, progress=progress)
            digest = image.digest
        made = _from_golden(where, plan, digest, warm or Warm(), progress, disposable, wait, pooled)
        if made is not None:
            stays = not disposable
            return _when_ready(where, made, timeout, progress, stays) if wait else made
    elif warm is not None and warm.asked is not None:
        progress.say(
            "a clone of a golden starts when it is created: with --no-start, armvm creates the "
            "machine from the image"
        )
    if image is None:
        plan, image = with_image(where, plan, timeout=timeout, progress=progress)
    domain = create.apply(where, plan, image, start=start, progress=progress, whole=not disposable)
    made = Created(instance=observe(domain), ready=None)
    if not (start and wait):
        return made
    return _when_ready(where, made, timeout, progress, not disposable)


def _digest_of(plan: CreatePlan) -> str | None:
    """Return the digest used to choose a golden; None if the image must be obtained first.

    Goldens record the sha256 of their image. Some catalogs publish only a sha512, and a tuned
    image has a different digest.
    """
    digest = plan.source.digest
    if isinstance(plan.source, FromImage):
        known = digest is not None and digest.startswith("sha256:") and not plan.machine.tuned
        return digest if known else None
    return digest


def _when_ready(
    where: Where, made: Created, timeout: float | None, progress: Progress, stays: bool
) -> Created:
    """Wait for a machine that is not ready yet; remove it if interrupted."""
    if made.ready is not None:
        return made
    name = made.instance.name
    with _removed_when_interrupted(where, name, progress):
        ready = wait_up(where.connection, name, timeout=timeout, progress=progress, stays=stays)
    if ready is None:
        return made
    seen = {stage: at + made.seconds for stage, at in ready.boot.seen.items()}
    boot = Boot(seen={**seen, Stage.STARTED: 0.0})
    return replace(made, instance=ready.instance, ready=replace(ready, boot=boot))


@contextlib.contextmanager
def _removed_when_interrupted(where: Where, name: str, progress: Progress) -> Iterator[None]:
    """Remove a complete machine if waiting for it is interrupted; keep it after an error."""
    try:
        yield
    except Exception:
        raise  # the machine is complete: keep it
    except BaseException:  # Ctrl-C, SIGTERM
        progress.say(f"interrupted: removing {name}")
        with contextlib.suppress(NotFound):  # another process removed it
            delete_domain(find_machine(where.connection, name))
        raise


def _from_golden(
    where: Where,
    plan: CreatePlan,
    digest: str,
    warm: Warm,
    progress: Progress,
    disposable: bool,
    wait: bool,
    pooled: bool,
) -> Created | None:
    """Create the machine from a golden; return None if no golden fits or cloning fails."""
    golden = choose.choose(where, plan, digest, warm, progress)
    if golden is None:
        if not warm.cold:
            pool.empty_unusable(where, progress)
        return None
    begun, taken = time.monotonic(), None
    try:
        if pooled and golden.mark.pool:
            taken = pool.take(where, plan, golden, progress)
        domain = taken or clone.make_clone(where, plan, golden, progress, disposable=disposable)
    except Conflict:
        raise  # the name is taken: a cold boot would fail too
    except ArmvmError as error:
        directory = str(PurePosixPath(golden.overlay).parent)
        cause, cure = confinement.explain(error, directory, where.facts)
        progress.say(f"falling back to a cold boot: golden {golden.name} cannot be used: {cause}")
        if cure is not None:
            progress.say(f"to use it: {cure}")
        return None
    found = None
    with _removed_when_interrupted(where, domain.name(), progress):
        if taken is not None and not disposable:
            pool.keep(taken)
        machine = observed(where.connection, domain)
        instance = machine.instance
        if wait or instance.network is None:
            found = reachable(machine)
            proved = taken is not None or disposable or clone.runs_in_background(plan)
            if found is not None and wait and not proved:
                # A clone has not booted: its console explains nothing.
                login_check.assert_lets_in(
                    machine, found, log=lambda: "", progress=progress, session=False
                )
    seconds = time.monotonic() - begun
    if found is not None:
        stages = {Stage.STARTED: 0.0, Stage.SSH: seconds, Stage.READY: seconds}
        made = boot_history.LearntBoot(at=time.time() - seconds, uuid=instance.uuid, stages=stages)
        if taken is None:
            boot_history.learn(f"clone of {golden.name}", made)
    source = f"taken from the pool of golden {golden.name}"
    if taken is None:
        source = f"created from golden {golden.name}"
    progress.say(f"{source} (use --cold to boot the image instead)")
    to_fill = golden.name if pooled and golden.mark.pool else None
    in_background = clone.runs_in_background(plan)
    if in_background:
        progress.say(
            f"cloud-init is still applying --user-data; you can log in now: armvm ssh "
            f"{instance.name}"
        )
    if in_background or found is None:
        return Created(instance=instance, ready=None, seconds=seconds, pool=to_fill)
    return Created(
        pool=to_fill,
        instance=instance,
        ready=Ready(
            instance=instance,
            endpoint=found,
            boot=Boot(seen={Stage.STARTED: 0.0, Stage.SSH: seconds, Stage.READY: seconds}),
        ),
    )
