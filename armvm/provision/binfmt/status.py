"""The results of `armvm binfmt status` and `conf`: this host's binfmt handlers."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from armvm.base.errors import ConfigError, MissingCapability
from armvm.base.result import Doc, Hex
from armvm.usermode.architectures import ARCHITECTURES, NATIVE, Architecture, find, of_header
from armvm.usermode.binfmt import binfmt_d
from armvm.usermode.binfmt.handlers import ROOT, Handler, Table, read, shadows
from armvm.usermode.binfmt.origins import DATABASE, origin
from armvm.usermode.binfmt.origins import Kind as Origin
from armvm.usermode.binfmt.registration import FLAGS, line, rule_for
from armvm.usermode.programs import interpreter

#: The meaning of each flag.
FLAGS_IN_WORDS = {
    "P": "P: the program keeps its argv[0]",
    "O": "O: the interpreter gets the program as an open file, so it need not be readable",
    "C": "C: the interpreter runs with the program's credentials: "
    "any setuid program of that architecture makes QEMU run as root",
    "F": "F: the interpreter was opened at registration, so it works in chroots and containers",
}
NO_FLAG_F = "no F: the interpreter is looked up in the program's own root at each start"


@dataclass(frozen=True, kw_only=True)
class ArchitectureStatus:
    """An architecture, and the handler for its programs."""

    name: Annotated[str, Doc("QEMU's name.")]
    debian: Annotated[str | None, Doc("Debian's name.")]
    platform: Annotated[str | None, Doc("docker's name.")]
    native: Annotated[bool, Doc("Whether this host's kernel runs its programs without a handler.")]
    handler: Annotated[str | None, Doc("The handler for its programs; null: none.")]


@dataclass(frozen=True, kw_only=True)
class HandlerStatus:
    """A binfmt handler."""

    name: Annotated[str, Doc("Its name, a file in /proc/sys/fs/binfmt_misc.")]
    architecture: Annotated[
        str | None, Doc("The architecture of its programs; null: none that armvm knows.")
    ]
    enabled: Annotated[bool, Doc("Whether the kernel uses it.")]
    interpreter: Annotated[str, Doc("The program that it runs, as registered.")]
    resolved: Annotated[
        str | None, Doc("That path with links followed; null if it does not exist.")
    ]
    problem: Annotated[str | None, Doc("Why the interpreter cannot be run by its path.")]
    static: Annotated[bool | None, Doc("Whether it is linked statically; null: unknown.")]
    version: Annotated[str | None, Doc("Its version; armvm asks only a qemu-* that root owns.")]
    flags: Annotated[str, Doc("Its flags.", pattern="^[A-Z]*$")]
    flags_in_words: Annotated[list[str], Doc("What each flag means, and whether F is missing.")]
    warnings: Annotated[list[str], Doc("What is dangerous or about to fail.")]
    offset: Annotated[int, Doc("Where in a file the magic begins.", minimum=0)]
    magic: Annotated[
        Hex,
        Doc("The bytes that a file must have, in hexadecimal; empty: it matches by extension."),
    ]
    mask: Annotated[Hex, Doc("Which bits of them count, in hexadecimal; empty: all.")]
    extension: Annotated[str | None, Doc("The file name extension that it matches.")]
    registered_by: Annotated[Origin, Doc("The tool that probably registered it.")]
    declared_in: Annotated[str | None, Doc("The file that declares it.")]
    because: Annotated[str, Doc("The evidence for registered_by.")]
    shadowed_by: Annotated[str | None, Doc("The later handler that takes its programs.")]
    shadowed_wholly: Annotated[bool, Doc("Whether that handler takes all of them.")]


@dataclass(frozen=True, kw_only=True)
class BinfmtStatus:
    """The host's binfmt handlers."""

    mounted: Annotated[bool, Doc("Whether binfmt_misc is mounted.")]
    enabled: Annotated[bool, Doc("Whether the kernel uses handlers at all.")]
    order_certain: Annotated[
        bool, Doc("Whether the times of registration agree with the handlers' order.")
    ]
    architectures: Annotated[
        list[ArchitectureStatus], Doc("All known architectures, or the requested ones.")
    ]
    handlers: Annotated[
        list[HandlerStatus], Doc("The handlers, latest first: the first enabled match wins.")
    ]


