"""What a golden and a machine created from it must have in common."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from armvm.base.errors import MissingCapability
from armvm.guest.cloudinit.presets import documents_of
from armvm.host.domain.golden_domain import Golden
from armvm.host.facts import Accelerator, HostFacts
from armvm.provision.golden import host_files
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.names import shown
from armvm.settings.system import OperatingSystem

#: The key under which older versions of armvm recorded QEMU's version.
_OLD_VERSION = "QEMU version"
#: Stands for a firmware that an older armvm did not record, and that changed since.
_OLD_FIRMWARE = "of an older file"


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
        **({"packages": list(plan.source.packages)} if plan.source.packages else {}),
        "user": plan.record.user,
        "network": ",".join("user" if card.is_user else "libvirt" for card in spec.cards),
        "pool": plan.record.pool,
    }


def ground_of(facts: HostFacts, loader: str) -> dict[str, str]:
    """Return the properties of the host that a golden depends on.

    The saved state belongs to one QEMU, with one machine type, accelerator and firmware, and with
    KVM to the host's own CPU. QEMU and the firmware of a remote host cannot be read. A property
    missing on either side does not count as a change; without QEMU's version, clone.make_clone
    asks the clone's QEMU for it before it resumes the clone.
    """
    ground = {
        "machine type": facts.machine_type,
        "libvirt": facts.libvirt_version,
        "accelerator": facts.accelerator.name,
    }
    if facts.accelerator is Accelerator.KVM and facts.cpu:
        ground["CPU"] = facts.cpu
    if facts.local:
        version = host_files.qemu_version(facts.emulator)
        ground |= {} if version is None else {"QEMU": version}
        ground["firmware"] = host_files.digest(loader) or f"{loader} (not readable)"
    return ground


def ground_in(golden: Golden) -> dict[str, str]:
    """Return what `ground_of` returned where a golden was made.

    Older versions of armvm recorded the times of change of QEMU's and the firmware's files. QEMU's
    version is recorded too; the firmware is known only as long as its file is unchanged.
    """
    ground = {str(key): str(value) for key, value in golden.mark.ground.items()}
    version = ground.pop(_OLD_VERSION, None)
    if version is None:
        return ground
    loader, before = loader_in(golden), ground.pop("firmware", None)
    if before is not None:
        same = before == _stamp(loader)
        ground["firmware"] = (host_files.digest(loader) if same else None) or _OLD_FIRMWARE
    return {**ground, "QEMU": version}


def is_comparable(golden: Golden) -> bool:
    """Return whether a golden's ground can be compared with another host."""
    return ground_in(golden).get("firmware") != _OLD_FIRMWARE


def changes(now: dict[str, str], then: dict[str, str]) -> list[str]:
    """Return how a host differs from the one that a golden was made on, in words.

    libvirt may be newer: it starts the definitions and save images of older versions with the same
    devices. An older one may lack a feature of the definition.
    """
    return [
        f"{key} {_short(value)} here, {_short(then[key])} where it was made"
        for key, value in now.items()
        if key in then and not _agree(key, value, then[key])
    ]


def _agree(key: str, here: str, there: str) -> bool:
    if key == "libvirt":
        with contextlib.suppress(ValueError):
            return _numbers(here) >= _numbers(there)
    return here == there


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _short(value: str) -> str:
    """Return a property for a message: a digest in 12 digits."""
    return value[:19] if value.startswith("sha256:") else value


def _stamp(path: str) -> str:
    """Return how an older armvm recorded a file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as QEMU does
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path}, {status.st_size} bytes, changed {status.st_mtime_ns}"


def loader_in(golden: Golden) -> str:
    """Return the path of the firmware that booted a golden."""
    return golden.definition.findtext("os/loader") or ""


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the differences between two shapes, in words."""
    return [
        f"{_printable(key)} {_printable(found.get(key))} (requested: {_printable(value)})"
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def _printable(value: Any) -> str:
    """Return a key or a value of a shape, which may be a stranger's, for a message."""
    text = str(value)
    return text if text.isprintable() and len(text) <= 60 else shown(text)
