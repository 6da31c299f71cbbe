"""Hypothesis without a time limit (a busy machine must not fail tests), and signing keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.openpgp_tools import Gpg

settings.register_profile("armvm", deadline=None)
settings.load_profile("armvm")


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    """A gpg with an empty home."""
    with Gpg() as running:
        yield running


@pytest.fixture(scope="module")
def ours(gpg: Gpg) -> str:
    """The fingerprint of a key that is to be trusted."""
    return gpg.key("ours")


@pytest.fixture(scope="module")
def another(gpg: Gpg) -> str:
    """The fingerprint of a key that is not."""
    return gpg.key("another")
