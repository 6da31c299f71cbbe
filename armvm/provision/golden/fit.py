"""What a golden and a machine created from it must have in common."""

from __future__ import annotations

import os
from typing import Any

from armvm.base.errors import MissingCapability
from armvm.guest.cloudinit.presets import documents_of
from armvm.host.domain.golden_domain import Golden
from armvm.host.facts import HostFacts
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.system import OperatingSystem


def check_system(system: OperatingSystem | None) -> None:
    """Raise MissingCapability for a system without systemd, which settling a guest requires."""
    if system is not None and system.family is not None and not system.family.systemd:
        raise MissingCapability(
            f"goldens of {system} are not supported: a golden requires systemd",
            hint="create machines from the image: armvm create, without --from",
        )


def shape_of(plan: CreatePlan, digest: str) -> dict[str, Any]:
    """Return the settings that a golden and a machine created from it must share."""
    machine, spec = plan.machine, plan.spec
    installed = documents_of(machine.preset)
    return {
        "image": digest,
        **machine.shape(),
        "cpu": spec.cpu_model,
        # Only if there are any, so that older goldens, whose shape lacks the key, still fit.
        **({"presets": list(installed)} if installed else {}),
        "user": plan.record.user,
        "network": "user" if spec.network is None else "libvirt",
        "pool": plan.record.pool,
    }


def ground_of(facts: HostFacts, loader: str) -> dict[str, Any]:
    """Return the properties of the host that must not change while a golden is used.

    QEMU and the firmware are identified by the size and modification time of their files, because
    asking QEMU for its version takes longer. Files on a remote host cannot be read. A property
    missing on either side does not count as a change; in that case clone.make_clone asks the
    clone's QEMU for its version before it resumes the clone.
    """
    ground = {"machine type": facts.machine_type, "libvirt": facts.libvirt_version}
    if facts.local:
        ground |= {"QEMU": _stamp(facts.emulator), "firmware": _stamp(loader)}
    return ground


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as QEMU does
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path}, {status.st_size} bytes, changed {status.st_mtime_ns}"


def loader_in(golden: Golden) -> str:
    """Return the path of the firmware that booted a golden."""
    return golden.definition.findtext("os/loader") or ""


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the differences between two shapes or grounds, in words."""
    return [
        f"{key} {found.get(key)} (requested: {value})"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
