"""Where keys are found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KeyStore:
    """The keys of this user."""
