"""Running armvm as its users do: as a program, with its output and exit code."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import schemas

ROOT = Path(__file__).resolve().parent.parent
ARMVM = (sys.executable, "-m", "armvm")


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, read as JSON: a command's ``--json`` is as its schema says."""
        document = json.loads(self.out)
        command = schemas.command_of(self.args)
        return document if command is None else schemas.check(command, document)

    def ok(self) -> Result:
        """Return this result; fail the test when the command failed."""
        assert self.code == 0, f"{self.args} ended with {self.code}\n{self.out}\n{self.err}"
        return self

    def failed(self, code: int) -> Result:
        """Return this result; fail the test unless it is one clear error with that exit code."""
        assert self.code == code, f"{self.args} ended with {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err + self.out
        assert "a bug in armvm" not in self.err
        assert self.err.strip(), "an error says something"
        return self


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a command: ours, without settings of the person who tests."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("ARMVM_") and key != "LIBVIRT_DEFAULT_URI"
    }
    return {**kept, "NO_COLOR": "1", "COLUMNS": "100", **changes}


def armvm(
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 120,
    prefix: Sequence[str] = ARMVM,
    cwd: Path | None = None,
) -> Result:
    """Run ``armvm ARGS…`` to its end; *timeout* is in seconds."""
    words = [*prefix, *map(str, args)]
    done = subprocess.run(
        words,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**(env or {})),
        cwd=cwd,
        check=False,
    )
    return Result(
        args=tuple(map(str, args)), code=done.returncode, out=done.stdout, err=done.stderr
    )


def spawn(*args: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``armvm ARGS…`` and return the process; the caller ends it."""
    return subprocess.Popen(
        [*ARMVM, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**(env or {})),
    )


def fresh_name(prefix: str = "armvm-test") -> str:
    """Return a machine name that nobody has."""
    return f"{prefix}-{secrets.token_hex(3)}"
