"""Errors on standard error, as text or as JSON."""

from __future__ import annotations

import sys

from armvm.base.errors import ArmvmError
from armvm.base.printable import printable_lines


def report(error: ArmvmError, *, as_json: bool) -> None:
    """Print an error on standard error, as text or as one JSON object."""
    if as_json:
        import json  # most errors are text

        fields = {
            "reference": error.reference,
            "exit_code": error.exit_code,
            "message": error.message,
            "detail": error.detail,
            "hint": error.hint,
        }
        print(json.dumps({"error": fields}), file=sys.stderr)
        return
    print(f"armvm: {printable_lines(error.message)}", file=sys.stderr)
    if error.detail:
        for line in error.detail.splitlines():
            print(f"    {printable_lines(line)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable_lines(error.hint)}", file=sys.stderr)
