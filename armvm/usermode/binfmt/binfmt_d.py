"""Read the files that register handlers at boot: binfmt.d(5).

systemd-binfmt reads ``*.conf`` from four directories; a file hides files of the same name in
later directories, and the rest is processed in the order of file names. (A link to /dev/null is
an empty file, so it only hides.) If a name is registered twice, the last one replaces the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.usermode.binfmt.registration import Rule, parse_line

#: The administrator's directory, where armvm writes.
ETC = Path("/etc/binfmt.d")
DIRECTORIES = (
    ETC,
    Path("/run/binfmt.d"),
    Path("/usr/local/lib/binfmt.d"),
    Path("/usr/lib/binfmt.d"),
)
#: Maximum file size, in bytes; real files are smaller.
LARGEST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A rule in a file; *text* is its line."""

    path: Path
    text: str
    rule: Rule


def declared(directories: Sequence[Path] = DIRECTORIES) -> tuple[Declared, ...]:
    """Return all rules, in the order in which systemd-binfmt registers them at boot."""
    files: dict[str, Path] = {}
    for directory in directories:
        for path in _listed(directory):
            files.setdefault(path.name, path)
    return tuple(one for name in sorted(files) for one in rules_of(files[name]))


def rules_of(path: Path) -> Iterator[Declared]:
    """Yield the rules of a file; nothing if it cannot be read."""
    for text in lines_of(path):
        if text.strip() and text.strip()[0] not in "#;":
            rule = parse_line(text.strip())
            if rule is not None:
                yield Declared(path=path, text=text.strip(), rule=rule)


def lines_of(path: Path) -> list[str]:
    """Return a file's lines; none if it is missing, not a file, or too large."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return []
        return path.read_text(errors="replace").split("\n")
    except OSError:
        return []


def _listed(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.name.endswith(".conf")]
    except OSError:
        return []
