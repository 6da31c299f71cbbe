"""Relay a program's outputs until it writes an end mark."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.base.process.ending import terminate
from armvm.base.programs import find


def relay(argv: Sequence[str | Path], mark: str, sinks: Sequence[Callable[[bytes], object]]) -> int:
    """Run a program on the caller's input, pass its outputs to the two *sinks*; return its code.

    The end mark is ``MARK CODE`` and a newline in both outputs: CODE is returned, and nothing
    after it is read or passed on. Without a mark, the program's own end and exit code count
    (128 + n for signal n). If the call ends early, the program is ended too.
    """
    import selectors
    import subprocess

    words = [find(str(argv[0])), *map(str, argv[1:])]
    process: Any = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ends = [Marked(mark=mark.encode(), sink=sink) for sink in sinks]
    try:
        with selectors.DefaultSelector() as waiting:
            for pipe, end in zip((process.stdout, process.stderr), ends, strict=True):
                waiting.register(pipe, selectors.EVENT_READ, end)
            while waiting.get_map():
                ready = waiting.select(0.2)
                if not ready and process.poll() is not None:
                    break  # its children keep the pipes open
                for key, _ in ready:
                    if key.data.take(os.read(key.fd, 1 << 16)):
                        waiting.unregister(key.fileobj)
        code = next((end.code for end in ends if end.code is not None), None)
        if code is None:
            code = process.wait()
    finally:
        terminate(process)
        process.stdout.close()
        process.stderr.close()
    return code if code >= 0 else 128 - code


@dataclass(kw_only=True)
class Marked:
    """An output that ends with a mark."""

    mark: bytes
    sink: Callable[[bytes], object]
    code: int | None = None
    _rest: bytes = b""

    def take(self, data: bytes) -> bool:
        """Pass on new data; return whether the output has ended."""
        whole = self._rest + data
        mark = re.escape(self.mark)
        found = re.search(mark + rb" ([0-9]{1,3})\n", whole)
        if found:
            self.code = int(found[1])
        # Hold back what may be the start of the mark until more arrives.
        begun = found or (re.search(mark + rb"( [0-9]{0,3})?\Z", whole) if data else None)
        if begun:
            at = begun.start()
        else:
            lengths = range(min(len(self.mark), len(whole)), 0, -1) if data else ()
            at = len(whole) - next((n for n in lengths if whole.endswith(self.mark[:n])), 0)
        if at:
            self.sink(whole[:at])
        self._rest = whole[at:]
        return self.code is not None or not data
