"""The files that a compile step may read: its source, and what that includes, directly or not.

The text of each file is searched for include directives, without evaluating conditions, and each
name is looked for at every place where gcc looks, up to the first that has it. So the result may
have more files than the compiler reads, never fewer, and a name that is missing in the guest is
missing here. A name that is a macro means every name that the macro is defined as in these files.

Source: "Include Syntax", "Search Path" and "Wrapper Headers" in the manual of gcc's preprocessor.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from armvm.provision.accelerate.options import Declined, Step

#: What gcc includes before all other files, if there is one.
_PREDEFINED = "stdc-predef.h"
#: Limits of one compile step: files, paths, characters and parts of a path, and bytes of text that
#: are searched for the definitions of macros.
MOST_FILES, MOST_PATHS, LONGEST_PATH, DEEPEST, MOST_SEARCHED = 20_000, 400_000, 4096, 100, 4 << 30
#: Longest text whose comments are told apart, in bytes.
LONGEST_COMMENTED = 4 << 20
_CONTINUED = re.compile(rb"\\[ \t\f\v\r]*\n")
_SPACE = rb"[ \t\f\v\r]*"
_REST = rb"([^\n]?[^\n\">]*[\">]?)"
_DIRECTIVE = re.compile(
    rb"(?:#|%:)" + _SPACE + rb"(include_next|include|import)\b" + _SPACE + _REST
)
_ASKED = re.compile(rb"(__has_include(?:_next)?)" + _SPACE + rb"\(" + _SPACE + _REST)
#: What changes how lines are read (trigraphs, comments within directives), reads other files, or
#: asks for the guest's clock and time zone.
_ODD = re.compile(
    rb"\?\?[=/]|(?:#|%:)[ \t\f\v]*/\*|"
    rb"\b(?:include|include_next|import|define|__has_include\()[ \t\f\v]*/\*|"
    rb"\.incbin|\.include[ \t]*\\?\"|(?:#|%:)[ \t\f\v]*embed\b|__has_embed|"
    rb"GCC[ \t]+(?:dependency|pch_preprocess)|__(?:DATE|TIME|TIMESTAMP)__|"
    rb"\b__has_include\w*[ \t\f\v]*##"
)
#: A question for a file by another name, or one that ## makes: those are not followed.
_NAMED = re.compile(
    rb"(ifn?def|defined)?[ \t(]{0,9}\b__has_(?:include(?:_next)?)?\b"
    rb"(?![ \t\f\v\r]{0,9}\(|[ \t]{0,9}##_)"
)
#: Comments, and what looks like their beginning but is none. A number may have single quotes. A
#: string without an end is the rest of the line, as in gcc's lex_string; it must always match, or
#: each quote in it would begin another search.
_TOKENS = re.compile(
    rb"//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)|(?<!\w)[0-9](?:'?\w)*|"
    rb"\"(?:[^\"\\\n]|\\.)*(?:\"|\\?(?=\n|\Z))|'(?:[^'\\\n]|\\.)*(?:'|\\?(?=\n|\Z))"
)
_MACRO = re.compile(rb"(?!__)[A-Za-z_]\w*", re.ASCII)
_LITERAL = re.compile(rb"<([^>\n]+)>|\"([^\"\n]+)\"")


@dataclass(frozen=True, kw_only=True)
class Include:
    """A name in an include directive; ``following`` is for ``include_next``.

    If ``macro``, the name is that of a macro.
    """

    name: str
    quoted: bool = False
    following: bool = False
    macro: bool = False


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What the guest says of a path.

    ``kind`` is 0 (missing), 1 (file), 2 (directory), 3 (other, or not known) or 4 (file whose real
    path, without links, is shorter).
    """

    kind: int
    size: int = 0
    modified: tuple[int, int] = (0, 0)
    changed: tuple[int, int] = (0, 0)
    inode: int = 0

    @property
    def is_file(self) -> bool:
        """Whether the compiler can read it."""
        return self.kind in (1, 4)


