"""The settings of a machine, each declared once.

Options of `armvm create` and their help, ``ARMVM_*`` variables, keys of config.toml and presets,
`armvm config show`, the fields of `armvm.settings.machine.Machine`, what the domain's metadata
keeps and what a golden must match are derived from this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from armvm.settings.size import GIB, parse_disk, parse_memory, size_label


class InShape(Enum):
    """When a golden's shape has a setting."""

    ALWAYS = "always"
    #: Only if it is not the default: older goldens, whose shape lacks the key, still fit.
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    *key* is its name in config.toml, *field* in a Machine. *read* returns the value of what was
    written and raises ValueError or ConfigError; *write* returns text that *read* takes. A
    *default* of None depends on host or image: *default_text* says how, and *example* is a value.
    *off* is the option that says no, for what is on or off. *kept*: the domain's metadata records
    it. *shape*: a golden must share it with its clones.
    """

    key: str
    read: Callable[[Any], Any]
    default: Any
    help: str
    field: str
    write: Callable[[Any], str] = str
    default_text: str = ""
    example: str | None = None
    off: str = ""
    kept: bool = True
    shape: InShape | None = None

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"ARMVM_{self.key.upper()}"

    @property
    def flags(self) -> str:
        """The option: ``--cpus``, ``--motd/--no-motd``."""
        return f"--{self.key}/--{self.off}" if self.off else f"--{self.key}"

    def in_shape(self, value: Any) -> bool:
        """Tell whether the shape of a golden with this value has it."""
        return self.shape is InShape.ALWAYS or (
            self.shape is InShape.CHANGED and value != self.default
        )

    @property
    def option_help(self) -> str:
        """The option's help, with its default."""
        return f"{self.help} Default: {self.default_text}."


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("expected an integer")
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("expected an integer") from None


def _memory(value: Any) -> int:
    return parse_memory(str(value))


def _disk(value: Any) -> int:
    return parse_disk(str(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise ValueError("expected true or false")


def _value(
    key: str,
    read: Callable[[Any], Any],
    default: Any,
    help: str,
    *,
    write: Callable[[Any], str] = str,
    default_text: str = "",
    **more: Any,
) -> Setting:
    """Return a setting that has a value, with its default told as it would be written."""
    return Setting(
        **{"field": key, **more},
        key=key,
        read=read,
        write=write,
        default=default,
        default_text=default_text or write(default),
        help=help,
    )


def _on_or_off(
    key: str,
    default: bool,
    help: str,
    *,
    off: str = "",
    shape: InShape | None = None,
) -> Setting:
    """Return a setting that is on or off."""
    off = off or f"no-{key}"
    return Setting(
        key=key,
        field=key,
        read=_switch,
        default=default,
        default_text=key if default else off,
        help=help,
        off=off,
        shape=shape,
    )


SETTINGS: Mapping[str, Setting] = {
    setting.key: setting
    for setting in (
        _value("cpus", _integer, 2, "vCPUs.", shape=InShape.ALWAYS),
        _value(
            "mem",
            _memory,
            2048,
            "Memory in MiB, or with a unit: 4G.",
            field="memory_mib",
            shape=InShape.ALWAYS,
        ),
        _value(
            "disk",
            _disk,
            10 * GIB,
            "Disk size in GiB, or with a unit: 20G.",
            write=size_label,
            shape=InShape.ALWAYS,
        ),
        _value(
            "image",
            _text,
            "ubuntu:24.04",
            "ubuntu:24.04, ubuntu:noble, ubuntu:24.04/SERIAL, local:debian-12, a file, or a URL "
            "with #sha256=….",
            kept=False,
        ),
        _value(
            "user",
            _text,
            None,
            "The guest's user.",
            default_text="the distribution's own, such as ubuntu or debian",
            example="alice",
            kept=False,
        ),
        _value(
            "network",
            _text,
            None,
            "A libvirt network, or user (QEMU user networking). armvm creates the network armvm.",
            default_text="armvm; in qemu:///session: user",
            example="default",
        ),
        _value(
            "cpu",
            _text,
            None,
            "A CPU model.",
            field="cpu_model",
            default_text="cortex-a57; with KVM: host-passthrough",
            example="cortex-a72",
        ),
        _on_or_off(
            "headless",
            False,
            "Whether it has no video and input devices.",
            off="graphics",
            shape=InShape.ALWAYS,
        ),
        _on_or_off(
            "autologin", True, "Whether the console logs in automatically.", shape=InShape.ALWAYS
        ),
        _on_or_off(
            "motd",
            True,
            "Whether a login runs the scripts that make the message of the day; without them it "
            "is quicker.",
            shape=InShape.CHANGED,
        ),
        _on_or_off(
            "fast",
            False,
            "Boot quicker, for machines that can be made again: the disk is not flushed "
            "(cache=unsafe: a crash of the host may ruin it), and the kernel is the image's, "
            "loaded from outside (one that the guest installs later is not booted), with little "
            "mounted early, and on Debian the network set up without netplan.",
            shape=InShape.CHANGED,
        ),
        _on_or_off(
            "tuned",
            False,
            "Make it from a tuned form of its image: the preset's packages installed, package "
            "lists fetched, snapd and the timers of automatic upgrades off. The first time, that "
            "form is made by a boot of its own, and kept.",
        ),
    )
}
