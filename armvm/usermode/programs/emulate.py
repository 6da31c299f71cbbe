"""One foreign program, run by QEMU's user mode now: no machine, no binfmt handler, no root."""

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

#: (e_machine, bits, little endian) of an ELF header, and what QEMU calls the architecture: those
#: that have handlers, and those that only run. The machines' numbers are the ELF specification's.
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

#: Where Debian's and Fedora's cross compilers keep the libraries of an architecture.
SYSROOTS: Mapping[str, tuple[str, ...]] = {
    one.name: tuple(f"/usr/{triplet}{end}" for triplet in one.triplets for end in ("", "/sys-root"))
    for one in architectures.ARCHITECTURES
}

#: Debian's names of the architectures that `armvm rootfs create` makes.
DEBIAN: Mapping[str, str] = {"aarch64": "arm64", "arm": "armhf"}

#: "max" has every feature that QEMU knows. Its pointer authentication is, by default, the
#: architected cipher, which takes most of the time of programs built for it (Debian 13's);
#: implementation-defined, a QEMU property since 6.0, it is as quick as any other instruction.
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
    """Return QEMU's name of the architecture that an ELF *header* names; None for anything else."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2):
        return None
    little = header[5] == 1
    machine = int.from_bytes(header[18:20], "little" if little else "big")
    return ARCHITECTURES.get((machine, 32 * header[4], little))


def look(path: Path) -> Program:
    """Read what kind of program *path* is.

    Raises NotFound, PermissionDenied, ConfigError for a file that is no program of a known
    architecture.
    """
    try:
        with path.open("rb") as file:
            if not path.is_file():
                raise ConfigError(f"{path} is no file", hint="name a program")
            header = file.read(64)
            architecture = architecture_of(header)
            if architecture is None:
                script = " (a script: emulate its interpreter)" if header[:2] == b"#!" else ""
                raise ConfigError(
                    f"{path} is no program for a processor that QEMU's user mode has{script}",
                    hint="file PROGRAM tells what a file is",
                )
            found = elf.parse(file)
            loader = found.loader if found is not None else None
            if not os.access(path, os.X_OK):
                raise PermissionDenied(
                    f"{path} may not be executed", hint=f"chmod +x {shlex.quote(str(path))}"
                )
            return Program(path=path, architecture=architecture, loader=loader)
    except FileNotFoundError as error:
        raise NotFound(f"there is no program {shown(str(path))}", hint="name its path") from error
    except PermissionError as error:
        raise PermissionDenied(
            f"{path} cannot be read: {error.strerror}", hint="chmod +r it, or run this as its owner"
        ) from error
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{shown(str(path))} cannot be read: {error}",
            hint="if its header is damaged, get it anew",
        ) from error


def qemu_for(architecture: str, path: str | None = None) -> str:
    """Return QEMU's user-mode program for an architecture: the static one if there is one.

    It is looked for in the directories of *path*, programs.search_path() by default. Raises
    MissingCapability.
    """
    where = programs.search_path() if path is None else path
    for name in interpreter.names(architecture):
        found = shutil.which(name, path=where)
        if found is not None:
            return found
    raise interpreter.missing(architecture)


def takes_quick_cpu(qemu: str) -> bool:
    """Tell whether a QEMU for aarch64 has implementation-defined pointer authentication.

    It is asked, since distributions patch: an unknown property is said before anything else.
    """
    done = process.run([qemu, "/", "/"], env={"QEMU_CPU": QUICK}, check=False, timeout=60)
    return b"pauth-impdef" not in done.stderr and b"CPU model" not in done.stderr


def cpu_for(architecture: str, qemu: str) -> str | None:
    """Return the processor to emulate; None leaves it to QEMU, whose default then is the best."""
    if architecture != "aarch64":
        return MAX if architecture == "arm" else None
    return QUICK if takes_quick_cpu(qemu) else MAX


def check_cpu(model: str) -> str:
    """Return *model* if it can be one of QEMU's processors, else raise ConfigError."""
    if _CPU.match(model):
        return model
    raise ConfigError(
        f"{shown(model)} cannot be a processor's name",
        hint="cortex-a57, or max,sve=off; qemu-aarch64-static -cpu help lists them",
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
    """Return the command line that runs a *program*; *name* is what it finds in argv[0].

    *sysroot* is where a dynamic program's loader and libraries are. *has* tells whether a root
    file system has a file. *machine* is the host's (as uname -m says), *path* where QEMU is looked
    for. Raises ConfigError for a program that needs no emulation, MissingCapability without QEMU
    or where the loader is missing.
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
    """Raise MissingCapability where a dynamic program would not find its loader."""
    loader = program.loader
    if loader is None or (sysroot is not None and has(sysroot, loader)):
        return
    if Path(loader).is_file():  # of this architecture, beside the host's own (Debian's multiarch)
        return
    debian = DEBIAN.get(program.architecture)
    ways = [
        f"--sysroot {where}"
        for where in SYSROOTS.get(program.architecture, ())
        if has(Path(where), loader)
    ]
    if debian:
        ways.append("--image debian:12, which fetches them")
        ways.append(f"armvm rootfs create DIR --image debian:12 --arch {debian}, then --sysroot")
    where = f"{sysroot} has no such file" if sysroot else "there is none here"
    raise MissingCapability(
        f"{program.path.name} is dynamic, and wants the loader {shown(loader)}: {where}",
        hint="; or ".join(ways) or f"--sysroot DIR with the libraries of {program.architecture}",
    )