def scan(text: bytes) -> tuple[Include, ...]:
    """Return the names that a file includes or may ask for, each once. Raises Declined."""
    text = _CONTINUED.sub(b"", text)
    odd = _ODD.search(text)
    if odd is not None:
        raise Declined(f"{odd[0].decode(errors='replace')} in a file")
    found: dict[Include, None] = {}
    bare = None
    for match in _NAMED.finditer(text):
        bare = bare if bare is not None else _without_comments(text)
        if match[1] is None and bare[match.end() - 1] != 0:
            raise Declined("another name for __has_include")
    for match in (*_DIRECTIVE.finditer(text), *_ASKED.finditer(text)):
        if not _LITERAL.match(match[2]):
            bare = bare if bare is not None else _without_comments(text)
            if bare[match.start()] == 0:
                continue
        asked = _include(match[2], following=b"_next" in match[1])
        if asked.macro and match.re is _ASKED:
            raise Declined("__has_include of a macro")
        found[asked] = None
    return tuple(found)


def _without_comments(text: bytes) -> bytes:
    """Return a text of the same length with zero bytes for comments and strings.

    The text as it is if it has raw strings, in which quotes mean nothing. Raises Declined for a
    long text: this holds Python's lock.
    """
    if len(text) > LONGEST_COMMENTED:
        raise Declined("a long file whose comments look like includes")
    return text if b'R"' in text else _TOKENS.sub(lambda match: bytes(len(match[0])), text)


def definitions(text: bytes, macro: str) -> tuple[Include, ...]:
    """Return the names that a file defines a macro as. Raises Declined for anything else."""
    name = re.escape(macro.encode())
    pattern = rb"\bdefine" + _SPACE + name + rb"\b" + rb"(\(?)" + _SPACE + _REST
    found = []
    for match in re.finditer(pattern, _CONTINUED.sub(b"", text)):
        if match[1] or not _LITERAL.match(match[2]):
            raise Declined(f"an include of the macro {macro}")
        found.append(_include(match[2], following=False))
    return tuple(found)


def _include(rest: bytes, *, following: bool) -> Include:
    match = _LITERAL.match(rest)
    if match is None:
        macro = _MACRO.fullmatch(rest.partition(b"//")[0].partition(b"/*")[0].strip())
        if macro is None or following:
            raise Declined(f"an include that is not literal: {rest[:40].decode(errors='replace')}")
        return Include(name=macro[0].decode(), macro=True)
    name = (match[1] or match[2]).decode(errors="surrogateescape")
    if "\0" in name:
        raise Declined("a zero byte in a name")
    return Include(name=name, quoted=match[2] is not None, following=following)


