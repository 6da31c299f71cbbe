"""The arms of `benchmarks.levers`: their changes to a machine, its domain and its seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from armvm.host.xml import at, remove, select
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


def _ports(count: int) -> Lever:
    def change(element: etree._Element) -> None:
        for port in select(element, "devices/controller[@model='pcie-root-port']")[count:]:
            remove(port)

    return _on_domain(change)


def _no_screen(element: etree._Element) -> None:
    paths = "devices/input | devices/graphics | devices/video | devices/controller[@type='usb']"
    for one in select(element, paths):
        remove(one)


def _tb_cache(mib: int) -> Lever:
    def change(element: etree._Element) -> None:
        tcg = etree.SubElement(at(element, "features"), "tcg")
        etree.SubElement(tcg, "tb-cache", unit="MiB").text = str(mib)

    return _on_domain(change)


def _all_host_keys(setup: Setup) -> None:
    setup.config |= {"ssh_keys": None, "ssh_deletekeys": True}


def all_modules(setup: Setup) -> None:
    setup.config |= dict.fromkeys(("cloud_init_modules", "cloud_config_modules"))


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


def _short_lists(setup: Setup) -> None:
    _late_growpart(setup)
    setup.config["cloud_config_modules"] = ["growpart", "resizefs", "set-passwords", "runcmd"]
    setup.config["cloud_final_modules"] = "scripts-user final-message".split()


def _noblock(setup: Setup) -> None:
    setup.config["resize_rootfs"] = "noblock"


def _kernel(setup: Setup) -> None:
    setup.kernel = True


def _masked(setup: Setup) -> None:
    setup.command_line += "".join(f" systemd.mask={unit}" for unit in MASKED)


def _kernels_network(setup: Setup) -> None:
    """Set up the network by the kernel's command line, which networkd reads, without netplan."""
    setup.command_line += " ip=dhcp network-config=disabled"


def _compressed(setup: Setup) -> None:
    setup.compressed = True


def _cpus(count: int) -> Lever:
    def lever(setup: Setup) -> None:
        setup.machine = replace(setup.machine, cpus=count)

    return lever


_DIRECT: tuple[Lever, ...] = (_kernel,)
_FAST: tuple[Lever, ...] = (_kernel, _cache("unsafe"))
ARMS: dict[str, tuple[Lever, ...]] = {
    # Like a recipe without armvm: the firmware waits, three host keys, a compressed base.
    "recipe": (_on_domain(_boot_menu), _all_host_keys, _compressed),
    "menu": (_on_domain(_boot_menu),),
    "packed": (_compressed,),
    "keys": (_all_host_keys,),
    "today": (),
    "armvm": (),
    "armvm-network-stage": (network_stage,),
    "armvm-fast": _FAST,
    "armvm-fast-ip": (*_FAST, _kernels_network),
    "armvm-fast-ip-masked": (*_FAST, _kernels_network, _masked),
    "armvm-lean": (_ports(4), _on_domain(_no_screen)),
    "late-growpart": (_late_growpart,),
    "short-lists": (_short_lists,),
    "noblock": (_noblock,),
    "none": (_cache("none"),),
    "unsafe": (_cache("unsafe"),),
    "direct": _DIRECT,
    "fast": _FAST,
    "fast-masked": (*_FAST, _masked),
    "fast-lean": (*_FAST, _ports(2), _on_domain(_no_screen)),
    "fast-1cpu": (*_FAST, _cpus(1)),
    "fast-4cpu": (*_FAST, _cpus(4)),
    "fast-tb256": (*_FAST, _tb_cache(256)),
}
