"""Who signs: the keys that are pinned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Key:
    """An OpenPGP key that may sign.

    ``fingerprint`` is 40 or 64 hex digits in upper case; ``keyrings`` are paths where systems
    keep it.
    """

    fingerprint: str
    owner: str
    keyrings: tuple[str, ...] = ()
