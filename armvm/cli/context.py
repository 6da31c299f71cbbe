"""Helpers for all commands: progress, connections and output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from armvm.base.printable import printable
from armvm.base.progress import Live, Plain, Progress, Quiet, size_text
from armvm.base.result import as_json

if TYPE_CHECKING:
    from armvm.base.errors import ArmvmError
    from armvm.provision.golden.choose import Warm
    from armvm.provision.machine.create import Where
    from armvm.provision.machine.pick import Handle
    from armvm.settings.verify import Verify


def progress_for(quiet: bool) -> Progress:
    """Return the progress output for standard error: live on a terminal, else plain lines."""
    if quiet:
        return Quiet()
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return Live(sys.stderr)
    return Plain(sys.stderr)


@contextmanager
def left_running(names: Sequence[str]) -> Iterator[None]:
    """Print which machines keep running if a wait is interrupted."""
    try:
        yield
    except Exception:
        raise
    except BaseException:  # Ctrl-C, SIGTERM
        for one in names:
            print(f"{one} keeps running: armvm wait {one}", file=sys.stderr)
        raise


def standard_output(what: str, *, json: bool = False) -> BinaryIO:
    """Return binary standard output for *what*. Raises UsageError on a terminal."""
    from armvm.base.errors import UsageError

    if json:
        raise UsageError(f"cannot write both --json and {what} to standard output")
    if sys.stdout.isatty():
        raise UsageError(
            f"cannot write {what} to a terminal", hint="use --output FILE, or redirect the output"
        )
    return sys.stdout.buffer


def check_file(path: Path | None) -> None:
    """Raise UsageError for ``-``, which other commands accept for standard output."""
    from armvm.base.errors import UsageError

    if path is not None and str(path) == "-":
        raise UsageError(
            "cannot write to standard output: a file name is required",
            hint="give a file name; use /dev/shm/… for a file in memory",
        )


def open_host(connect: str | None) -> Any:
    """Open the connection to libvirt."""
    from armvm.provision.connect import connect as open_connection

    return open_connection(connect)


def open_where(connect: str | None, pool: str | None, verify: Verify | None = None) -> Where:
    """Open the connection and inspect the host, for commands that create machines."""
    from armvm.provision.connect import where

    return where(connect, pool, verify)


def verify_policy(asked: str | None) -> Verify | None:
    """Return the minimum verification of images: --verify, environment or configuration."""
    from armvm.base.paths import config_files
    from armvm.settings.verify import policy

    return policy(asked, os.environ, config_files())


@dataclass(frozen=True, kw_only=True)
class Base:
    """The source of a new machine: a golden with its settings, or none."""

    where: Where
    golden: Any = None
    settings: tuple[str, dict[str, Any]] | None = None

    def chosen(self, warm: Warm) -> Warm:
        """Return the choice of golden with this one's name, which a reference does not have.

        If there are only settings, the golden did not fit: the machine boots cold.
        """
        if self.golden is None:
            return warm if self.settings is None else replace(warm, asked=None, cold=True)
        return replace(warm, asked=self.golden.name)


def base_for(
    where: Where, name: str | None, pool: str | None, progress: Progress, *, fetch: bool = True
) -> Base:
    """Find the golden *name*, or pull the one at an ``oci://`` reference if *fetch* allows it.

    Its pool is used if *pool* is None. Raises NotFound and the errors of pulling.
    """
    if name is None:
        return Base(where=where)
    from armvm.provision.golden.choose import find, settings_of

    if name.startswith("oci://"):
        from armvm.provision.golden.import_ import DoesNotFit
        from armvm.provision.golden.pull import ensure, settings_instead

        try:
            golden = ensure(where, name, progress, fetch=fetch)
        except DoesNotFit as error:
            settings = settings_instead(error)
            cure = f" ({error.hint})" if error.hint else ""
            progress.say(f"falling back to a cold boot: {error.message}{cure}")
            return Base(where=where, settings=(name, settings))
    else:
        golden = find(where, name)
    if pool is None:
        where = replace(where, pool=golden.mark.record.pool)
    return Base(where=where, golden=golden, settings=(f"golden {golden.name}", settings_of(golden)))


def warm_for(golden: str | None, cold: bool) -> Warm:
    """Return whether to use a golden, by flags, environment and configuration."""
    from armvm.base.paths import config_files
    from armvm.provision.golden.choose import warm_for as combine
    from armvm.settings.warm import policy

    return combine(golden, cold=cold, policy=policy(os.environ, config_files()))


def agreed(yes: bool, question: str, loss: str) -> bool:
    """Return whether the user confirms *question*; always true with *yes*.

    Raises UsageError with *loss* as its message if standard input is not a terminal.
    """
    import typer

    from armvm.base.errors import UsageError

    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(loss, hint="use --yes to confirm")
    if typer.confirm(printable(question), err=True):
        return True
    print("cancelled: nothing changed", file=sys.stderr)
    return False


def edit_again(error: ArmvmError) -> bool:
    """Print an error and ask whether to edit again; false without a terminal."""
    import typer

    from armvm.cli.error_text import report

    if not sys.stdin.isatty():
        return False
    report(error, as_json=False)
    return typer.confirm("Edit again?", default=True, err=True)


def each(machines: Sequence[Handle], work: Callable[[Handle], None], progress: Progress) -> None:
    """Run *work* for each machine, and continue after failures.

    Raises the first failure at the end and prints the others as warnings.
    """
    from armvm.base.errors import ArmvmError

    failures: list[ArmvmError] = []
    for machine in machines:
        try:
            work(machine)
        except ArmvmError as error:
            failures.append(error)
    for other in failures[1:]:
        progress.warn(other.message)
    if failures:
        raise failures[0]


def up(name: str, *, ready: bool) -> str:
    """Return the line for a machine that was waited for; not *ready*: it only shows a prompt."""
    if ready:
        return f"{name} is ready: armvm ssh {name}"
    return f"{name} shows a login prompt: armvm console {name}"


def print_json(value: Any) -> None:
    """Print a result as indented JSON on standard output."""
    print(json.dumps(as_json(value), indent=2))


def print_rows(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on standard output, with columns wide enough for every cell."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max(len(column), *(len(row[index]) for row in rows)) if rows else len(column)
        for index, column in enumerate(columns)
    ]
    for row in [columns, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())  # noqa: B905


def short_reference(reference: str) -> str:
    """Return an image reference for a table: paths are shortened to the file name."""
    return f"…/{Path(reference).name}" if reference.startswith("/") else reference


#: Fields that are a number of bytes, and fields that contain only such numbers.
_BYTES = frozenset({"disk", "size"})
_ALL_BYTES = frozenset({"volumes"})


def print_fields(result: Any, indent: str = "", *, sizes: bool = False) -> None:
    """Print a result or named values on standard output, one per line, nested ones indented.

    Byte counts (with *sizes*, all values) are followed by a readable size.
    """
    values = as_json(result)
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            print_fields(value, indent + "  ", sizes=key in _ALL_BYTES)
        else:
            count = str(value) if sizes or key in _BYTES else ""
            size = f" ({size_text(int(count))})" if count.isdecimal() else ""
            print(f"{indent}{key + ':':<{width + 1}} {_field(value)}{size}")


def _field(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return printable(", ".join(map(str, value))) or "-"
    return printable(str(value))
