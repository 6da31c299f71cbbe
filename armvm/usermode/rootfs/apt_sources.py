"""Read the package sources of a root file system, for an apt outside of it.

They are untrusted: only archives on HTTP or HTTPS are used, and of their options only the keys.
Each line is written anew, so that apt reads nothing else. Source of the formats: sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from armvm.usermode.rootfs import tree

_LIST, _PARTS = "etc/apt/sources.list", "etc/apt/sources.list.d"
_URI = re.compile(r"https?://[!-Z\\^-~]{1,2000}\Z")  # no space, no brackets
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+~-]{0,200}\Z")
_FINGERPRINTS = re.compile(r"[0-9A-Fa-f]{16,64}!?(?:,[0-9A-Fa-f]{16,64}!?)*\Z")
_LINE = re.compile(r"deb[ \t]+(?:\[([^\]]*)\][ \t]+)?(\S+)[ \t]+(\S+)[ \t]*(.*)")
_MIRROR = re.compile(r"mirror(?:\+https?)?\+file:/+(\S+)\Z")


@dataclass(frozen=True, kw_only=True)
class Source:
    """An archive's *suite* with its *components*; *keys* is the value of Signed-By, or empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keys: str = ""


def read(root: Path, arch: str) -> list[Source]:
    """Return the binary sources of *root* for an architecture that apt outside of it can use."""
    names = [_LIST]
    directory = tree.find(root, _PARTS)
    if directory is not None and directory.is_dir():
        names += sorted(f"{_PARTS}/{one.name}" for one in directory.iterdir())
    found: list[Source] = []
    for name in names:
        text = (tree.read(root, name) or b"").decode(errors="replace")
        if name.endswith(".list"):
            found += _lines(text, arch)
        elif name.endswith(".sources"):
            found += _stanzas(text, arch)
    usable = (_usable(root, one) for one in found)
    return list(dict.fromkeys(one for one in usable if one is not None))


def line(source: Source, arch: str, keyring: Callable[[str], Path]) -> str:
    """Return a source as a line of sources.list; *keyring* returns the file for its keys."""
    keys = source.keys
    if keys and not _FINGERPRINTS.match(keys):
        keys = str(keyring(keys))
    options = f"arch={arch}" + (f" signed-by={keys}" if keys else "")
    return f"deb [{options}] {source.uri} {source.suite} {' '.join(source.components)}".rstrip()


def _lines(text: str, arch: str) -> Iterator[Source]:
    for one in text.splitlines():
        match = _LINE.match(one.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(word.split("=", 1) for word in (match[1] or "").split() if "=" in word)
        if arch in options.get("arch", arch).split(","):
            yield Source(
                uri=match[2],
                suite=match[3],
                components=tuple(match[4].split()),
                keys=options.get("signed-by", ""),
            )


def _stanzas(text: str, arch: str) -> Iterator[Source]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for one in stanza.splitlines():
            if one.startswith("#"):
                continue
            if one[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{one}"
            else:
                name, _, value = one.partition(":")
                name = name.strip().lower()
                fields[name] = value
        words = {key: value.split() for key, value in fields.items()}
        if "deb" not in words.get("types", []) or words.get("enabled") == ["no"]:
            continue
        if arch not in words.get("architectures", [arch]):
            continue
        keys = fields.get("signed-by", "")
        for uri in words.get("uris", []):
            for suite in words.get("suites", []):
                yield Source(
                    uri=uri,
                    suite=suite,
                    components=tuple(words.get("components", [])),
                    keys=keys.strip() if "BEGIN PGP" in keys else ",".join(keys.split()),
                )


def _usable(root: Path, source: Source) -> Source | None:
    """Return the source with the address of its archive; None if it cannot be used."""
    uri = source.uri
    listed = _MIRROR.match(uri)
    if listed is not None:
        text = (tree.read(root, listed[1]) or b"").decode(errors="replace")
        words = (one.split(maxsplit=1)[0] for one in text.splitlines() if one.strip())
        uri = next(filter(_URI.match, words), "")
    if not _URI.match(uri) or not all(map(_WORD.match, (source.suite, *source.components))):
        return None
    return Source(uri=uri, suite=source.suite, components=source.components, keys=source.keys)
