"""Which compile steps run on the host: the compiler's options, read as gcc reads them.

Only options that are known to affect nothing but the object, warnings and dependency file are
accepted. Source: "Option Summary" and "Preprocessor Options" in gcc's manual.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: The languages of the source files, by suffix.
C_SUFFIXES = frozenset({".c"})
CPP_SUFFIXES = frozenset({".cc", ".cp", ".cxx", ".cpp", ".c++", ".C"})
#: Options that add a directory to the include path, which may be in the same word or the next.
_DIRECTORIES = {"-I": "I", "-iquote": "quote", "-isystem": "system", "-idirafter": "after"}
#: Further options whose value may be in the same word or the next.
_VALUES = ("-D", "-U", "-MF", "-MT", "-MQ")
#: Prefixes of options that affect only the object and warnings.
_SAFE = ("-O", "-g", "-f", "-W", "-m", "-std=", "-pedantic", "-D", "-U", "--param=")
_SAFE_WORDS = frozenset({"-c", "-ansi", "-w", "-pipe", "-pthread", "-MD", "-MMD", "-MP"})
#: Exceptions among them: they read or write further files, load code, or ask for this very CPU.
_UNSAFE = re.compile(
    r"-(fplugin|fdump-|fopt-info|fprofile|fauto-profile|fbranch-probabilities|fstack-usage|"
    r"fcallgraph-info|ftest-coverage|fmodule|fcompare-debug|fwpa|fltrans|fresolution|fsave-opt|"
    r"frepo|frecord-gcc|fpreprocessed|fdirectives-only|fpch|fuse-ld|fworking-directory|"
    r"fdiagnostics-(?!color)|fself-test|fwrapper|fsanitize-blacklist|fada|fdebug-cpp|finput-charset|"
    r"fexec-charset|fwide-exec-charset|fsearch-include|gsplit-dwarf|gtoggle|"
    r"W[apl],|Wrapper|m(arch|cpu|tune)=native)"
)
#: What a macro must not mean: see `includes`.
_ODD_MACRO = re.compile(r"__has_|__(DATE|TIME|TIMESTAMP)__|##")
_PLAIN_PATH = re.compile(r"[\w./+@%^=,~-]+", re.ASCII)


class Declined(Exception):
    """A compile step that has to run in the guest, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A compile step.

    ``options`` are the compiler's options without the paths of files and directories;
    ``depends`` is the dependency file, None without.
    """

    language: str
    source: str
    output: str
    options: tuple[str, ...]
    quote: tuple[str, ...] = ()
    bracket: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    depends: str | None = None

    @property
    def include_options(self) -> tuple[str, ...]:
        """The options for the include path, without the standard directories."""
        return (
            *(f"-iquote{one}" for one in self.quote),
            *(f"-I{one}" for one in self.bracket),
            *(word for one in self.system for word in ("-isystem", one)),
            *(word for one in self.after for word in ("-idirafter", one)),
            *(word for one in self.before for word in ("-include", one)),
        )


def read(language: str, words: Sequence[str]) -> Step:
    """Read a compiler's arguments (without its name) as a compile step. Raises Declined.

    *language* is what the compiler's name means: ``c`` or ``c++``.
    """
    options: list[str] = []
    paths: dict[str, list[str]] = {"quote": [], "I": [], "system": [], "after": [], "before": []}
    sources: list[str] = []
    output = depends = None
    writes = named = False
    rest = iter(words)

    def value(word: str, option: str) -> str:
        found = word[len(option) :] or next(rest, "")
        if not found:
            raise Declined(f"{option} without a value")
        return found

    for word in rest:
        directory = next((one for one in _DIRECTORIES if word.startswith(one)), None)
        valued = next((one for one in _VALUES if word.startswith(one)), None)
        if word.startswith("-o"):
            if output is not None:
                raise Declined("-o twice")
            output = value(word, "-o")
        elif word == "-include":
            paths["before"].append(value(word, "-include"))
        elif directory is not None:
            paths[_DIRECTORIES[directory]].append(value(word, directory))
        elif valued == "-MF":
            depends = value(word, valued)
        elif valued is not None:
            named = named or valued in ("-MT", "-MQ")
            options += [valued, value(word, valued)]
            if valued == "-D" and (odd := _ODD_MACRO.search(options[-1])):
                raise Declined(f"{odd[0]} in -D")
        elif word == "--param":
            options.append(f"--param={next(rest, '')}")
        elif word in _SAFE_WORDS or (word.startswith(_SAFE) and not _UNSAFE.match(word)):
            writes = writes or word in ("-MD", "-MMD")
            options.append(word)
        elif word.startswith(("-", "@")):
            raise Declined(f"option {word[:60]}")
        else:
            sources.append(word)
    if len(sources) != 1:
        raise Declined(f"{len(sources)} source files")
    [source] = sources
    stem, suffix = posixpath.splitext(source)
    if suffix in CPP_SUFFIXES:
        language = "c++"
    elif suffix not in C_SUFFIXES:
        raise Declined(f"a source of type {suffix or 'none'}")
    plain = output or posixpath.basename(stem) + ".o"
    if depends is None and writes:
        if posixpath.basename(plain).startswith("."):
            raise Declined("the dependency file of an output that begins with a dot")
        depends = posixpath.splitext(plain)[0] + ".d"
    if depends is not None and not writes:
        raise Declined("-MF without -MD")
    if depends is not None and not named:
        options += ["-MT", plain]
    every = (source, plain, depends or "x", *(one for those in paths.values() for one in those))
    for path in every:
        if not _PLAIN_PATH.fullmatch(path) or path.startswith(("-", "=")):
            raise Declined(f"a path with special characters: {path[:60]!r}")
    return Step(
        language=language,
        source=source,
        output=plain,
        options=tuple(options),
        quote=tuple(paths["quote"]),
        bracket=tuple(paths["I"]),
        system=tuple(paths["system"]),
        after=tuple(paths["after"]),
        before=tuple(paths["before"]),
        depends=depends,
    )
