"""The policy of trust: the weakest proof that is accepted for an image."""

from __future__ import annotations

import enum


class Verify(enum.Enum):
    """What an image must be vouched for by; where nothing is said, the strongest on offer."""

    SIGNATURE = "signature"
    DIGEST = "digest"
    NONE = "none"
