"""A machine as it is asked for, before anything is known of the host or the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from armvm.base.errors import ConfigError
from armvm.settings.names import check_new_name, check_object_name, check_user_name, shown
from armvm.settings.size import GIB, MIB, TIB, size_label
from armvm.settings.table import SETTINGS

#: The word for ``--network`` that stands for QEMU's user networking instead of a network's name.
USER_NETWORK = "user"

#: The most vCPUs that QEMU's ``virt`` machine takes with GICv3.
MAX_CPUS = 512
#: Below this a current distribution's kernel and initramfs do not come up.
MIN_MEMORY_MIB = 256
MAX_MEMORY_MIB = 16 * TIB // MIB
MIN_DISK = 1 * GIB
MAX_DISK = 64 * TIB


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is wanted. Checked when it is made: raises ConfigError on a value that cannot be.

    ``memory_mib`` is in MiB, ``disk`` in bytes. ``network`` is a libvirt network's name,
    ``"user"`` for user networking, or None to let the connection decide. ``cpu_model`` None
    means the best the host offers. ``user`` None means the distribution's own.
    ``user_data`` is the text of the user's own cloud-init document. ``password_hash`` is in
    crypt(3) form. ``ssh_keys`` are public keys in OpenSSH's one-line form; ``own_key`` says that
    armvm's own key is the one among them. Without ``motd``, no login runs the scripts that make
    the message of the day. ``fast`` trades safety of the disk and the guest's own
    kernel for a quicker boot. ``tuned``: it is made from the tuned form of its image.
    """

    name: str
    cpus: int = SETTINGS["cpus"].default
    memory_mib: int = SETTINGS["mem"].default
    disk: int = SETTINGS["disk"].default
    image: str = SETTINGS["image"].default
    user: str | None = SETTINGS["user"].default
    ssh_keys: tuple[str, ...] = ()
    own_key: bool = False
    network: str | None = SETTINGS["network"].default
    cpu_model: str | None = SETTINGS["cpu"].default
    headless: bool = SETTINGS["headless"].default
    autologin: bool = SETTINGS["autologin"].default
    motd: bool = SETTINGS["motd"].default
    fast: bool = SETTINGS["fast"].default
    tuned: bool = SETTINGS["tuned"].default
    password_hash: str | None = None
    user_data: str | None = None
    preset: str = "default"

    def __post_init__(self) -> None:
        check_new_name(self.name)
        if self.user is not None:
            check_user_name(self.user)
        if self.network not in (None, USER_NETWORK):
            check_object_name("network", str(self.network))
        if not 1 <= self.cpus <= MAX_CPUS:
            raise ConfigError(
                f"{self.cpus} vCPUs cannot be had", hint=f"--cpus takes 1 to {MAX_CPUS}"
            )
        if not MIN_MEMORY_MIB <= self.memory_mib <= MAX_MEMORY_MIB:
            raise ConfigError(
                f"{self.memory_mib} MiB is no memory size for a machine",
                hint=f"--mem takes {MIN_MEMORY_MIB} MiB or more, for example 2048 or 4G",
            )
        if not MIN_DISK <= self.disk <= MAX_DISK:
            raise ConfigError(
                f"a disk of {size_label(self.disk)} is of no use",
                hint=f"--disk takes {size_label(MIN_DISK)} to {size_label(MAX_DISK)}, e.g. 10G",
            )
        if self.cpu_model is not None and not self.cpu_model.replace("-", "").isalnum():
            raise ConfigError(
                f"{shown(self.cpu_model)} is no CPU model", hint="for example --cpu cortex-a72"
            )

    def summary(self) -> dict[str, Any]:
        """Return the plain values that are kept in the domain's metadata: nothing secret."""
        kept = {one.field: getattr(self, one.field) for one in SETTINGS.values() if one.kept}
        return {**kept, "preset": self.preset}

    def shape(self) -> dict[str, Any]:
        """Return the settings that a golden must share with its clones."""
        return {
            one.field: value
            for one in SETTINGS.values()
            if one.in_shape(value := getattr(self, one.field))
        }
