"""Tuning: the script that turns a machine's disk into a reusable image, and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from armvm.settings.names import derived_name

#: The guest's user while it is tuned; the script removes it.
USER = "armvm-tune"
#: What the script prints on the serial console at its end.
DONE, FAILED = "armvm-tune: done", "armvm-tune: failed"
#: The user-data of a machine that is tuned: fetches package lists. A preset adds its packages.
USER_DATA = "#cloud-config\npackage_update: true\n"
#: The command for ssh; the script comes on its standard input.
COMMAND = (
    "sudo sh -c 'cat > /run/armvm-tune.sh; "
    f"setsid sh /run/armvm-tune.sh {USER} >/dev/null 2>&1 </dev/null &'"
)


def script() -> str:
    """Return the shell script that tunes the guest; it runs as root."""
    return Path(__file__).with_name("tune.sh").read_text()


def image_name(reference: str, presets: Sequence[str]) -> str:
    """Return the name of the tuned image of a reference: ``tuned-docker-debian-12``."""
    return derived_name("tuned", presets, reference)
