"""Render manual pages from the program's help: armvm.1, and one per command (armvm-create.1)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any


def pages(
    root: Any, commands: Sequence[tuple[str, Any]], version: str
) -> Iterator[tuple[str, str]]:
    """Yield each page's file name and text (man(7), as groff reads it).

    *commands* pairs each full name with its command.
    """
    names = [name for name, _ in commands]
    yield "armvm.1", _page("armvm", root, version, names)
    for name, command in commands:
        yield f"{name.replace(' ', '-')}.1", _page(name, command, version, ["armvm"])


def _page(name: str, command: Any, version: str, others: Sequence[str]) -> str:
    title = name.replace(" ", "-")
    first, *rest = _paragraphs(command.help)
    lines = [
        f'.TH "{title.upper()}" 1 "" "armvm {_escaped(version)}" "armvm"',
        ".SH NAME",
        f"{_escaped(title)} \\- {_escaped(first.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_escaped(name)}",
        _escaped(" ".join(["[OPTIONS]", *_arguments(command), *_more(name)])),
        ".SH DESCRIPTION",
        _escaped(first),
    ]
    for paragraph in rest:
        lines += [".PP", _escaped(paragraph)]
    lines += _parameters(command, "argument", "ARGUMENTS")
    lines += _parameters(command, "option", "OPTIONS")
    examples = (command.epilog or "").removeprefix("Examples:").removeprefix("Example:")
    if name != "armvm" and examples.strip():
        shown = [line.strip() for line in examples.splitlines() if line.strip()]
        lines += [".SH EXAMPLES", ".nf", *map(_escaped, shown), ".fi"]
    links = [f"\\fB{_escaped(other.replace(' ', '-'))}\\fR(1)" for other in others]
    lines += [".SH SEE ALSO", ", ".join([*links, "\\fBvirsh\\fR(1)"])]
    return "\n".join(lines) + "\n"


def _more(name: str) -> list[str]:
    """Return the rest of the synopsis: a command, for the program itself or after two dashes."""
    return {"armvm": ["COMMAND"], "armvm ssh": ["[-- COMMAND…]"]}.get(name, [])


def _arguments(command: Any) -> list[str]:
    found = [one for one in command.params if one.param_type_name == "argument"]
    return [str(one.metavar or one.name.upper()) for one in found]


def _parameters(command: Any, kind: str, heading: str) -> list[str]:
    found = [
        one
        for one in command.params
        if one.param_type_name == kind and not getattr(one, "hidden", False)
    ]
    lines = [f".SH {heading}"] if found else []
    for one in found:
        metavar = str(one.metavar or one.name.upper())
        if kind == "argument":
            words = metavar
        else:
            value = "" if one.is_flag else f" {metavar}"
            words = ", ".join(f"{word}{value}" for word in (*one.opts, *one.secondary_opts))
        lines += [".TP", f".B {_escaped(words)}", _escaped(one.help or "")]
    return lines


def _paragraphs(text: str | None) -> list[str]:
    plain = inspect.cleandoc(text or "").replace("\f", "")
    return [" ".join(one.split()) for one in plain.split("\n\n") if one.strip()]


def _escaped(text: str) -> str:
    """Return text that groff takes for nothing but text."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
