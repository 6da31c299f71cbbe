"""Which golden a new machine is made from, if any: the choice, and the one line that tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from armvm.base.errors import Conflict, UsageError
from armvm.base.progress import Progress
from armvm.host.domain.golden_domain import Golden, find_golden, goldens
from armvm.host.memory import route
from armvm.provision.golden.bake import differences, ground_of, loader_in, shape_of
from armvm.provision.golden.source import FromGolden, FromMachine, source_in
from armvm.provision.machine.create import Where
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.machine import USER_NETWORK, Machine
from armvm.settings.table import SETTINGS
from armvm.settings.warm import Policy


@dataclass(frozen=True, kw_only=True)
class Warm:
    """What the user says about goldens: one by name, none, or (the default) any that fits.

    ``bake`` says that one is to be made after a cold boot that found none.
    """

    asked: str | None = None
    cold: bool = False
    bake: bool = False

    def __post_init__(self) -> None:
        if self.asked is not None and self.cold:
            raise UsageError("--from asks for a golden, --cold refuses one: give one of them")


def wish_for(asked: str | None, *, cold: bool, policy: Policy) -> Warm:
    """Return what the command line and the configuration say together.

    Raises UsageError when ``--from`` and ``--cold`` are both given.
    """
    unasked = policy is Policy.NEVER and asked is None
    return Warm(asked=asked, cold=cold or unasked, bake=policy is Policy.AUTO)


def choose(
    where: Where, plan: CreatePlan, digest: str, warm: Warm, progress: Progress
) -> Golden | None:
    """Return the golden to use, or None for a cold boot; why it is cold is said in one line.

    Nothing is said where no golden was asked for and none has this shape. Raises NotFound when
    the one asked for does not exist.
    """
    if warm.cold:
        return None
    wanted = shape_of(plan, digest)
    if warm.asked is not None:
        candidates = [find_golden(where.connection, warm.asked)]
    else:
        candidates = _of_shape(goldens(where.connection), wanted)
    reasons = []
    for golden in candidates:
        reason = _why_not(where, golden, wanted)
        if reason is None:
            return golden
        reasons.append(f"the golden {golden.name} is of no use: {reason}")
        source = source_in(golden)
        if isinstance(source, FromMachine):
            raise no_image(reasons[0], source)
    if reasons:
        progress.say(f"{reasons[0]}; booting cold")
    return None


def no_image(reason: str, source: FromMachine) -> Conflict:
    """Return the error for a golden made from a machine, where a cold boot would be the answer."""
    return Conflict(
        f"{reason}; and {source.reference} is no image that could be booted instead",
        hint=f"make it again: armvm golden create --from {source.machine}",
    )


def source_of(golden: Golden, machine: Machine) -> FromGolden | FromMachine | None:
    """Return what a golden was made from; None where *machine* is to have another image."""
    source = source_in(golden)
    return source if source.reference == machine.image else None


def settings_of(golden: Golden) -> dict[str, Any]:
    """Return a golden's shape as a layer of settings, for a machine to be made from it.

    Its preset is among them, which is no setting: what it installs is there already.
    """
    shape, record = golden.mark.shape, golden.mark.record
    return {
        **{
            key: one.write(shape.get(one.field, one.default))
            for key, one in SETTINGS.items()
            if one.shape is not None
        },
        "image": record.image.get("reference"),
        "cpu": record.settings.get("cpu_model"),
        "user": shape["user"],
        "network": golden.network or USER_NETWORK,
        "tuned": record.settings.get("tuned", False),
        "preset": record.settings.get("preset"),
    }


def fits(where: Where, golden: Golden) -> str | None:
    """Return what has changed on the host since a golden was made; None where nothing has."""
    now = ground_of(where.facts, loader_in(golden))
    then = golden.mark.ground
    changed = [key for key, value in now.items() if key in then and then[key] != value]
    return f"{' and '.join(changed)} changed since it was made" if changed else None


def _of_shape(found: list[Golden], wanted: dict[str, Any]) -> list[Golden]:
    """Return the goldens of a shape, shared memory first, then the newest.

    One that only the kind of network keeps from being used is told of.
    """
    alike = [
        golden
        for golden in found
        if {**golden.mark.shape, "network": None} == {**wanted, "network": None}
    ]
    return sorted(
        alike,
        key=lambda golden: (golden.mark.route == route.COW, golden.mark.created),
        reverse=True,
    )


def _why_not(where: Where, golden: Golden, wanted: dict[str, Any]) -> str | None:
    reason = route.route(golden.mark.route).why_not(local=where.facts.local)
    if reason is not None:
        return reason
    different = differences(wanted, golden.mark.shape)
    if different:
        return "it has " + "; ".join(different)
    return fits(where, golden)


def in_use(golden: Golden, users: list[str]) -> Conflict:
    """Return the error for a golden that machines stand on."""
    return Conflict(
        f"{golden.name} is in use by " + ", ".join(users),
        hint="their disks hold only what differs from the golden's: delete these machines first, "
        f"or let them go on without it: armvm golden delete --flatten {golden.name}",
    )
