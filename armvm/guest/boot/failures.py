"""Signs in the serial log of a boot that has failed for good, as opposed to a slow one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from armvm.guest.boot.serial import latest_boot

#: How many characters of a log's end are searched: little is printed after a failure.
_END = 6000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem that keeps a guest from getting ready: ``what`` it is, and advice.

    ``key`` identifies the problem across looks. A *fatal* one does not pass by itself.
    """

    key: str
    what: str
    advice: str
    fatal: bool = False


@dataclass(frozen=True, kw_only=True)
class _Sign:
    """How a problem looks on the console; ``{0}`` in ``what`` is the pattern's first group."""

    key: str
    pattern: re.Pattern[str]
    what: str
    advice: str
    fatal: bool = True


#: Sources: Linux kernel/panic.c; edk2 MdeModulePkg/Universal/BdsDxe and ShellPkg; GRUB
#: grub-core/normal and kern/rescue_reader.c; systemd units/emergency.service.in; initramfs-tools
#: scripts/functions; dracut modules.d/98dracut-systemd. A prompt counts only at the log's end.
_SIGNS = (
    _Sign(
        key="panic",
        pattern=re.compile(r"Kernel panic - not syncing: ([^\n]{0,120})"),
        what="kernel panic: {0}",
        advice="the lines before say why; 'armvm logs {name}' shows them all. The usual cause is a "
        "root file system or an init that is missing or broken",
    ),
    _Sign(
        key="firmware-exception",
        pattern=re.compile(r"Synchronous Exception at (0x[0-9A-Fa-f]+)"),
        what="the firmware, or the boot loader it started, crashed at {0}",
        advice="the image's boot loader does not work with this firmware: try another image",
    ),
    _Sign(
        key="uefi-shell",
        pattern=re.compile(r"^(?:Shell|FS\d+:[^\n]{0,80})> ?\Z", re.M),
        what="the firmware found nothing to boot and is waiting in the UEFI shell",
        advice="the image lacks a boot loader for ARM64 (EFI/BOOT/BOOTAA64.EFI): use another image",
    ),
    _Sign(
        key="no-boot-device",
        pattern=re.compile(
            r"No bootable (?:option or )?device(?: was found)?|Press any key to enter the Boot "
            r"Manager Menu|map: No mapping found"
        ),
        what="the firmware found no bootable device",
        advice="the image lacks a boot loader for ARM64 (EFI/BOOT/BOOTAA64.EFI): use another image",
    ),
    _Sign(
        key="grub",
        pattern=re.compile(r"^(grub(?: rescue)?)> ?\Z", re.M),
        what="the boot loader stopped at the {0} prompt",
        advice="it found no configuration or no kernel; 'armvm console {name}' opens the prompt",
    ),
    _Sign(
        key="emergency",
        pattern=re.compile(
            r"You are in (emergency|rescue) mode|Give root password for maintenance|"
            r"Press Enter for maintenance"
        ),
        what="systemd stopped in emergency mode",
        advice="the usual cause is a file system that cannot be mounted: 'armvm console {name}', "
        "then 'systemctl --failed' and 'journalctl -b -p err'",
    ),
    _Sign(
        key="initramfs",
        pattern=re.compile(r"Entering emergency mode|^(?:\(initramfs\)|dracut:/#) ?\Z", re.M),
        what="the initramfs did not find the root file system and is waiting at a prompt",
        advice="check root= on the kernel's command line, and the drivers in the initramfs: "
        "'armvm console {name}' opens the prompt",
    ),
    _Sign(
        key="memory",
        pattern=re.compile(r"Out of memory: Killed process \d+ \(([^)\n]{1,40})\)"),
        what="out of memory: the kernel killed {0}",
        advice="give it more memory: armvm stop --force {name}, armvm resize {name} --mem 2G",
        fatal=False,
    ),
    _Sign(
        key="disk",
        pattern=re.compile(r"I/O error, dev (\w+)"),
        what="disk {0} reports I/O errors",
        advice="check whether the host's disk is full: df -h",
        fatal=False,
    ),
)


def named(name: str, log: str) -> Finding | None:
    """Return the problem in a machine's (cleaned) serial log; None if there is none."""
    end = latest_boot(log)[-_END:].rstrip("\n")
    for sign in _SIGNS:
        match = sign.pattern.search(end)
        if match:
            group = (match[1] or "") if match.re.groups else ""
            return Finding(
                key=sign.key,
                what=sign.what.format(group.strip()),
                advice=sign.advice.format(name=name),
                fatal=sign.fatal,
            )
    return None
