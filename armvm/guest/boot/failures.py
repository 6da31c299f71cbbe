"""What a serial log says when a boot has gone wrong for good, told from one that takes its time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from armvm.guest.boot.serial import latest_boot

#: How much of a log's end is looked at, in characters: what comes after the trouble is short.
_END = 6000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that keeps a guest from getting ready: ``what`` it is, and what to do about it.

    ``key`` is the same as long as it is the same thing. A *fatal* one does not pass by itself.
    """

    key: str
    what: str
    advice: str
    fatal: bool = False


@dataclass(frozen=True, kw_only=True)
class _Sign:
    """How a trouble looks on the console; ``{0}`` in ``what`` is the pattern's first group."""

    key: str
    pattern: re.Pattern[str]
    what: str
    advice: str
    fatal: bool = True


#: Sources: Linux kernel/panic.c; edk2 MdeModulePkg/Universal/BdsDxe and ShellPkg; GRUB
#: grub-core/normal and kern/rescue_reader.c; systemd units/emergency.service.in; initramfs-tools
#: scripts/functions; dracut modules.d/98dracut-systemd. A prompt counts where the log ends.
_SIGNS = (
    _Sign(
        key="panic",
        pattern=re.compile(r"Kernel panic - not syncing: ([^\n]{0,120})"),
        what="its kernel has panicked: {0}",
        advice="the lines before say why; 'armvm logs {name}' has them all. A root file system "
        "or an init that is missing or broken is the usual cause",
    ),
    _Sign(
        key="firmware-exception",
        pattern=re.compile(r"Synchronous Exception at (0x[0-9A-Fa-f]+)"),
        what="its firmware, or the boot loader it runs, has crashed at {0}",
        advice="the image's boot loader does not suit this firmware: try another image",
    ),
    _Sign(
        key="uefi-shell",
        pattern=re.compile(r"^(?:Shell|FS\d+:[^\n]{0,80})> ?\Z", re.M),
        what="its firmware found nothing to boot, and waits in the UEFI shell",
        advice="the image has no boot loader for ARM64 (EFI/BOOT/BOOTAA64.EFI): use another one",
    ),
    _Sign(
        key="no-boot-device",
        pattern=re.compile(
            r"No bootable (?:option or )?device(?: was found)?|Press any key to enter the Boot "
            r"Manager Menu|map: No mapping found"
        ),
        what="its firmware found no bootable device",
        advice="the image has no boot loader for ARM64 (EFI/BOOT/BOOTAA64.EFI): use another one",
    ),
    _Sign(
        key="grub",
        pattern=re.compile(r"^(grub(?: rescue)?)> ?\Z", re.M),
        what="its boot loader waits at the prompt of {0}",
        advice="it has not found its configuration or a kernel; 'armvm console {name}' leads there",
    ),
    _Sign(
        key="emergency",
        pattern=re.compile(
            r"You are in (emergency|rescue) mode|Give root password for maintenance|"
            r"Press Enter for maintenance"
        ),
        what="it has stopped in systemd's emergency mode",
        advice="a file system that cannot be mounted is the usual cause: 'armvm console {name}', "
        "then 'systemctl --failed' and 'journalctl -b -p err'",
    ),
    _Sign(
        key="initramfs",
        pattern=re.compile(r"Entering emergency mode|^(?:\(initramfs\)|dracut:/#) ?\Z", re.M),
        what="its initramfs has not found the root file system, and waits at a prompt",
        advice="root= on the kernel's command line, or a driver that the initramfs has not: "
        "'armvm console {name}' leads there",
    ),
    _Sign(
        key="memory",
        pattern=re.compile(r"Out of memory: Killed process \d+ \(([^)\n]{1,40})\)"),
        what="it has too little memory: the kernel has killed {0}",
        advice="give it more: armvm stop --force {name}, armvm resize {name} --mem 2G",
        fatal=False,
    ),
    _Sign(
        key="disk",
        pattern=re.compile(r"I/O error, dev (\w+)"),
        what="its disk {0} gives errors",
        advice="see whether the host's disk is full: df -h",
        fatal=False,
    ),
)


def named(name: str, log: str) -> Finding | None:
    """Return the trouble that a machine's (cleaned) serial log names; None where it names none."""
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
