"""The settings of a machine, each declared once.

This table defines the options of `armvm create` with their help, the ``ARMVM_*`` variables, the
keys of config.toml and presets, the output of `armvm config show`, the fields of
`armvm.settings.machine.Machine`, the domain's metadata and the shape that a golden must match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from armvm.settings.networks import read_networks
from armvm.settings.size import GIB, parse_disk, parse_memory, size_label


class InShape(Enum):
    """When a setting is part of a golden's shape."""

    ALWAYS = "always"
    #: Only if it differs from the default: older goldens lack the key and must still match.
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    *key* is its name in config.toml, *field* its name in a Machine. *read* parses a value and
    raises ValueError or ConfigError; *write* returns text that *read* accepts. If *default* is
    None, the default depends on the host or the image: *default_text* describes it, *example* is
    a valid value. *off* names the option that turns a switch off. With *kept*, the domain's
    metadata records the setting. *shape* says when a golden and its clones must share it.
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
        """The name of the environment variable."""
        return f"ARMVM_{self.key.upper()}"

    @property
    def flags(self) -> str:
        """The option as typer declares it: ``--cpus``, ``--motd/--no-motd``."""
        return f"--{self.key}/--{self.off}" if self.off else f"--{self.key}"

    def in_shape(self, value: Any) -> bool:
        """Return whether a golden's shape includes the setting with this value."""
        return self.shape is InShape.ALWAYS or (
            self.shape is InShape.CHANGED and value != self.default
        )

    @property
    def option_help(self) -> str:
        """The help text of the option, with its default."""
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
    """Return a setting with a value. *default_text* defaults to the written default."""
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
        _value("cpus", _integer, 2, "Number of vCPUs.", shape=InShape.ALWAYS),
        _value(
            "mem",
            _memory,
            2048,
            "Memory: MiB, or with a suffix (4G).",
            field="memory_mib",
            shape=InShape.ALWAYS,
        ),
        _value(
            "disk",
            _disk,
            10 * GIB,
            "Disk size: GiB, or with a suffix (20G).",
            write=size_label,
            shape=InShape.ALWAYS,
        ),
        _value(
            "image",
            _text,
            "ubuntu:24.04",
            "Image: ubuntu:24.04, ubuntu:noble, ubuntu:24.04/SERIAL, local:debian-12, a file, or a "
            "URL with #sha256=….",
            kept=False,
        ),
        _value(
            "user",
            _text,
            None,
            "User to create in the guest.",
            default_text="the distribution's user, such as ubuntu or debian",
            example="alice",
            kept=False,
        ),
        _value(
            "network",
            read_networks,
            None,
            "libvirt network, user for QEMU's user networking, bridge=DEVICE or macvtap=DEVICE. "
            "Repeatable: one network card each; armvm logs in through the first. armvm creates the "
            "network armvm.",
            default_text="armvm; with qemu:///session: user",
            example="default",
        ),
        _value(
            "ip",
            _text,
            None,
            "IPv4 address to reserve for the machine on its first network.",
            default_text="any free one",
            example="192.168.128.50",
        ),
        _value(
            "cpu",
            _text,
            None,
            "CPU model.",
            field="cpu_model",
            default_text="cortex-a57; with KVM: host-passthrough",
            example="cortex-a72",
        ),
        _on_or_off(
            "headless",
            False,
            "Leave out or include video and input devices.",
            off="graphics",
            shape=InShape.ALWAYS,
        ),
        _on_or_off("autologin", True, "Log in on the console automatically.", shape=InShape.ALWAYS),
        _on_or_off(
            "motd",
            True,
            "Run the message-of-the-day scripts at login. Logins are faster without them.",
            shape=InShape.CHANGED,
        ),
        _on_or_off(
            "fast",
            False,
            "Boot faster, for machines that you can recreate. Disk writes are not flushed "
            "(cache=unsafe): a host crash may corrupt the disk. QEMU loads the image's kernel: a "
            "kernel installed later in the guest is not booted. Fewer file systems are mounted "
            "early, and Debian sets up the network without netplan. An emulated kernel does not "
            "isolate its page tables (kpti=0).",
            shape=InShape.CHANGED,
        ),
        _on_or_off(
            "tuned",
            False,
            "Create the machine from a tuned copy of its image: the preset's packages installed, "
            "package lists fetched, snapd and automatic upgrades off. The first use boots the "
            "image once to make the copy, and keeps it.",
        ),
    )
}
