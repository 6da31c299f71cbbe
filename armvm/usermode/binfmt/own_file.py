"""What armvm registered for an architecture: kept in the file that registers it at boot.

A handler from armvm lasts as long as its file in /etc/binfmt.d, and that file is the only record:
its line is what is registered now. Of other tools' handlers nothing has to be kept, since
armvm never removes one: it registers its own beside it, and the kernel takes the latest. So what
was there is there again, in the same order, once armvm's is gone; also a handler whose
interpreter was deleted (flag F: it lives in the kernel alone and could never be registered again).

Names follow from that. Where nobody has it, the handler is called ``qemu-ARCH`` as everywhere,
and its file /etc/binfmt.d/qemu-ARCH.conf, which by binfmt.d(5) hides a distribution's file of the
same name: one handler an architecture, also after the next boot. Where another's handler or file
has that name, armvm's is called ``armvm-ARCH``, and its file zz-armvm-ARCH.conf: systemd-binfmt
goes by the names of files, so it is the latest at boot too.
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
