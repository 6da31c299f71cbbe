"""Generated examples: no time limit for one example, for a busy machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("armvm", deadline=None)
settings.load_profile("armvm")
