"""The settings of a machine, before host and image are known."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

from armvm.base.errors import ConfigError
from armvm.base.result import Cpus, Doc, MemoryMib
from armvm.settings.disks import ExtraDisk, named
from armvm.settings.names import check_new_name, check_user_name, shown
from armvm.settings.networks import attachments
from armvm.settings.size import GIB, MAX_DISK, MIB, TIB, size_label
from armvm.settings.table import SETTINGS

#: Maximum number of vCPUs of QEMU's ``virt`` machine with GICv3.
MAX_CPUS = 512
#: With less, the kernel and initramfs of a current distribution do not boot.
MIN_MEMORY_MIB = 256
MAX_MEMORY_MIB = 16 * TIB // MIB
MIN_DISK = 1 * GIB
#: Kinds of addresses, as `ipaddress` calls them, that no machine has.
_NO_HOST = ("unspecified", "loopback", "link_local", "multicast", "reserved")


class _Known(TypedDict):
    cpus: Cpus
    memory_mib: MemoryMib
    disk: Annotated[int, Doc("Size of the root disk in bytes.")]


class Settings(_Known, total=False):
    """The settings that the machine was made with; null: armvm chose."""

    network: Annotated[str | None, Doc("The requested networks, separated by commas.")]
    ip: Annotated[str | None, Doc("The address that was reserved on request.", format="ipv4")]
    address: Annotated[
        str | None, Doc("Without DHCP: the first address in its --network-config, with its prefix.")
    ]
    cpu_model: Annotated[str | None, Doc("The requested CPU model.")]
    headless: Annotated[bool, Doc("Whether it has no video and input devices.")]
    autologin: Annotated[bool, Doc("Whether the console logs in automatically.")]
    motd: Annotated[bool, Doc("Whether logins run the scripts of the message of the day.")]
    fast: Annotated[bool, Doc("Whether it was made with --fast.")]
    tuned: Annotated[bool, Doc("Whether it was made with --tuned.")]
    preset: Annotated[str, Doc("The preset that it started from.")]


def check_address(text: str) -> ipaddress.IPv4Address:
    """Return an IPv4 address that a machine can have. Raises ConfigError for any other text."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        six = ":" in text
        raise ConfigError(
            f"invalid IPv4 address {shown(text)} for --ip",
            hint="armvm reserves IPv4 addresses only; set an IPv6 address with --network-config"
            if six
            else "for example --ip 192.168.128.50",
        ) from error
    if any(getattr(address, f"is_{kind}") for kind in _NO_HOST):
        raise ConfigError(
            f"{address} cannot be a machine's address", hint="for example --ip 192.168.128.50"
        )
    return address


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The settings of a machine. Raises ConfigError for an invalid value.

    ``memory_mib`` is in MiB, ``disk`` in bytes. ``network`` has the machine's networks as
    `armvm.settings.networks` writes them, or is None for the connection's default. ``ip`` is the
    IPv4 address to reserve for it on the first one. ``cpu_model`` None
    means the best one the host offers. ``user`` None means the distribution's own.
    ``user_data`` is the text of the user's own cloud-init document, ``network_config`` that of the
    network configuration that replaces armvm's, ``address`` the static address in it.
    ``password_hash`` is in crypt(3) form. ``ssh_keys`` are public keys in OpenSSH's one-line form;
    ``own_key`` says that one of them is armvm's own. Without ``motd``, logins do not run the
    scripts that generate the message of the day. ``fast`` gives up safety of the disk and the
    guest's own kernel for a faster boot. ``tuned`` uses the tuned form of the image. ``disks`` are
    those beside the root disk. A machine that is not ``seeded`` has no cloud-init seed: it boots an
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
    ip: str | None = SETTINGS["ip"].default
    cpu_model: str | None = SETTINGS["cpu"].default
    headless: bool = SETTINGS["headless"].default
    autologin: bool = SETTINGS["autologin"].default
    motd: bool = SETTINGS["motd"].default
    fast: bool = SETTINGS["fast"].default
    tuned: bool = SETTINGS["tuned"].default
    password_hash: str | None = None
    user_data: str | None = None
    network_config: str | None = None
    address: str | None = None
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
        if self.network is not None:
            attachments(self.network)
        if self.ip is not None:
            check_address(self.ip)
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
        return cast("Settings", {**kept, "preset": self.preset, "address": self.address})

    def shape(self) -> dict[str, Any]:
        """Return the settings that a golden must share with its clones."""
        return {
            one.field: value
            for one in SETTINGS.values()
            if one.in_shape(value := getattr(self, one.field))
        }
