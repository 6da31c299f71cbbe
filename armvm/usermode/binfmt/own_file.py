"""The record of armvm's handler for an architecture: the file that registers it at boot.

armvm's handler lasts as long as its file in /etc/binfmt.d, and that file is the only record: it
contains the registered line. armvm keeps no record of other tools' handlers, because it never
removes one: it registers its own next to it, and the kernel uses the latest. After armvm's handler
is removed, the others apply again in the same order. This includes a handler whose interpreter was
deleted (flag F: only the kernel still has it, and it could not be registered again).

The names follow from that. If the name is free, the handler is called ``qemu-ARCH``, as usual, and
its file /etc/binfmt.d/qemu-ARCH.conf, which by binfmt.d(5) hides a distribution's file of the same
name: one handler for each architecture, also after the next boot. If another tool's handler or
file has that name, armvm's handler is called ``armvm-ARCH`` and its file zz-armvm-ARCH.conf:
systemd-binfmt reads files in the order of their names, so armvm's is the latest at boot too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import PermissionDenied
from armvm.base.paths import write_atomic
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt.binfmt_d import lines_of, rules_of
from armvm.usermode.binfmt.registration import Rule

#: What an own file begins with.
MARK = "# armvm binfmt register"


@dataclass(frozen=True, kw_only=True)
class Own:
    """A file that armvm wrote: *text* is its line, *rule* what that registers."""

    path: Path
    text: str
    rule: Rule


def names(architecture: Architecture) -> tuple[tuple[str, str], ...]:
    """Return the possible names of an architecture's handler, each with its file's name."""
    common, own = f"qemu-{architecture.name}", f"armvm-{architecture.name}"
    return (common, f"{common}.conf"), (own, f"zz-{own}.conf")


def read(architecture: Architecture, directory: Path) -> Own | None:
    """Return armvm's file for an architecture, or None."""
    for name, file in names(architecture):
        path = directory / file
        lines = lines_of(path)
        if not lines or not lines[0].startswith(MARK):
            continue
        found = next((one for one in rules_of(path) if one.rule.name == name), None)
        if found is not None:
            return Own(path=path, text=found.text, rule=found.rule)
    return None


def write(own: Own, architecture: Architecture) -> None:
    """Write armvm's file for an architecture. Raises PermissionDenied."""
    text = "\n".join(
        [
            f"{MARK} {architecture.name}: written and used by armvm.",
            f"# armvm binfmt unregister {architecture.name} removes it.",
            own.text,
            "",
        ]
    )
    try:
        own.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_atomic(own.path, text.encode(), mode=0o644)
        own.path.chmod(0o644)  # whatever the umask is
    except OSError as error:
        raise PermissionDenied(
            f"cannot write {own.path}: {error.strerror}",
            hint="it registers the handler at boot; check whether the file system is read-only",
        ) from error


def remove(own: Own) -> None:
    """Remove armvm's file. Raises PermissionDenied."""
    try:
        own.path.unlink(missing_ok=True)
    except OSError as error:
        raise PermissionDenied(
            f"cannot remove {own.path}: {error.strerror}", hint=f"sudo rm {own.path}"
        ) from error