@dataclass(kw_only=True)
class Closure:
    """The search for a compile step's files.

    *stat* tells of many paths of the guest, *included* returns the names that files include, and
    *defined* those that files define a macro as; all may raise Declined. *standard* are the
    compiler's own include directories.
    """

    step: Step
    directory: str
    standard: Sequence[str]
    stat: Callable[[Sequence[str]], Sequence[Stat]]
    included: Callable[[Sequence[tuple[str, Stat]]], Sequence[tuple[Include, ...]]]
    defined: Callable[[tuple[str, Stat], str], tuple[Include, ...]]
    known: dict[str, Stat] = field(default_factory=dict)
    files: dict[str, Stat] = field(default_factory=dict)
    searched: int = 0

    def find(self) -> dict[str, Stat]:
        """Return the files by their absolute paths in the guest. Raises Declined."""
        step = self.step
        bracket = [*step.bracket, *step.system, *self.standard, *step.after]
        self._bracket = [self._absolute(one) for one in bracket]
        self._quote = [self._absolute(one) for one in step.quote]
        source = self._absolute(step.source)
        self.ask([source, *self._quote, *self._bracket])
        self._check_directories()
        if not self.known[source].is_file:
            raise Declined("the source is not a file")
        implicit = [Include(name=_PREDEFINED)]
        forced = [Include(name=one, quoted=True) for one in step.before]
        wanted = {(self.directory, one): None for one in (*forced, *implicit)}
        done: set[tuple[str, Include]] = set()
        macros: dict[tuple[str, str], None] = {}
        self.files[source] = self.known[source]
        todo = [source]
        while todo or wanted:
            names = self.included([(one, self.files[one]) for one in todo])
            for path, those in zip(todo, names, strict=True):
                here = posixpath.dirname(path)
                wanted |= {(here, one): None for one in those if not one.macro}
                macros |= {(here, one.name): None for one in those if one.macro}
            new = [one for one in wanted if one not in done]
            done |= wanted.keys()
            todo, wanted = self._resolve(new), {}
            if not todo:
                wanted = {one: None for one in self._by_macros(macros) if one not in done}
            if len(self.files) > MOST_FILES:
                raise Declined(f"more than {MOST_FILES} files")
        return self.files

    def _by_macros(self, macros: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Include]]:
        """Yield the includes that macros mean, by the definitions in all files found so far."""
        for here, macro in macros:
            given = f"{macro}="
            for option, word in itertools.pairwise(self.step.options):
                if option == "-D" and (word == macro or word.startswith(given)):
                    for one in definitions(f"define {macro} {word[len(given) :]}".encode(), macro):
                        yield here, one
            for found in self.files.items():
                self.searched += found[1].size + 1024
                if self.searched > MOST_SEARCHED:
                    raise Declined("too many includes of macros")
                for one in self.defined(found, macro):
                    yield here, one

    def _resolve(self, wanted: Iterable[tuple[str, Include]]) -> list[str]:
        """Add the files that directives mean, and return the new ones."""
        places = [self._places(here, include) for here, include in wanted]
        self.ask(path for paths in places for path in paths)
        new = []
        for (_, include), paths in zip(wanted, places, strict=True):
            for path in paths:
                found = self.known[path]
                if not found.is_file:
                    if found.kind not in (0, 2) and path != "/dev/null":
                        raise Declined(f"{path} is not a file")
                    continue
                if path not in self.files:
                    self.files[path] = found
                    new.append(path)
                if not include.following:
                    break
        return new

    def _places(self, here: str, include: Include) -> list[str]:
        """Return where gcc looks for a name, in its order."""
        if include.name.startswith("/"):
            return [include.name]
        first = [here, *self._quote] if include.quoted else []
        return [posixpath.join(one, include.name) for one in (*first, *self._bracket)]

    def _absolute(self, path: str) -> str:
        return posixpath.join(self.directory, path)

    def directories(self) -> list[str]:
        """Return the directories of the include path that the guest has."""
        return [one for one in (*self._quote, *self._bracket) if self.known[one].kind == 2]

    def crossings(self) -> list[str]:
        """Return the paths asked for up to each ``..`` in them, and the same ones made plain."""
        found: dict[str, None] = {}
        for folder in {posixpath.dirname(one) for one in self.known if "/.." in one}:
            parts = folder.split("/")
            for end in (at for at, part in enumerate(parts, 1) if part == ".."):
                path = "/".join(parts[:end])
                found[path] = found[plain(path)] = None
        return list(found)

    def check_links(self) -> None:
        """Decline what copies of files, at plain paths without links, cannot show. Asks nothing."""
        for path in self.crossings():
            found = self.known[path]
            if found.kind and found.inode != self.known[plain(path)].inode:
                raise Declined(f"{path} leads through a link")
        step = self.step
        system = [
            f"{plain(self._absolute(one))}/" for one in (*step.system, *self.standard, *step.after)
        ]
        for path in map(plain, self.files):
            # gcc shows the shorter path of a system header: -fcanonical-system-headers.
            if self.known[path].kind == 4 and path.startswith(tuple(system)):
                raise Declined(f"{path} is a link to a shorter path")

    def ask(self, paths: Iterable[str]) -> None:
        """Have the guest tell of paths that are not known yet. Raises Declined."""
        new = list(dict.fromkeys(one for one in paths if one not in self.known))
        if len(self.known) + len(new) > MOST_PATHS:
            raise Declined(f"more than {MOST_PATHS} paths")
        if any(len(one) > LONGEST_PATH or one.count("/") > DEEPEST for one in new):
            raise Declined("a path that is too long")
        if new:
            self.known.update(zip(new, self.stat(new), strict=True))

    def _check_directories(self) -> None:
        """Decline an include path with one directory under two names: gcc drops the second."""
        names: dict[int, str] = {}
        for path in (*self._quote, *self._bracket):
            found = self.known[path]
            plain = posixpath.normpath(path)
            if found.kind == 2 and names.setdefault(found.inode, plain) != plain:
                raise Declined("an include directory with two names")


def plain(path: str) -> str:
    """Return an absolute path without ``.``, ``..`` and doubled slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))
