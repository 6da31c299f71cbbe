"""Choose the golden for a new machine, or explain in one line why none can be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from armvm.base.errors import Conflict, UsageError
from armvm.base.progress import Progress
from armvm.host.agent import channel
from armvm.host.domain.golden_domain import Golden, find_golden, goldens
from armvm.host.memory import route
from armvm.provision.golden.fit import (
    changes,
    differences,
    ground_in,
    ground_of,
    loader_in,
    shape_of,
)
from armvm.provision.golden.source import FromGolden, FromMachine, source_in
from armvm.provision.machine.create import Where
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.machine import Machine
from armvm.settings.networks import USER_NETWORK
from armvm.settings.table import SETTINGS
from armvm.settings.warm import Policy


@dataclass(frozen=True, kw_only=True)
class Warm:
    """The user's choice of golden: one by name, none, or (the default) any that fits.

    With ``bake``, a golden is baked after a cold boot for which none was found.
    """

    asked: str | None = None
    cold: bool = False
    bake: bool = False

    def __post_init__(self) -> None:
        if self.asked is not None and self.cold:
            raise UsageError("--from and --cold cannot be used together")


def warm_for(asked: str | None, *, cold: bool, policy: Policy) -> Warm:
    """Return the choice that follows from the command line and the configuration.

    Raises UsageError if ``--from`` and ``--cold`` are both given.
    """
    unasked = policy is Policy.NEVER and asked is None
    return Warm(asked=asked, cold=cold or unasked, bake=policy is Policy.AUTO)


def find(where: Where, name: str) -> Golden:
    """Return a golden by name. Raises NotFound."""
    return find_golden(where.connection, name)


def choose(
    where: Where, plan: CreatePlan, digest: str, warm: Warm, progress: Progress
) -> Golden | None:
    """Return the golden to use, or None for a cold boot; print in one line why it is cold.

    Prints nothing if no golden was requested and none has this shape. Raises NotFound if the
    requested golden does not exist, and Conflict if it cannot be used and was made from a machine.
    """
    if warm.cold:
        return None
    if plan.machine.network_config is not None:
        if warm.asked is None:
            return None
        raise UsageError(
            "--network-config cannot be used with a golden: its network is set up already",
            hint="leave out --from: armvm then boots the machine from the image",
        )
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
        reasons.append(f"golden {golden.name} cannot be used: {reason}")
        source = source_in(golden)
        if isinstance(source, FromMachine):
            raise no_image(reasons[0], source)
    if reasons:
        progress.say(f"falling back to a cold boot: {reasons[0]}")
    return None


def no_image(reason: str, source: FromMachine) -> Conflict:
    """Return the error for a golden made from a machine: a cold boot cannot replace it."""
    return Conflict(
        f"{reason}; it was made from machine {source.machine}, so armvm cannot boot an image "
        "instead",
        hint=f"create the golden again: armvm golden create --from {source.machine}",
    )


def source_of(golden: Golden, machine: Machine) -> FromGolden | FromMachine | None:
    """Return the source of a golden; None if *machine* uses another image."""
    source = source_in(golden)
    return source if source.reference == machine.image else None


def settings_of(golden: Golden) -> dict[str, Any]:
    """Return a golden's shape as a layer of settings, for creating a machine from it.

    The layer includes the preset, although it is not a setting: its packages are installed already.
    """
    record = golden.mark.record
    return settings_for(
        golden.mark.shape,
        record.settings,
        image=record.image.get("reference"),
        network=",".join(golden.networks) or USER_NETWORK,
    )


def settings_for(
    shape: dict[str, Any], settings: dict[str, Any], *, image: str | None, network: str | None
) -> dict[str, Any]:
    """Return the settings of machines with a golden's *shape*, as `settings_of` does.

    *settings* are those of the machine that became the golden.
    """
    return {
        **{
            key: one.write(shape.get(one.field, one.default))
            for key, one in SETTINGS.items()
            if one.shape is not None
        },
        "image": image,
        "cpu": settings.get("cpu_model"),
        "user": shape["user"],
        "network": network,
        "tuned": settings.get("tuned", False),
        "preset": settings.get("preset"),
    }


def fits(where: Where, golden: Golden) -> str | None:
    """Return how this host or armvm differs from those that made a golden; None if they agree."""
    if not channel.has_channels(golden.definition):
        return "it was made by an older armvm; delete it and create it again"
    changed = changes(ground_of(where.facts, loader_in(golden)), ground_in(golden))
    return "; ".join(changed) or None


def route_lacks(where: Where, golden: Golden) -> str | None:
    """Return why a golden's memory cannot be used over this connection; None if it can.

    The golden may still fit on the host itself.
    """
    return route.route(golden.mark.route).why_not(local=where.facts.local)


def unusable(where: Where, golden: Golden) -> str | None:
    """Return why a golden cannot be used on this host, over this connection; None if it can."""
    return route_lacks(where, golden) or fits(where, golden)


def _of_shape(found: list[Golden], wanted: dict[str, Any]) -> list[Golden]:
    """Return the goldens of a shape: shared memory first, then the newest.

    An imported golden is used only by its name: its image was not verified on this host. The kind
    of network is ignored here, so that armvm can report it as the reason for a cold boot.
    """
    alike = [
        golden
        for golden in found
        if golden.mark.imported is None
        and {**golden.mark.shape, "network": None} == {**wanted, "network": None}
    ]
    return sorted(
        alike,
        key=lambda golden: (golden.mark.route == route.COW, golden.mark.created),
        reverse=True,
    )


def _why_not(where: Where, golden: Golden, wanted: dict[str, Any]) -> str | None:
    reason = route_lacks(where, golden)
    if reason is not None:
        return reason
    different = differences(wanted, golden.mark.shape)
    if different:
        return "it has " + "; ".join(different)
    return fits(where, golden)


def in_use(golden: Golden, users: list[str]) -> Conflict:
    """Return the error for a golden whose disk is the backing file of other disks."""
    return Conflict(
        f"{golden.name} is in use by " + ", ".join(users),
        hint="delete these machines first, or copy the golden's data to their disks: "
        f"armvm golden delete --flatten {golden.name}",
    )
