"""Run a foreign program with QEMU's user mode: no machine, no binfmt handler, no root."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process, programs
from armvm.base.errors import ConfigError, MissingCapability, NotFound, PermissionDenied
from armvm.settings.names import shown
from armvm.usermode import architectures
from armvm.usermode.programs import elf, interpreter

#: (e_machine, bits, little endian) of an ELF header, and QEMU's name of the architecture, with and
#: without a handler in armvm. The machine numbers are from the ELF specification.
ARCHITECTURES: Mapping[tuple[int, int, bool], str] = {
    **{(one.machine, one.bits, one.little): one.name for one in architectures.ARCHITECTURES},
    (183, 64, False): "aarch64_be",
    (243, 32, True): "riscv32",
    (21, 64, False): "ppc64",
    (20, 32, False): "ppc",
    (258, 64, True): "loongarch64",
    (8, 32, False): "mips",
    (8, 32, True): "mipsel",
    (8, 64, False): "mips64",
    (8, 64, True): "mips64el",
    (62, 64, True): "x86_64",
    (3, 32, True): "i386",
}

#: Directories of Debian's and Fedora's cross compilers for an architecture's libraries.
SYSROOTS: Mapping[str, tuple[str, ...]] = {
    one.name: tuple(f"/usr/{triplet}{end}" for triplet in one.triplets for end in ("", "/sys-root"))
    for one in architectures.ARCHITECTURES
}

#: Debian's names of the architectures supported by `armvm rootfs create`.
DEBIAN: Mapping[str, str] = {"aarch64": "arm64", "arm": "armhf"}

#: "max" has every feature of QEMU. Its default pointer authentication is the architected cipher,
#: which takes most of the time of programs built for it (Debian 13's); the implementation-defined
#: one, a QEMU property since 6.0, is as fast as any other instruction.
MAX = "max"
QUICK = "max,pauth-impdef=on"

_CPU = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]{0,255}\Z")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A foreign program: its file, QEMU's name of its architecture, its loader (None: static)."""

    path: Path
    architecture: str
    loader: str | None


def architecture_of(header: bytes) -> str | None:
    """Return QEMU's name of the architecture in an ELF *header*; None for anything else."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2):
        return None
    little = header[5] == 1
    machine = int.from_bytes(header[18:20], "little" if little else "big")
    return ARCHITECTURES.get((machine, 32 * header[4], little))


def look(path: Path) -> Program:
    """Return the properties of the program *path*.

    Raises NotFound, PermissionDenied, ConfigError for a file that is not a program of a known
    architecture.
    """
    try:
        with path.open("rb") as file:
            if not path.is_file():
                raise ConfigError(f"{path} is not a file", hint="give the path of a program")
            header = file.read(64)
            architecture = architecture_of(header)
            if architecture is None:
                script = " (a script: emulate its interpreter)" if header[:2] == b"#!" else ""
                raise ConfigError(
                    f"{path} is not a program that QEMU's user mode supports{script}",
                    hint="show the type of a file with: file PROGRAM",
                )
            found = elf.parse(file)
            loader = found.loader if found is not None else None
            if not os.access(path, os.X_OK):
                raise PermissionDenied(
                    f"{path} is not executable", hint=f"chmod +x {shlex.quote(str(path))}"
                )
            return Program(path=path, architecture=architecture, loader=loader)
    except FileNotFoundError as error:
        raise NotFound(f"program {shown(str(path))} not found", hint="give its path") from error
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot read {path}: {error.strerror}", hint="chmod +r it, or run this as its owner"
        ) from error
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"cannot read {shown(str(path))}: {error}",
            hint="if its header is damaged, replace it by an intact copy",
        ) from error


def qemu_for(architecture: str, path: str | None = None) -> str:
    """Return QEMU's user-mode program for an architecture, a static one if possible.

    Searches the directories of *path*, programs.search_path() by default. Raises
    MissingCapability.
    """
    where = programs.search_path() if path is None else path
    for name in interpreter.names(architecture):
        found = shutil.which(name, path=where)
        if found is not None:
            return found
    raise interpreter.missing(architecture)


def takes_quick_cpu(qemu: str) -> bool:
    """Return whether a QEMU for aarch64 has implementation-defined pointer authentication.

    QEMU itself is asked, because distributions patch it; it reports an unknown property first.
    """
    done = process.run([qemu, "/", "/"], env={"QEMU_CPU": QUICK}, check=False, timeout=60)
    return b"pauth-impdef" not in done.stderr and b"CPU model" not in done.stderr


def cpu_for(architecture: str, qemu: str) -> str | None:
    """Return the processor to emulate; None for QEMU's default, if that is the best."""
    if architecture != "aarch64":
        return MAX if architecture == "arm" else None
    return QUICK if takes_quick_cpu(qemu) else MAX


def check_cpu(model: str) -> str:
    """Return *model* if it is a valid name for a processor, else raise ConfigError."""
    if _CPU.match(model):
        return model
    raise ConfigError(
        f"invalid processor name {shown(model)}",
        hint="examples: cortex-a57, max,sve=off; list them with: qemu-aarch64-static -cpu help",
    )


def command(
    program: Program,
    arguments: Sequence[str],
    *,
    name: str,
    sysroot: Path | None,
    cpu: str | None,
    has: Callable[[Path, str], bool],
    machine: str | None = None,
    path: str | None = None,
) -> list[str | Path]:
    """Return the command line that runs a *program*; *name* is its argv[0].

    *sysroot* contains a dynamic program's loader and libraries. *has* says whether a root file
    system has a file. *machine* is the host's (uname -m), *path* the search path for QEMU.
    Raises ConfigError for a program that does not need emulation, MissingCapability without QEMU
    or if the loader is missing.
    """
    if program.architecture == (machine or platform.machine()):
        raise ConfigError(
            f"{program.path} is a program for this host's own processor",
            hint="run it without armvm",
        )
    qemu = qemu_for(program.architecture, path)
    check_loader(program, sysroot, has)
    cpu = check_cpu(cpu) if cpu is not None else cpu_for(program.architecture, qemu)
    return [
        qemu,
        *(("-cpu", cpu) if cpu else ()),
        *(("-L", sysroot) if sysroot is not None else ()),
        *("-0", name, program.path),
        *arguments,
    ]


def check_loader(program: Program, sysroot: Path | None, has: Callable[[Path, str], bool]) -> None:
    """Raise MissingCapability if a dynamic program would not find its loader."""
    loader = program.loader
    if loader is None or (sysroot is not None and has(sysroot, loader)):
        return
    # Of this architecture, beside the host's own (Debian's multiarch). Path.is_file() would raise
    # OSError for a name that is too long.
    if os.path.isfile(loader):  # noqa: PTH113
        return
    debian = DEBIAN.get(program.architecture)
    ways = [
        f"--sysroot {where}"
        for where in SYSROOTS.get(program.architecture, ())
        if has(Path(where), loader)
    ]
    if debian:
        ways.append("use --image debian:12, which provides them")
        ways.append(f"armvm rootfs create DIR --image debian:12 --arch {debian}, then --sysroot")
    where = f"not found in {sysroot}" if sysroot else "not found on this host"
    raise MissingCapability(
        f"{program.path.name} is dynamic and requires the loader {shown(loader)}: {where}",
        hint="; or ".join(ways)
        or f"use --sysroot DIR with the libraries of {program.architecture}",
    )
