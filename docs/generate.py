"""Write the generated pages: commands from their help, JSON from its schemas, hosts, drawings.

.venv/bin/python docs/generate.py           # or: make docs
.venv/bin/python docs/generate.py --check   # exit code 1 when a page is out of date
.venv/bin/python docs/generate.py --man DIR # manual pages instead
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from armvm import __version__
from armvm.base.errors import ArmvmError
from armvm.cli.app import app

# Python searches a script's own folder first; the test adds it to sys.path.
import hosts_page  # isort: skip
import json_results  # isort: skip
import man_pages  # isort: skip
import rooms_picture  # isort: skip
import schema_page  # isort: skip

DOCS = Path(__file__).resolve().parent

_HEAD = """# Commands

`docs/generate.py` generates this page from the program's help; do not edit it.

Results go to standard output, as text or with `--json` as JSON. Progress, warnings and errors go to
standard error; with `--json`, an error is one JSON object, in the last line. `--debug` before the
command prints a traceback. armvm passes a command after `--` to the guest: `armvm ssh -- uname -m`.

`armvm` and its groups accept the names that other tools use: `ls` and `ps` (`list`), `rm`
(`delete`), `info` (`show`), `shell` (`ssh`). `armvm help [COMMAND]` works
too, as does `armvm version`. `run` accepts docker's `--rm`, which is its default, and `-v`
(`--mount`).
"""

#: typer's own options, whose help texts change with its versions.
_TYPERS = {
    "install_completion": "Install shell completion for the current shell.",
    "show_completion": "Print the completion script of the current shell.",
}


def commands(group: Any = None, path: str = "armvm") -> Iterator[tuple[str, Any]]:
    """Return every command that does something, with its full name, in the order of the help."""
    group = group or get_command(app)
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        full = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from commands(command, full)
        elif not command.hidden:
            yield full, command


def visible(command: Any) -> list[Any]:
    """Return the parameters of a command that its help shows."""
    return [one for one in command.params if not getattr(one, "hidden", False)]


def render() -> str:
    """Return the whole page."""
    root = get_command(app)
    parts = [_HEAD, "| command | |\n|---|---|"]
    listed = list(commands())
    parts[-1] += "".join(
        f"\n| [`{name}`](#{name.replace(' ', '-')}) | {_first(command)} |"
        for name, command in listed
    )
    parts += ["## armvm", _text(root), _options(root)]
    parts += [_command(name, command) for name, command in listed]
    parts.append(_exit_codes())
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _command(name: str, command: Any) -> str:
    usage = [name]
    options = [one for one in visible(command) if one.param_type_name == "option"]
    if options:
        usage.append("[OPTIONS]")
    usage += [_metavar(one) for one in visible(command) if one.param_type_name == "argument"]
    if name == "armvm ssh":
        usage.append("[-- COMMAND…]")
    parts = [
        f"## {name}",
        _text(command),
        f"```\n{' '.join(usage)}\n```",
        _arguments(command),
        _options(command),
        _examples(command),
    ]
    return "\n\n".join(part for part in parts if part)


def _first(command: Any) -> str:
    return _text(command).split("\n\n")[0].replace("\n", " ")


def _text(command: Any) -> str:
    return inspect.cleandoc(command.help or "").replace("\f", "").strip()


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _arguments(command: Any) -> str:
    rows = [
        (f"`{_metavar(one)}`", getattr(one, "help", "") or "")
        for one in visible(command)
        if one.param_type_name == "argument"
    ]
    return _table("argument", rows)


def _options(command: Any) -> str:
    rows = []
    for one in visible(command):
        if one.param_type_name != "option":
            continue
        words = [*one.opts, *one.secondary_opts]
        value = "" if one.is_flag else f" {_metavar(one)}"
        help_text = _TYPERS.get(one.name, one.help or "")
        if one.envvar:
            help_text += f" (`{one.envvar}`)"
        if one.required:
            help_text += " Required."
        rows.append((", ".join(f"`{word}{value}`" for word in words), help_text))
    return _table("option", rows)


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    cells = ((left, right.replace("|", r"\|")) for left, right in rows)
    lines = [f"| {left.replace('|', chr(92) + '|')} | {right} |" for left, right in cells]
    return "\n".join([f"| {title} | |", "|---|---|", *lines])


def _examples(command: Any) -> str:
    text = (command.epilog or "").removeprefix("Examples:").removeprefix("Example:")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "```sh\n" + "\n".join(lines) + "\n```" if lines else ""


def _exit_codes() -> str:
    rows: list[tuple[str, str]] = [("0", "success")]
    for kind in _kinds(ArmvmError):
        summary = (kind.__doc__ or "").splitlines()[0]
        if kind is ArmvmError:
            summary = "A bug in armvm."
        rows.append((f"{kind.exit_code}", f"`{kind.reference}`: {summary}"))
    rows.append(("128+n", "ended by signal n: 130 after Ctrl-C"))
    lines = [f"| {code} | {text} |" for code, text in rows]
    table = "\n".join(["| code | |", "|---|---|", *lines])
    return (
        f"## Exit codes\n\n{table}\n\n`armvm ssh` returns the exit code of the command that it ran."
    )


def _kinds(kind: type[ArmvmError]) -> Iterator[type[ArmvmError]]:
    if kind.__module__ == ArmvmError.__module__:  # errors of one room are internal to it
        yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def drawings() -> dict[Path, str]:
    """Return the drawings of the imports: each file's path, and its SVG."""
    root = DOCS.parent
    titles = {
        "rooms": ("armvm", "The packages of armvm and their imports"),
        "provision": ("armvm/provision", "The packages of armvm/provision and their imports"),
    }
    return {
        DOCS / "architecture" / f"{name}.svg": rooms_picture.picture(
            rooms_picture.graph(root / folder, root), title
        )
        for name, (folder, title) in titles.items()
    }


def pages() -> dict[Path, str]:
    """Return the path and the text of each generated page."""
    schemas = json_results.schemas()
    return {
        **{DOCS / "schemas" / name: text for name, text in schemas.items()},
        DOCS / "commands.md": render(),
        DOCS / "json.md": schema_page.render(schemas),
        DOCS / "hosts.md": hosts_page.render(DOCS / "hosts" / "results.json"),
        **drawings(),
    }


def main(
    check: Annotated[bool, typer.Option("--check", help="Compare only; write nothing.")] = False,
    man: Annotated[
        Path | None, typer.Option("--man", metavar="DIR", help="Write manual pages there instead.")
    ] = None,
) -> None:
    """Write the generated pages, or with --check compare them."""
    if man is not None:
        man.mkdir(parents=True, exist_ok=True)
        for name, text in man_pages.pages(get_command(app), list(commands()), __version__):
            (man / name).write_text(text)
        return
    for path, text in pages().items():
        if not check:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            print(f"{path} is out of date: run docs/generate.py", file=sys.stderr)
            raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
