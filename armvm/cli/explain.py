"""``explain``: explains what armvm writes and does."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from armvm.base.printable import printable
from armvm.cli import complete
from armvm.cli.context import open_host, print_fields, print_json
from armvm.cli.options import Connect, Json

if TYPE_CHECKING:
    from armvm.provision.inspect.explain import Explanation, Part

_WIDEST = 100
_EXAMPLES = """Examples:

  armvm explain xml arm64-01

  armvm explain seed

  armvm explain network arm64-01 --json"""


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command(rich_help_panel="Host", epilog=_EXAMPLES)(explain)


def explain(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]",
            help="Topic: xml, seed, firmware, cpu or network. Default: list the topics.",
            autocompletion=complete.topics,
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Machine to explain. Default: a general explanation.",
            autocompletion=complete.machines,
        ),
    ] = None,
    connect: Connect = None,
    json: Json = False,
) -> None:
    """Explain what armvm writes for a machine: every line of its XML, every key of its seed.

    With a machine name, armvm shows that machine's values and only the parts that apply to it.
    Secrets in the seed are hidden.
    """
    from armvm.base.errors import UsageError
    from armvm.provision.inspect.explain import explain as explain_topic
    from armvm.provision.inspect.explain import explain_machine
    from armvm.provision.inspect.pages import topics
    from armvm.provision.machine.pick import pick

    if topic is None:
        if json:
            raise UsageError("--json requires a topic", hint=f"topics: {', '.join(topics())}")
        for one in topics():
            print(f"armvm explain {one:<8}  {explain_topic(one).title}")
        return
    told = explain_topic(topic)  # report an unknown topic before an unknown machine
    if name is not None:
        connection = open_host(connect)
        told = explain_machine(topic, pick(connection, name))
    if json:
        print_json(told)
    else:
        _print(told)


def _print(told: Explanation) -> None:
    print(f"{told.title}: {told.machine}" if told.machine else told.title)
    if told.values:
        print()
        print_fields(told.values, indent="  ")
    if told.machine is None:
        _paragraphs(told.text, "")
    seen: set[str] = set()
    for part in told.parts:
        again = part.line is not None and part.heading in seen
        seen.add(part.heading)
        print()
        _print_part(part, again=again and bool(part.heading))


def _print_part(part: Part, *, again: bool) -> None:
    """Print one part; *again* leaves out the explanation that an earlier part printed."""
    indent = "  " * part.depth
    times = f"   ({part.times} times)" if part.times > 1 else ""
    print(f"{indent}{printable(part.line or part.heading)}{times}")
    if again:
        return
    inner = indent + "    "
    for text in part.text:
        _wrapped(text, inner, inner)
    for name, words in part.items.items():
        _wrapped(f"{name}: {words}", inner, inner + "  ")
    if part.source:
        print(f"{inner}[{part.source.title}: {part.source.address}]")


def _paragraphs(paragraphs: list[str], indent: str) -> None:
    for text in paragraphs:
        print()
        _wrapped(text, indent, indent)


def _wrapped(text: str, first: str, rest: str) -> None:
    width = max(40, min(shutil.get_terminal_size().columns, _WIDEST))
    print(
        textwrap.fill(
            text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )
    )
