"""The kernel's binfmt_misc: is there a handler that runs aarch64 programs, and if not, make one.

The kernel hands a program whose first bytes match a handler's magic (under its mask) to the
handler's interpreter. Format of the files and of the registration line: the kernel's
Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armvm import process
from armvm.errors import ArmvmError, MissingCapability, PermissionDenied

#: Where the kernel's file system of handlers is mounted.
ROOT = Path("/proc/sys/fs/binfmt_misc")

#: What an aarch64 ELF file begins with, and which bits of that count: class 64, little endian,
#: type executable or shared object, machine 0xb7. As QEMU's qemu-binfmt-conf.sh has them.
MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")

#: The name Debian and QEMU give the handler.
NAME = "qemu-aarch64"

#: P keeps argv[0], O hands over an open file, F opens the interpreter at once, so that it works
#: in other root file systems too. Not C (credentials from the program): with it, a setuid
#: program of any user's making runs QEMU as root, which is why Debian dropped it in 2025.
FLAGS = "POF"

#: Where interpreters are, the best first: Debian's name that tells QEMU about P, then others.
INTERPRETERS = (
    Path("/usr/libexec/qemu-binfmt/aarch64-binfmt-P"),
    Path("/usr/bin/qemu-aarch64-static"),
)


@dataclass(frozen=True, kw_only=True)
class Handler:
    """A registered handler, as its file in binfmt_misc shows it."""

    name: str
    enabled: bool
    interpreter: str
    flags: str
    offset: int = 0
    magic: bytes = b""
    mask: bytes = b""

    def takes(self, header: bytes) -> bool:
        """Tell whether a program that begins with *header* is this handler's."""
        part = header[self.offset : self.offset + len(self.magic)]
        if not self.magic or len(part) < len(self.magic):
            return False
        mask = self.mask or b"\xff" * len(self.magic)
        return all((a ^ b) & m == 0 for a, b, m in zip(part, self.magic, mask, strict=True))

    @property
    def fixed(self) -> bool:
        """Whether the interpreter was opened at registration (flag F)."""
        return "F" in self.flags


def parse(name: str, text: str) -> Handler:
    """Return the handler that the kernel describes with *text*."""
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        key, _, value = line.partition(" ")
        fields[key.rstrip(":")] = value.strip()
    return Handler(
        name=name,
        enabled=text.startswith("enabled"),
        interpreter=fields.get("interpreter", ""),
        flags=fields.get("flags", ""),
        offset=int(fields.get("offset", "0")),
        magic=bytes.fromhex(fields.get("magic", "")),
        mask=bytes.fromhex(fields.get("mask", "")),
    )


def registration(interpreter: Path) -> str:
    """Return the line that registers *interpreter* for aarch64 programs."""
    magic, mask = ("".join(f"\\x{byte:02x}" for byte in part) for part in (MAGIC, MASK))
    return f":{NAME}:M:0:{magic}:{mask}:{interpreter}:{FLAGS}"


def handlers(root: Path = ROOT) -> Iterator[Handler]:
    """Yield what is registered; nothing where binfmt_misc is not mounted at *root*."""
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path.name not in ("register", "status"):
            yield parse(path.name, path.read_text())


def aarch64_handler(root: Path = ROOT) -> Handler | None:
    """Return the handler for aarch64 programs: an enabled one first, None if there is none."""
    found = [handler for handler in handlers(root) if handler.takes(MAGIC)]
    return next((h for h in found if h.enabled), found[0] if found else None)


def is_native(machine: str | None = None) -> bool:
    """Tell whether a host (this one by default) runs aarch64 programs by itself."""
    return (machine or platform.machine()) in ("aarch64", "arm64")


def ensure_handler(
    root: Path = ROOT,
    *,
    machine: str | None = None,
    uid: int | None = None,
    interpreters: tuple[Path, ...] = INTERPRETERS,
) -> Handler | None:
    """See to it that aarch64 programs run here, also in another root file system.

    Returns the handler that does it, or None on an aarch64 host, which needs none. As root,
    binfmt_misc is mounted and a handler registered where that is missing; a handler that is
    enabled is never replaced, a disabled one is enabled. Raises MissingCapability with the
    command that mends it for an ordinary user, for a handler without flag F, and where there
    is no interpreter.
    """
    if is_native(machine):
        return None
    privileged = (os.geteuid() if uid is None else uid) == 0
    handler = aarch64_handler(root)
    if handler is not None and handler.enabled:
        if handler.fixed:
            return handler
        raise MissingCapability(
            f"the binfmt handler {handler.name} has no flag F, so it works in no other root "
            "file system",
            detail=f"interpreter {handler.interpreter}, flags {handler.flags or 'none'}",
            hint=f"remove it (as root: echo -1 > {root / handler.name}), then try again",
        )
    if handler is not None:
        if not privileged:
            raise MissingCapability(
                f"the binfmt handler {handler.name} is disabled",
                hint=f"sudo sh -c {shlex.quote(f'echo 1 > {root / handler.name}')}",
            )
        _write(root / handler.name, "1")
    else:
        interpreter = next((path for path in interpreters if path.exists()), None)
        if interpreter is None:
            raise MissingCapability(
                "there is no qemu-aarch64-static, which runs ARM64 programs on this host",
                hint="apt-get install qemu-user-static (or: dnf install qemu-user-static-aarch64)",
            )
        line = registration(interpreter)
        if not privileged:
            raise MissingCapability(
                "no binfmt handler runs ARM64 programs here, and only root can register one",
                hint=f"sudo sh -c {shlex.quote(_commands(root, line))}",
            )
        if not (root / "register").exists():
            _mount(root)
            handler = aarch64_handler(root)
            if handler is not None and handler.enabled:
                return ensure_handler(root, machine=machine, uid=uid, interpreters=interpreters)
        _write(root / "register", line)
    handler = aarch64_handler(root)
    if handler is None or not handler.enabled:
        raise MissingCapability(
            "the kernel took the binfmt handler for ARM64 programs, but does not show it",
            hint=f"look at {root}",
        )
    return handler


def _commands(root: Path, line: str) -> str:
    """Return the shell commands that mount binfmt_misc where needed, and register."""
    register = root / "register"
    return (
        f"[ -e {register} ] || mount -t binfmt_misc binfmt_misc {root}; "
        f"printf %s {shlex.quote(line)} > {register}"
    )


def _mount(root: Path) -> None:
    """Mount binfmt_misc; raises MissingCapability where the kernel has none."""
    try:
        process.run(["mount", "-t", "binfmt_misc", "binfmt_misc", root])
    except ArmvmError as error:
        raise MissingCapability(
            "binfmt_misc cannot be mounted, so this kernel runs no ARM64 programs",
            detail=error.detail or error.message,
            hint="modprobe binfmt_misc, or run this outside the container",
        ) from error


def _write(path: Path, text: str) -> None:
    """Write to a file of binfmt_misc."""
    try:
        path.write_text(text)
    except OSError as error:
        raise PermissionDenied(
            f"the kernel refuses to change its binfmt handlers: {error.strerror}",
            hint="in a container, register the handler on the host instead",
        ) from error
