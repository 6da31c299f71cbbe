"""Read the serial log: which boot stage a guest has reached, and which errors it printed."""

from __future__ import annotations

import enum
import re

#: Escape sequences (ECMA-48 CSI and OSC) and other control characters except tab and newline,
#: including the one-character forms above 0x7f.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Stage(enum.Enum):
    """How far a boot is. In order: a later stage implies the earlier ones."""

    STARTED = "started"
    FIRMWARE = "firmware"
    KERNEL = "kernel"
    SYSTEMD = "systemd"
    CLOUD_INIT = "cloud-init"
    SSH = "ssh"
    READY = "ready"

    @property
    def order(self) -> int:
        """The stage's place in a boot, from 0."""
        return list(Stage).index(self)


#: The first sign of each stage on ttyAMA0. AAVMF: "UEFI firmware (version …)" and
#: "BdsDxe: …". Linux on arm64 begins with "EFI stub:" or "Booting Linux on physical CPU".
#: cloud-init prints "Cloud-init v. 22.4.2 running 'init-local' at …" to the console.
_SIGNS = (
    (
        Stage.CLOUD_INIT,
        re.compile(r"^(?:\[[ \d.]+\] )?(?:cloud-init\[\d+\]: )?Cloud-init v\.? ", re.M),
    ),
    (Stage.SYSTEMD, re.compile(r"systemd\[1\]: |^Welcome to (?!GRUB)", re.M)),
    (Stage.KERNEL, re.compile(r"^EFI stub: |Booting Linux on physical CPU|Linux version ", re.M)),
    (Stage.FIRMWARE, re.compile(r"UEFI firmware|BdsDxe: |^Welcome to GRUB", re.M)),
)
_ENDED = re.compile(r"reboot: (?:Restarting system|Power down|System halted)[^\n]*\n?")
_FINISHED = re.compile(r"Cloud-init v\.? \S+ finished at ")
#: agetty and busybox: the host's name, then "login:". login(1) writes "Last login: …".
_PROMPT = re.compile(r"^(?!Last )[\w.-]+ login:", re.M)
_TROUBLE = re.compile(
    r"\bfail(?:ed|ure)?\b|\berror\b|traceback|kernel panic|not found|unable to|timed out", re.I
)


def clean(raw: bytes) -> str:
    """Return a serial log's bytes as plain text: no escape sequences, no carriage returns."""
    return _ESCAPES.sub("", raw.decode(errors="replace").replace("\r", ""))


def latest_boot(log: str) -> str:
    """Return a log from its last start on: a reboot writes into the same log.

    A boot begins with the firmware; without firmware, with the kernel. The kernel's last line
    before a restart also ends a boot: nothing of the next one shows until the firmware writes.
    Source: Linux kernel/reboot.c.
    """
    log = log[max((end.end() for end in _ENDED.finditer(log)), default=0) :]
    restarts = [match.start() for match in re.finditer(r"^.*UEFI firmware", log, re.M)]
    if not restarts:
        restarts = [match.start() for match in re.finditer(r"^.*Booting Linux on", log, re.M)]
    return log[restarts[-1] :] if restarts else log


def stage_of(log: str) -> Stage:
    """Return the furthest stage that a (cleaned) serial log shows."""
    latest = latest_boot(log)
    for stage, sign in _SIGNS:
        if sign.search(latest):
            return stage
    return Stage.STARTED


def cloud_init_finished(log: str) -> bool:
    """Return whether the log's latest boot holds cloud-init's final message (its default text)."""
    return bool(_FINISHED.search(latest_boot(log)))


def has_login_prompt(log: str) -> bool:
    """Return whether the log's latest boot shows a login prompt, as getty(8) writes it."""
    return bool(_PROMPT.search(latest_boot(log)))


def tail(log: str, lines: int = 15) -> str:
    """Return the last non-empty lines of a log."""
    return "\n".join([line.rstrip() for line in log.splitlines() if line.strip()][-lines:])


def keys_of(log: str, lines: int = 10) -> str:
    """Return the last of cloud-init's lines about keys and users in the log.

    Source: cloud-init's cc_ssh_authkey_fingerprints, which prints "ci-info: …" to the console.
    """
    found = [
        line.strip()
        for line in latest_boot(log).splitlines()
        if "ci-info" in line and "uthorized" in line
    ]
    return "\n".join(found[-lines:])


def trouble(log: str, lines: int = 10) -> str:
    """Return the last of cloud-init's lines that report a failure in the log."""
    found = [
        line.strip()
        for line in latest_boot(log).splitlines()
        if "cloud-init" in line.lower() and _TROUBLE.search(line)
    ]
    return "\n".join(found[-lines:])
