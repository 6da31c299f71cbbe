"""Writing to the kernel's binfmt_misc: mount, register, enable, remove."""

from __future__ import annotations

from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, Conflict, HostError, MissingCapability, PermissionDenied

#: What the kernel answers to a line, by errno's name in Python.
_INVALID = "it refuses the line, or it cannot open the interpreter (flag F); it does not say which"


def mount(root: Path) -> None:
    """Mount binfmt_misc; raises MissingCapability where the kernel has none."""
    try:
        process.run(["mount", "-t", "binfmt_misc", "binfmt_misc", root])
    except ArmvmError as error:
        raise MissingCapability(
            "binfmt_misc cannot be mounted, so this kernel runs no ARM64 programs",
            detail=error.detail or error.message,
            hint="modprobe binfmt_misc, or run this outside the container",
        ) from error


def register(root: Path, line: str) -> None:
    """Register a handler. Raises Conflict where its name is taken, PermissionDenied, HostError."""
    try:
        (root / "register").write_bytes(line.encode())
    except FileExistsError as error:
        name = line.split(":")[1]
        raise Conflict(
            f"a binfmt handler {name} is registered already",
            hint=f"armvm binfmt status shows it; it is {root / name}",
        ) from error
    except PermissionError as error:
        raise refused(error) from error
    except OSError as error:
        raise HostError(
            f"the kernel does not register the handler: {error.strerror}",
            detail=f"{_INVALID}: {line}",
            hint="is the interpreter a file that may be executed?",
        ) from error


def control(root: Path, name: str, word: str) -> None:
    """Enable ("1"), disable ("0") or remove ("-1") a handler. Raises PermissionDenied."""
    try:
        (root / name).write_text(word)
    except FileNotFoundError:
        if word != "-1":
            raise Conflict(f"the handler {name} was removed meanwhile", hint="try again") from None
    except OSError as error:
        raise refused(error) from error


def refused(error: OSError) -> PermissionDenied:
    """Return the error for a kernel that lets nothing be changed."""
    return PermissionDenied(
        f"the kernel refuses to change its binfmt handlers: {error.strerror}",
        hint="in a container, register the handler on the host instead",
    )
