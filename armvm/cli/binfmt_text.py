"""Text output of ``binfmt status``, ``explain`` and ``test``, coloured on a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from armvm.base.printable import printable

if TYPE_CHECKING:
    from armvm.provision.binfmt.explain import (
        ExplainedFile,
        HandlerMatch,
        InterpreterDetails,
        WantedFile,
    )
    from armvm.provision.binfmt.explain_image import ExplainedImage
    from armvm.provision.binfmt.status import BinfmtStatus, HandlerStatus
    from armvm.provision.binfmt.trial import ArchitectureTrials

#: How the comparison of each byte is shown: a sign that works without colour, and a colour.
_SIGNS = {
    "equal": ("=", "green"),
    "partly": ("~", "green"),
    "differs": ("x", "bold red"),
    "ignored": (".", "dim"),
    "missing": ("?", "bold red"),
}
_STATES = {"runs": "green", "fails": "bold red", "fails later": "yellow"}
_WIDEST = 100


def print_status(found: BinfmtStatus) -> None:
    """Print what `armvm.provision.binfmt.status.status` found."""
    out = _console()
    if not found.mounted:
        _line(
            out, "binfmt_misc is not mounted: this host cannot run programs of other architectures"
        )
        _line(out, "  fix: sudo mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc")
    elif not found.enabled:
        _line(
            out, "binfmt_misc is mounted but disabled: the kernel ignores all handlers", "bold red"
        )
        _line(out, "  fix: sudo sh -c 'echo 1 > /proc/sys/fs/binfmt_misc/status'")
    else:
        _line(out, "binfmt_misc is mounted and enabled; the first matching handler below is used")
    if not found.order_certain:
        _line(
            out,
            "the order is uncertain: the clock was changed while handlers were registered",
            "yellow",
        )
    for handler in found.handlers:
        _handler(out, handler)
    _line(out, "")
    for one in found.architectures:
        who = one.handler or ("the kernel itself" if one.native else "no handler")
        other = f" ({one.debian})" if one.debian else ""
        shown = Text(f"{one.name + other:<20} ")
        shown.append(printable(who), "" if one.handler or one.native else "yellow")
        out.print(shown, soft_wrap=True)


def _handler(out: Console, one: HandlerStatus) -> None:
    state = "enabled" if one.enabled else "disabled"
    out.print()
    head = Text(printable(one.name), "bold")
    head.append(f"  {state}", "green" if one.enabled else "yellow")
    head.append(f"  {one.architecture or 'architecture unknown to armvm'}")
    out.print(head, soft_wrap=True)
    said = [part for part in (one.version, _linking(one.static)) if part]
    told = f" ({', '.join(said)})" if said else ""
    _field(out, "interpreter", f"{one.interpreter}{told}")
    if one.resolved and one.resolved != one.interpreter:
        _field(out, "", f"→ {one.resolved}")
    for index, text in enumerate(one.flags_in_words):
        _field(out, "" if index else "flags", text)
    if one.extension:
        _field(out, "extension", one.extension)
    else:
        offset = f" at {one.offset}" if one.offset else ""
        _field(out, "magic", one.magic + offset)
        _field(out, "mask", one.mask or "(every bit)")
    by = one.registered_by.value + (f", {one.declared_in}" if one.declared_in else "")
    _field(out, "registered by", f"{by} ({one.because})")
    if one.shadowed_by:
        part = "" if one.shadowed_wholly else "partly "
        text = f"{part}by {one.shadowed_by}, which was registered later"
        _field(out, "shadowed", text, "yellow")
    for text in one.warnings:
        _field(out, "warning", text, "yellow")


def print_explanation(found: ExplainedFile) -> None:
    """Print what `armvm.provision.binfmt.explain.explain` found."""
    out = _console()
    _line(out, found.path, "bold")
    elf = found.elf
    if elf is None:
        _field(out, "file", _kind(found))
    else:
        _field(out, "class", f"{elf.class_} bits" if elf.class_ else "unknown")
        _field(out, "data", elf.data or "unknown")
        _field(out, "type", elf.type)
        known = f", {found.architecture}" if found.architecture else ""
        _field(out, "machine", f"{elf.machine} ({elf.machine_number}{known})")
        _field(out, "OS/ABI", str(elf.os_abi))
        _field(out, "interpreter", elf.interpreter or "none")
        _field(out, "linking", elf.linking)
        for text in elf.problems:
            _field(out, "damaged", text, "yellow")
    for handler in found.handlers:
        _match(out, handler, taker=handler.name == found.handler)
    if not found.handlers and not found.native:
        _field(out, "handler", "no registered handler matches")
    _interpreter(out, found.interpreter)
    wanted = [("loader", found.loader)] if found.loader else []
    wanted += [("" if index else "libraries", one) for index, one in enumerate(found.libraries)]
    for name, one in wanted:
        _wanted(out, name, one)
    _outcome(out, found)


def print_image(found: ExplainedImage) -> None:
    """Print what `armvm.provision.binfmt.explain_image.explain` found."""
    out = _console()
    _line(out, found.image, "bold")
    _field(out, "engine", f"{found.engine.value}, on {found.daemon_host}")
    _field(out, "platform", found.platform)
    if found.handler is not None:
        _field(out, "handler", f"{found.handler} (flags {found.flags or 'none'})", "green")
    elif not found.native:
        _field(out, "handler", "no registered handler matches")
    _interpreter(out, found.interpreter)
    if found.warning:
        _field(out, "warning", found.warning, "yellow")
    _outcome(out, found)
    _field(out, "run it with", found.command)


def _interpreter(out: Console, program: InterpreterDetails | None) -> None:
    if program is not None:
        said = [
            part for part in (program.version, _linking(program.static), program.problem) if part
        ]
        _field(out, "runs with", f"{program.path} ({', '.join(said) or 'unknown'})")


def _outcome(out: Console, found: ExplainedFile | ExplainedImage) -> None:
    out.print()
    _field(out, "outcome", found.outcome.value, _STATES[found.outcome.value])
    _field(out, "", found.happens)
    if found.fix:
        _field(out, "fix", found.fix)


def print_trials(found: Sequence[ArchitectureTrials]) -> None:
    """Print what `armvm.provision.binfmt.trial.test` found."""
    out = _console()
    for one in found:
        nobody = "the kernel itself" if one.native else "no handler"
        handler = f"handler {one.handler}" if one.handler else nobody
        _line(out, f"{one.architecture}: {handler}", "bold")
        for trial in one.trials:
            style = {"works": "green", "fails": "bold red", "untested": "yellow"}[
                trial.outcome.value
            ]
            _field(out, trial.way.value, trial.outcome.value, style, 22)
            for name, text in (("reason", trial.reason), ("fix", trial.fix)):
                if text:
                    _field(out, "", f"{name}: {text}", "", 22)


def _match(out: Console, handler: HandlerMatch, *, taker: bool) -> None:
    """Print a handler's magic and mask against the file's bytes."""
    state = "is used" if taker else "matches" if handler.takes else "does not match"
    why = "" if handler.enabled else ", disabled"
    if handler.takes and handler.enabled and not taker:
        why = ", but a later handler takes precedence"
    _field(out, "handler", f"{handler.name} {state}{why}", "green" if taker else "")
    magic, mask, raw = map(bytes.fromhex, (handler.magic, handler.mask, handler.bytes))
    if not magic:
        return
    signs = [_compared(raw[at : at + 1], magic[at], mask[at]) for at in range(len(magic))]
    rows = [
        ("file", [f"{byte:02x}" for byte in raw] + ["--"] * (len(magic) - len(raw))),
        ("magic", [f"{byte:02x}" for byte in magic]),
        ("mask", [f"{byte:02x}" for byte in mask]),
        ("", [f"{_SIGNS[sign][0]} " for sign in signs]),
    ]
    if handler.offset:
        _field(out, "offset", str(handler.offset))
    for name, cells in rows:
        shown = Text(f"  {name:<14}")
        for cell, sign in zip(cells, signs):  # noqa: B905 - equally long
            shown.append(cell, _SIGNS[sign][1])
            shown.append(" ")
        out.print(shown, soft_wrap=True)
    present = [f"{_SIGNS[sign][0]} {sign}" for sign in _SIGNS if sign in signs]
    _field(out, "", ", ".join(present).replace("partly", "equal in the bits that count"))


def _compared(byte: bytes, magic: int, mask: int) -> str:
    if not byte:
        return "missing"
    if mask == 0:
        return "ignored"
    if (byte[0] ^ magic) & mask:
        return "differs"
    return "equal" if byte[0] == magic else "partly"


def _wanted(out: Console, name: str, one: WantedFile) -> None:
    if one.found:
        _field(out, name, f"{one.name} → {one.found}")
    elif one.elsewhere:
        _field(out, name, f"{one.name} found only below {one.elsewhere}", "yellow")
    else:
        _field(out, name, f"{one.name} not found", "bold red")


def _kind(found: ExplainedFile) -> str:
    if found.script:
        return f"script for {found.script}"
    return {
        "script": "script without an interpreter name",
        "empty": "empty",
        "text": "text without a '#!' line",
    }.get(found.kind.value, f"neither ELF nor a script; starts with {found.header}")


def _linking(static: bool | None) -> str | None:
    return None if static is None else "static" if static else "dynamic"


def _console() -> Console:
    """Return standard output: in colour on a terminal, unless NO_COLOR is set."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def _line(out: Console, text: str, style: str = "") -> None:
    out.print(Text(printable(text), style), soft_wrap=True)


def _field(out: Console, name: str, text: str, style: str = "", column: int = 14) -> None:
    width = max(60, min(shutil.get_terminal_size().columns, _WIDEST)) - column - 2
    rows = textwrap.wrap(printable(text), width, break_long_words=False, break_on_hyphens=False)
    for index, row in enumerate(rows or [""]):
        shown = Text(f"  {'' if index else name:<{column}}")
        shown.append(row, style)
        out.print(shown, soft_wrap=True)
