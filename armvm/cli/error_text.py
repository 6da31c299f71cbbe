"""Errors on standard error, as text or as JSON."""

from __future__ import annotations

import sys

from armvm.base.errors import ArmvmError


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
    print(f"armvm: {error.message}", file=sys.stderr)
    if error.detail:
        for line in error.detail.splitlines():
            print(f"    {line}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
