"""The result of `armvm binfmt explain`: a file, its handlers and the result of running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.result import Doc, Hex
from armvm.usermode.binfmt.execution import Explanation, Kind, Outcome
from armvm.usermode.binfmt.handlers import ROOT, Handler, read
from armvm.usermode.binfmt.outcome import explain as explain_file
from armvm.usermode.programs.elf import Elf
from armvm.usermode.programs.interpreter import Program
from armvm.usermode.programs.libraries import Wanted


@dataclass(frozen=True, kw_only=True)
class ElfDetails:
    """The ELF headers of a file."""

    class_: Annotated[int | None, Doc("32 or 64 bits; null: the header is invalid.")]
    data: Annotated[str | None, Doc("The byte order.")]
    type: Annotated[str, Doc("The file's type.")]
    machine: Annotated[str, Doc("The machine.")]
    machine_number: Annotated[int, Doc("The machine's number in the header.")]
    os_abi: Annotated[int, Doc("The OS/ABI byte.")]
    interpreter: Annotated[str | None, Doc("The loader, PT_INTERP.")]
    linking: Annotated[str, Doc("Whether it needs a loader.", enum=["static", "dynamic"])]
    needed: Annotated[list[str], Doc("Names of the libraries that it needs.")]
    runpath: Annotated[list[str], Doc("Its own directories for libraries.")]
    problems: Annotated[list[str], Doc("What is damaged.")]


@dataclass(frozen=True, kw_only=True)
class HandlerMatch:
    """A handler, and the file's bytes that it compares."""

    name: Annotated[str, Doc("Its name.")]
    enabled: Annotated[bool, Doc("Whether the kernel uses it.")]
    interpreter: Annotated[str, Doc("The program that it runs.")]
    flags: Annotated[str, Doc("Its flags.")]
    takes: Annotated[bool, Doc("Whether its magic matches.")]
    offset: Annotated[int, Doc("Where the magic begins.", minimum=0)]
    magic: Annotated[Hex, Doc("The bytes that it requires.")]
    mask: Annotated[Hex, Doc("Which bits of them count.")]
    bytes: Annotated[Hex, Doc("The file's bytes there.")]


@dataclass(frozen=True, kw_only=True)
class InterpreterDetails:
    """The interpreter of the handler that takes the file."""

    path: Annotated[str, Doc("As registered.")]
    resolved: Annotated[str | None, Doc("With links followed.")]
    version: Annotated[str | None, Doc("Its version.")]
    static: Annotated[bool | None, Doc("Whether it is linked statically.")]
    problem: Annotated[str | None, Doc("Why it cannot be run by its path.")]


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """A file that the program needs."""

    name: Annotated[str, Doc("Its name.")]
    found: Annotated[str | None, Doc("Where it is found.")]
    elsewhere: Annotated[
        str | None, Doc("A directory that has it, and that QEMU_LD_PREFIX would have to name.")
    ]


@dataclass(frozen=True, kw_only=True)
class ExplainedFile:
    """What a file is, and what happens when it is run."""

    path: Annotated[str, Doc("The file.")]
    kind: Annotated[Kind, Doc("What it is.")]
    header: Annotated[Hex, Doc("Its first 20 bytes, in hexadecimal.")]
    elf: Annotated[ElfDetails | None, Doc("The ELF headers; null: not an ELF file.")]
    architecture: Annotated[str | None, Doc("The foreign architecture, by QEMU's name.")]
    native: Annotated[bool, Doc("Whether this host's kernel runs it without a handler.")]
    handler: Annotated[str | None, Doc("The handler that takes it.")]
    handlers: Annotated[
        list[HandlerMatch],
        Doc("The handlers that take it or are for its architecture, latest first."),
    ]
    interpreter: Annotated[
        InterpreterDetails | None, Doc("The handler's interpreter; null: no handler takes it.")
    ]
    loader: Annotated[WantedFile | None, Doc("The loader; null: it needs none.")]
    libraries: Annotated[list[WantedFile], Doc("The libraries that it names itself.")]
    script: Annotated[str | None, Doc("The interpreter in its #! line.")]
    outcome: Annotated[
        Outcome, Doc("The result of execve; fails later: after the kernel has started it.")
    ]
    happens: Annotated[str, Doc("What happens, in words.")]
    fix: Annotated[str | None, Doc("How to fix it.")]


def explain(
    path: Path,
    sysroot: Path | None,
    environment: Mapping[str, str],
    *,
    root: Path = ROOT,
    machine: str | None = None,
) -> ExplainedFile:
    """Return a file's type, the handlers that match it, and the result of running it.

    Raises NotFound, PermissionDenied.
    """
    found = explain_file(
        path,
        read(root),
        sysroot=str(sysroot) if sysroot else None,
        environment=environment,
        machine=machine,
    )
    return _facts(found)


def _facts(found: Explanation) -> ExplainedFile:
    return ExplainedFile(
        path=str(found.path).encode(errors="replace").decode(),
        kind=found.kind,
        header=found.header[:20].hex(),
        elf=_elf(found.elf) if found.elf else None,
        architecture=found.architecture.name if found.architecture else None,
        native=found.native,
        handler=found.winner.name if found.winner else None,
        handlers=[_handler(one, found) for one in found.candidates],
        interpreter=interpreter_details(found.program) if found.program else None,
        loader=_wanted(found.loader) if found.loader else None,
        libraries=[_wanted(one) for one in found.libraries],
        script=found.script,
        outcome=found.outcome,
        happens=found.happens,
        fix=found.fix,
    )


def _elf(elf: Elf) -> ElfDetails:
    order = {True: "little endian", False: "big endian", None: None}
    return ElfDetails(
        class_=elf.bits,
        data=order[elf.little],
        type=elf.type_name,
        machine=elf.machine_name,
        machine_number=elf.machine,
        os_abi=elf.abi,
        interpreter=elf.loader,
        linking="static" if elf.static else "dynamic",
        needed=list(elf.needed),
        runpath=list(elf.runpath),
        problems=list(elf.problems),
    )


def _handler(handler: Handler, found: Explanation) -> HandlerMatch:
    return HandlerMatch(
        name=handler.name,
        enabled=handler.enabled,
        interpreter=handler.interpreter,
        flags=handler.flags,
        takes=handler.takes(found.header),
        offset=handler.offset,
        magic=handler.magic.hex(),
        mask=handler.full_mask.hex(),
        bytes=found.header[handler.offset : handler.offset + len(handler.magic)].hex(),
    )


def interpreter_details(program: Program) -> InterpreterDetails:
    """Return the details of a handler's interpreter."""
    return InterpreterDetails(
        path=program.path,
        resolved=program.resolved,
        version=program.version,
        static=program.static,
        problem=program.problem,
    )


def _wanted(one: Wanted) -> WantedFile:
    return WantedFile(name=one.name, found=one.path, elsewhere=one.elsewhere)
