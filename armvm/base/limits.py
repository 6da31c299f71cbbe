"""What a program that reads others' files may use of this host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a program may use: address space in bytes, and seconds of CPU time.

    prlimit(1), which every Linux has (util-linux), sets them before the program begins. Python's
    own way (``preexec_fn`` of subprocess) runs Python between fork and exec, which its
    documentation calls unsafe beside threads.
    """

    memory: int
    cpu: int

    #: glibc reserves 64 MiB of address space for each of up to 8 heaps per CPU: that is no use of
    #: memory, and differs from host to host.
    env: ClassVar[Mapping[str, str]] = {"MALLOC_ARENA_MAX": "4"}

    @property
    def options(self) -> tuple[str, ...]:
        """prlimit's options: these limits, and no core dumps."""
        return f"--as={self.memory}", f"--cpu={self.cpu}", "--core=0"
