"""The settings of a machine, before host and image are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

from armvm.base.errors import ConfigError
from armvm.base.result import Cpus, Doc, MemoryMib
from armvm.settings.disks import ExtraDisk, named
from armvm.settings.names import check_new_name, check_object_name, check_user_name, shown
from armvm.settings.size import GIB, MIB, TIB, size_label
from armvm.settings.table import SETTINGS

#: The value of ``--network`` for QEMU's user networking, instead of a network's name.
USER_NETWORK = "user"

#: Maximum number of vCPUs of QEMU's ``virt`` machine with GICv3.
MAX_CPUS = 512
#: With less, the kernel and initramfs of a current distribution do not boot.
MIN_MEMORY_MIB = 256
MAX_MEMORY_MIB = 16 * TIB // MIB
MIN_DISK = 1 * GIB
MAX_DISK = 64 * TIB


class _Known(TypedDict):
    cpus: Cpus
    memory_mib: MemoryMib
    disk: Annotated[int, Doc("Size of the root disk in bytes.")]


class Settings(_Known, total=False):
    """The settings that the machine was made with; null: armvm chose."""

    network: Annotated[str | None, Doc("The requested network.")]
    cpu_model: Annotated[str | None, Doc("The requested CPU model.")]
    headless: Annotated[bool, Doc("Whether it has no video and input devices.")]
    autologin: Annotated[bool, Doc("Whether the console logs in automatically.")]
    motd: Annotated[bool, Doc("Whether logins run the scripts of the message of the day.")]
    fast: Annotated[bool, Doc("Whether it was made with --fast.")]
    tuned: Annotated[bool, Doc("Whether it was made with --tuned.")]
    preset: Annotated[str, Doc("The preset that it started from.")]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The settings of a machine. Raises ConfigError for an invalid value.

    ``memory_mib`` is in MiB, ``disk`` in bytes. ``network`` is a libvirt network's name,
    ``"user"`` for user networking, or None for the connection's default. ``cpu_model`` None
    means the best one the host offers. ``user`` None means the distribution's own.
    ``user_data`` is the text of the user's own cloud-init document. ``password_hash`` is in
    crypt(3) form. ``ssh_keys`` are public keys in OpenSSH's one-line form; ``own_key`` says that
    one of them is armvm's own. Without ``motd``, logins do not run the scripts that generate
    the message of the day. ``fast`` gives up safety of the disk and the guest's own
    kernel for a faster boot. ``tuned`` uses the tuned form of the image. ``disks`` are those
    beside the root disk. A machine that is not ``seeded`` has no cloud-init seed: it boots an
    installer from the ISO file ``cdrom``, or an image that is set up by ``ignition``, the text of
    an Ignition configuration, or not at all.
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
    disks: tuple[ExtraDisk, ...] = ()
    seeded: bool = True
    cdrom: Path | None = None
    ignition: bytes | None = None

    def __post_init__(self) -> None:
        check_new_name(self.name)
        named(self.disks)
        if self.user is not None:
            check_user_name(self.user)
        if self.network not in (None, USER_NETWORK):
            check_object_name("network", str(self.network))
        if not 1 <= self.cpus <= MAX_CPUS:
            raise ConfigError(
                f"{self.cpus} vCPUs is out of range (1 to {MAX_CPUS})", hint="for example --cpus 4"
            )
        if not MIN_MEMORY_MIB <= self.memory_mib <= MAX_MEMORY_MIB:
            raise ConfigError(
                f"{self.memory_mib} MiB of memory is out of range",
                hint=f"--mem takes {MIN_MEMORY_MIB} MiB or more, for example 2048 or 4G",
            )
        if not MIN_DISK <= self.disk <= MAX_DISK:
            raise ConfigError(
                f"a disk of {size_label(self.disk)} is out of range",
                hint=f"--disk takes {size_label(MIN_DISK)} to {size_label(MAX_DISK)}, e.g. 10G",
            )
        if self.cpu_model is not None and not self.cpu_model.replace("-", "").isalnum():
            raise ConfigError(
                f"invalid CPU model {shown(self.cpu_model)}", hint="for example --cpu cortex-a72"
            )

    def summary(self) -> Settings:
        """Return the plain values for the domain's metadata, without secrets."""
        kept = {one.field: getattr(self, one.field) for one in SETTINGS.values() if one.kept}
        return cast("Settings", {**kept, "preset": self.preset})

    def shape(self) -> dict[str, Any]:
        """Return the settings that a golden must share with its clones."""
        return {
            one.field: value
            for one in SETTINGS.values()
            if one.in_shape(value := getattr(self, one.field))
        }
