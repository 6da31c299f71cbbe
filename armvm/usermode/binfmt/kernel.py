"""Change the kernel's binfmt_misc: mount, register, enable, remove."""

from __future__ import annotations

from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, Conflict, HostError, MissingCapability, PermissionDenied

#: The kernel's answer to an invalid line.
_INVALID = "the line is invalid, or the kernel cannot open the interpreter (flag F)"


def mount(root: Path) -> None:
    """Mount binfmt_misc; raises MissingCapability if the kernel does not support it."""
    try:
        process.run(["mount", "-t", "binfmt_misc", "binfmt_misc", root])
    except ArmvmError as error:
        raise MissingCapability(
            "cannot mount binfmt_misc, so this kernel does not run ARM64 programs",
            detail=error.detail or error.message,
            hint="modprobe binfmt_misc, or run this outside the container",
        ) from error


def register(root: Path, line: str) -> None:
    """Register a handler. Raises Conflict if its name exists, PermissionDenied, HostError."""
    try:
        (root / "register").write_bytes(line.encode())
    except FileExistsError as error:
        name = line.split(":")[1]
        raise Conflict(
            f"binfmt handler {name} already exists",
            hint=f"see armvm binfmt status, or {root / name}",
        ) from error
    except PermissionError as error:
        raise refused(error) from error
    except OSError as error:
        raise HostError(
            f"cannot register the handler: {error.strerror}",
            detail=f"{_INVALID}: {line}",
            hint="check that the interpreter is an executable file",
        ) from error


def control(root: Path, name: str, word: str) -> None:
    """Enable ("1"), disable ("0") or remove ("-1") a handler. Raises PermissionDenied."""
    try:
        (root / name).write_text(word)
    except FileNotFoundError:
        if word != "-1":
            raise Conflict(
                f"another process removed the handler {name}", hint="try again"
            ) from None
    except OSError as error:
        raise refused(error) from error


def refused(error: OSError) -> PermissionDenied:
    """Return the error for a kernel that denies changes."""
    return PermissionDenied(
        f"cannot change the kernel's binfmt handlers: {error.strerror}",
        hint="in a container, register the handler on the host instead",
    )
