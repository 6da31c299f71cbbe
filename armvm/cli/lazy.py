"""A command group that imports only the module of the command that runs.

typer builds the whole command tree for each call, which takes a third of the time of a call that
prints one line of help. The commands built here equal those that typer's own group would hold.
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
    create apply list show start stop restart suspend resume delete wait autostart resize edit
    disk snapshot rename clone boot-report events top run ssh console exec cp accelerate mount
    umount logs screenshot ip network forward ssh-config proxy docker-context golden pool image
    emulate rootfs xml seed binfmt explain config hosts doctor
    """.split()
)
#: The commands whose module in armvm.cli has a different name.
_MODULES: Mapping[str, str] = {"exec": "exec_", "list": "list_", "umount": "mount"}


#: Names that other tools use for our commands, in armvm and its groups: accepted, but not listed.
ALIASES: Mapping[str, str] = {
    "ls": "list",
    "ps": "list",
    "shell": "ssh",
    "rm": "delete",
    "info": "show",
}


def plain_name(name: str, there: Container[str]) -> str:
    """Return the name in *there* of a command that may be called by another tool's name."""
    return name if name in there else ALIASES.get(name, name)


#: The help heading of groups that set none. Commands set their own.
GROUPS = "Images and goldens"
#: Plain help and plain tracebacks, as in `armvm.cli.app`.
_PLAIN: Mapping[str, Any] = {"pretty_exceptions_short": False, "rich_markup_mode": None}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A command's line in the help: its heading, and what the command does."""

    name: str
    heading: str
    text: str


class WholeGroup(TyperGroup):
    """A group whose help shows the whole first paragraph of each command; click truncates it."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name or alias; None if there is none."""
        return super().get_command(ctx, plain_name(cmd_name, self.commands))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each command."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first(one.help)) for name, one in commands.items() if one])


class LazyGroup(TyperGroup):
    """The group of `COMMANDS`. Its ``commands`` holds only those that were requested."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a command, and build it on first use; None if there is none."""
        cmd_name = plain_name(cmd_name, COMMANDS)
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            found = _registered(cmd_name)
            _add_on(cmd_name, found)
            if isinstance(found, CommandInfo):
                self.commands[cmd_name] = get_command_from_info(found, **_PLAIN)
            else:
                group = TyperInfo(found, name=cmd_name, cls=WholeGroup)
                self.commands[cmd_name] = get_group_from_info(
                    group, suggest_commands=True, **_PLAIN
                )
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that *args* begin with; the error for another suggests names."""
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
    """Yield every command's line in the help, without building the commands."""
    for name in COMMANDS:
        found = _registered(name)
        if isinstance(found, CommandInfo):
            text, heading = getdoc(found.callback) or "", found.rich_help_panel
        else:
            named = found.rich_help_panel
            text, heading = str(found.info.help), named if isinstance(named, str) else GROUPS
        yield Summary(name=name, heading=str(heading), text=_first(text))


def _add_on(name: str, found: CommandInfo | typer.Typer) -> None:
    """Give the commands that connect to libvirt the option ``--on``, in groups too."""
    from armvm.cli.options import with_on  # the list of commands needs no options

    if isinstance(found, CommandInfo):
        if found.callback is not None:
            found.callback = with_on(found.callback, name)
        return
    for info in found.registered_commands:
        if info.callback is not None:
            own = info.name or get_command_name(info.callback.__name__)
            info.callback = with_on(info.callback, f"{name} {own}")


def _first(text: str | None) -> str:
    return cleandoc(text or "").split("\n\n")[0].replace("\n", " ")


def _registered(name: str) -> CommandInfo | typer.Typer:
    """Return the command or group that a command's module registers."""
    module = import_module(f"armvm.cli.{_MODULES.get(name, name.replace('-', '_'))}")
    if not hasattr(module, "register"):
        group: typer.Typer = module.app
        return group
    shelf = typer.Typer()
    module.register(shelf)
    for info in shelf.registered_commands:
        if (info.name or get_command_name(info.callback.__name__)) == name:  # type: ignore[union-attr]
            return info
    raise LookupError(f"{module.__name__} does not register the command {name}")