def status(
    names: Sequence[str] = (),
    *,
    root: Path = ROOT,
    directories: Sequence[Path] = binfmt_d.DIRECTORIES,
    database: Path = DATABASE,
) -> BinfmtStatus:
    """Return the state of all handlers, or of those for the architectures *names*.

    Raises NotFound for an unknown architecture.
    """
    chosen = tuple(dict.fromkeys(find(name) for name in names)) or ARCHITECTURES
    table = read(root)
    declared = binfmt_d.declared(directories)
    shown = [
        (index, one)
        for index, one in enumerate(table.handlers)
        if not names or any(one.takes(arch.magic) for arch in chosen)
    ]
    return BinfmtStatus(
        mounted=table.mounted,
        enabled=table.on,
        order_certain=table.certain,
        architectures=[_architecture(one, table) for one in chosen],
        handlers=[
            _handler(one, table.handlers[:index], declared, database) for index, one in shown
        ],
    )


def conf(name: str, *, flags: str = FLAGS, program: str | None = None) -> str:
    """Return the line for binfmt.d(5) that registers an architecture's handler.

    If no interpreter is installed here, the line has its path on Debian. Raises NotFound,
    ConfigError.
    """
    architecture = find(name)
    if program is None:
        try:
            program = str(interpreter.find(architecture))
        except MissingCapability:
            program = f"/usr/bin/qemu-{architecture.name}-static"
    return line(rule_for(architecture, program, flags=flags_of(flags)))


def flags_of(text: str) -> str:
    """Return typed flags in upper case. Raises ConfigError for invalid ones."""
    flags = text.upper().replace(",", "")
    if set(flags) - set(FLAGS_IN_WORDS):
        raise ConfigError(
            f"invalid handler flags {text!r}",
            hint=f"use some of P, O, C and F, for example {FLAGS}",
        )
    return flags


def architecture_names() -> list[str]:
    """Return QEMU's names of the architectures."""
    return [one.name for one in ARCHITECTURES]


def _architecture(architecture: Architecture, table: Table) -> ArchitectureStatus:
    winner = table.winner(architecture.magic) if table.on else None
    return ArchitectureStatus(
        name=architecture.name,
        debian=architecture.debian[0] if architecture.debian else None,
        platform=architecture.platform,
        native=NATIVE.get(platform.machine()) == architecture.name,
        handler=winner.name if winner else None,
    )


def _handler(
    handler: Handler,
    newer: Sequence[Handler],
    declared: Sequence[binfmt_d.Declared],
    database: Path,
) -> HandlerStatus:
    program = interpreter.look(handler.interpreter)
    who = origin(handler, declared, database=database, present=program.problem is None)
    shadow = shadows(handler, newer)
    architecture = of_header(handler.magic.ljust(20, b"\0")) or _by_magic(handler)
    return HandlerStatus(
        name=handler.name,
        architecture=architecture.name if architecture else None,
        enabled=handler.enabled,
        interpreter=handler.interpreter,
        resolved=program.resolved,
        problem=program.problem,
        static=program.static,
        version=program.version,
        flags=handler.flags,
        flags_in_words=[FLAGS_IN_WORDS[flag] for flag in handler.flags if flag in FLAGS_IN_WORDS]
        + ([] if handler.fixed else [NO_FLAG_F]),
        warnings=_warnings(handler, program),
        offset=handler.offset,
        magic=handler.magic.hex(),
        mask=handler.mask.hex(),
        extension=handler.extension or None,
        registered_by=who.kind,
        declared_in=who.path,
        because=who.why,
        shadowed_by=shadow[0].name if shadow else None,
        shadowed_wholly=shadow[1] if shadow else False,
    )


def _by_magic(handler: Handler) -> Architecture | None:
    """Return the first architecture whose programs a handler matches; None if it matches none."""
    return next((one for one in ARCHITECTURES if handler.takes(one.magic)), None)


def _warnings(handler: Handler, program: interpreter.Program) -> list[str]:
    found = []
    if "C" in handler.flags:
        found.append(
            "flag C: any user with a setuid program of this architecture can become root "
            "(Debian dropped it in 2025)"
        )
    if program.problem and handler.fixed:
        found.append(
            f"the interpreter's path can no longer be used ({program.problem}); flag F keeps "
            "the opened file in use until the next boot"
        )
    elif program.problem:
        found.append(f"the interpreter cannot be used: {program.problem}")
    elif handler.fixed and (program.changed or 0) > (handler.registered or program.changed or 0):
        found.append(
            "the interpreter's file is newer than the registration (an upgrade?); flag F keeps the "
            "old one in use until the handler is registered again"
        )
    if handler.fixed and program.static is False:
        found.append(
            "flag F with a dynamic interpreter: its loader "
            f"{program.loader} does not exist in other roots"
        )
    return found
