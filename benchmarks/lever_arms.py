"""The arms of `benchmarks.levers`: their changes to a machine, its domain and its seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from armvm.host.xml import at, remove
from armvm.provision.machine.fast import KPTI, NETWORK, UNITS, masks
from armvm.settings.machine import Machine

#: Units that ``masked`` masks: a boot does not require them.
MASKED = (
    "systemd-networkd-wait-online.service systemd-binfmt.service systemd-pstore.service "
    "dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount "
    "modprobe@configfs.service modprobe@drm.service modprobe@fuse.service modprobe@loop.service "
    "modprobe@dm_mod.service modprobe@efi_pstore.service systemd-machine-id-commit.service"
).split()


@dataclass
class Setup:
    """The changes of an arm: to the machine, the domain element, the user-data, the base."""

    machine: Machine
    domain: Callable[[etree._Element], None] = lambda _element: None
    config: dict[str, Any] = field(default_factory=dict)
    local: bool = True
    compressed: bool = False
    kernel: bool = False
    command_line: str = ""


Lever = Callable[[Setup], None]


def _on_domain(change: Callable[[etree._Element], None]) -> Lever:
    def lever(setup: Setup) -> None:
        before = setup.domain

        def both(element: etree._Element) -> None:
            before(element)
            change(element)

        setup.domain = both

    return lever


def _boot_menu(element: etree._Element) -> None:
    remove(at(element, "os/bootmenu"))


def _cache(mode: str) -> Lever:
    return _on_domain(lambda element: at(element, "devices/disk[1]/driver").set("cache", mode))


def _tb_cache(mib: int) -> Lever:
    """Limit QEMU's translated code."""

    def change(element: etree._Element) -> None:
        at(element, "features/tcg/tb-cache").text = str(mib)

    return _on_domain(change)


def _all_host_keys(setup: Setup) -> None:
    setup.config |= {"ssh_keys": None, "ssh_deletekeys": True}


def all_modules(setup: Setup) -> None:
    setup.config |= dict.fromkeys(("cloud_init_modules", "cloud_config_modules"))


#: QEMU's own limit, which armvm's machines had until 29 November 2026.
all_code = _tb_cache(1024)


def network_stage(setup: Setup) -> None:
    """Turn on cloud-init's second stage, with a network."""
    setup.config |= {"bootcmd": None}
    setup.local = False


def _late_growpart(setup: Setup) -> None:
    """Use the module lists of Debian 12, with disk growth after ssh instead of before it."""
    early = "seed_random bootcmd write-files disk_setup mounts set_hostname update_hostname"
    late = "growpart resizefs locale set-passwords grub-dpkg apt-configure ntp timezone runcmd"
    setup.config |= {
        "cloud_init_modules": [*early.split(), "update_etc_hosts", "users-groups", "ssh"],
        "cloud_config_modules": late.split(),
    }


def _kernel(setup: Setup) -> None:
    setup.kernel = True


def _compressed(setup: Setup) -> None:
    setup.compressed = True


def _words(*words: str) -> Lever:
    """Append words to the kernel's command line."""

    def lever(setup: Setup) -> None:
        setup.command_line += "".join(f" {word}" for word in words)

    return lever


_FAST: tuple[Lever, ...] = (_kernel, _cache("unsafe"))
_IP: tuple[Lever, ...] = (*_FAST, _words(*NETWORK))
_UNITS: tuple[Lever, ...] = (*_IP, _words(*masks(UNITS)))
_KPTI: tuple[Lever, ...] = (*_UNITS, _words(KPTI))
ARMS: dict[str, tuple[Lever, ...]] = {
    # Like a recipe without armvm: the firmware waits, three host keys, a compressed base.
    "recipe": (_on_domain(_boot_menu), _all_host_keys, _compressed),
    "today": (),
    "late-growpart": (_late_growpart,),
    "fast": _FAST,
    "armvm-network-stage": (network_stage,),
    "armvm": (),
    "armvm-fast": _FAST,
    "armvm-fast-ip": _IP,
    "armvm-fast-ip-masked": (*_IP, _words(*masks(MASKED))),
    "armvm-fast-units-tb64": (*_UNITS, _tb_cache(64)),
    "armvm-fast-units-tb256": (*_UNITS, _tb_cache(256)),
    "armvm-fast-kpti-tb64": (*_KPTI, _tb_cache(64)),
    "armvm-fast-kpti-tb128": (*_KPTI, _tb_cache(128)),
    "armvm-fast-kpti-tb256": (*_KPTI, _tb_cache(256)),  # what --fast does
}
