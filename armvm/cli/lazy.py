"""A command group that loads a command's module when it is called for, and no others.

typer builds the whole tree for each call, also for one that prints a line of help: a third of
the time that this takes. What is asked for here is what typer's own group would hold.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc, getdoc
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info, get_command_name, get_group_from_info
from typer.models import CommandInfo, TyperInfo

#: Every command of armvm, in the order of the help.
COMMANDS = tuple(
    """
    create list show start stop restart suspend resume delete wait autostart resize edit snapshot
    rename clone boot-report events top run ssh console exec cp mount umount logs screenshot ip
    forward ssh-config proxy docker-context golden image emulate rootfs xml seed binfmt explain
    config doctor
    """.split()
)
#: The commands whose module in armvm.cli has another name than the command.
_MODULES: Mapping[str, str] = {"exec": "exec_", "list": "list_", "umount": "mount"}


#: What other tools call our commands, in armvm and in its groups: understood, and in no list.
ALIASES: Mapping[str, str] = {
    "ls": "list",
    "ps": "list",
    "shell": "ssh",
    "rm": "delete",
    "info": "show",
}


def plain_name(name: str, there: Container[str]) -> str:
    """Return what a command is called here, of those that are *there*."""
    return name if name in there else ALIASES.get(name, name)


#: The heading of the groups among them that bring none; a command brings its own.
GROUPS = "Images and goldens"
#: Help as plain text, and tracebacks left alone, as in `armvm.cli.app`.
_PLAIN: Mapping[str, Any] = {"pretty_exceptions_short": False, "rich_markup_mode": None}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A command's line in the help: the heading it stands under, and what it does."""

    name: str
    heading: str
    text: str


class WholeGroup(TyperGroup):
    """A group whose help has the first paragraph of each command's, whole: click's cuts it."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, also by another tool's name for it; None where there is none."""
        return super().get_command(ctx, plain_name(cmd_name, self.commands))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each command."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first(one.help)) for name, one in commands.items() if one])


class LazyGroup(TyperGroup):
    """The group of `COMMANDS`. Its ``commands`` hold only what was asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the commands' names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a command, built now if it was not yet; None where there is none."""
        cmd_name = plain_name(cmd_name, COMMANDS)
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            found = _registered(cmd_name)
            if isinstance(found, CommandInfo):
                self.commands[cmd_name] = get_command_from_info(found, **_PLAIN)
            else:
                group = TyperInfo(found, name=cmd_name, cls=WholeGroup)
                self.commands[cmd_name] = get_group_from_info(
                    group, suggest_commands=True, **_PLAIN
                )
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that *args* begin with; for a wrong name, the alike are named."""
        if args and plain_name(args[0], COMMANDS) not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write a section for each heading, in the order of the commands."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for one in summaries():
            sections.setdefault(one.heading, []).append((one.name, one.text))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def summaries() -> Iterator[Summary]:
    """Yield every command's line in the help; none of them is built."""
    for name in COMMANDS:
        found = _registered(name)
        if isinstance(found, CommandInfo):
            text, heading = getdoc(found.callback) or "", found.rich_help_panel
        else:
            named = found.rich_help_panel
            text, heading = str(found.info.help), named if isinstance(named, str) else GROUPS
        yield Summary(name=name, heading=str(heading), text=_first(text))


def _first(text: str | None) -> str:
    return cleandoc(text or "").split("\n\n")[0].replace("\n", " ")


def _registered(name: str) -> CommandInfo | typer.Typer:
    """Return what a command's module has to say of it: the command, or a group of its own."""
    module = import_module(f"armvm.cli.{_MODULES.get(name, name.replace('-', '_'))}")
    if not hasattr(module, "register"):
        group: typer.Typer = module.app
        return group
    shelf = typer.Typer()
    module.register(shelf)
    for info in shelf.registered_commands:
        if (info.name or get_command_name(info.callback.__name__)) == name:  # type: ignore[union-attr]
            return info
    raise LookupError(f"{module.__name__} registers no command {name}")
