"""Limits for untrusted files: of the programs that read them, and of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

#: Levels of a YAML or TOML document: writing it again is recursive.
MAX_DEPTH = 128
#: Bits of an integer in it: Python refuses to write one of more than 4,300 decimal digits.
MAX_BITS = 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits for a program: address space in bytes, and CPU time in seconds.

    prlimit(1) (util-linux, on every Linux) sets them before the program starts. Python's own way
    (``preexec_fn`` of subprocess) runs Python between fork and exec, which its documentation
    calls unsafe in the presence of threads.
    """

    memory: int
    cpu: int

    #: glibc reserves 64 MiB of address space for each of up to 8 heaps per CPU. It does not use
    #: that memory, and the number differs between hosts.
    env: ClassVar[Mapping[str, str]] = {"MALLOC_ARENA_MAX": "4"}

    @property
    def options(self) -> tuple[str, ...]:
        """The options for prlimit: these limits, and no core dumps."""
        return f"--as={self.memory}", f"--cpu={self.cpu}", "--core=0"
