"""Making a clone another machine than its golden: the order it gets, and the check afterwards.

The guest's half is `armvm.guest.reborn`, sent as text. The order holds private keys, so it goes
through a channel of the machine's own and is never on a command line. Nothing reaches the clone
from outside before it has answered (provision opens the way to its ssh after the check).
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.errors import CommandFailed, DomainError
from armvm.guest.identity import Identity

#: Bytes of fresh entropy: the kernel's generator takes 32; more does no harm.
_ENTROPY = 64
#: Seconds that a guest's clock may be off right after its rebirth.
CLOCK_TOLERANCE = 2.0


def guest_command(verb: str, *words: str) -> list[str]:
    """Return the argument list that runs a verb of `armvm.guest.reborn` in a guest.

    ``-I -S``: no site packages and nothing of the environment; it also starts faster.
    """
    source = Path(__file__).with_name("reborn.py").read_text(encoding="utf-8")
    return ["/usr/bin/python3", "-I", "-S", "-c", source, verb, *words]


def make_order(
    name: str,
    identity: Identity,
    *,
    user: str,
    keys: Sequence[str],
    mac: tuple[str, str] | None = None,
    mask_boot_id: bool = True,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Return what a clone called *name* is to become. *keys* may log in as *user*.

    *mac* is the golden's MAC address and the clone's, where its network card is to change it.

    The machine-id is the UUID, as systemd takes it for a machine that boots for the first time
    on a hypervisor. A clone cannot get a new boot-id from the kernel: its file is masked.
    """
    return {
        "entropy": secrets.token_bytes(_ENTROPY).hex(),
        "time": clock(),
        "hostname": name,
        "machine_id": identity.uuid.replace("-", ""),
        "instance_id": identity.instance_id,
        "host_key_private": identity.host_key.private,
        "host_key_public": identity.host_key.public,
        "user": user,
        "authorized_keys": list(keys),
        "boot_id": str(uuid.uuid4()) if mask_boot_id else "",
        "mac": list(mac or ()),
    }


def read_facts(text: str) -> dict[str, Any]:
    """Return what a guest says of itself. Raises CommandFailed when it makes no sense."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandFailed(
            "the guest's account of its identity cannot be read", detail=text[:200]
        ) from error
    if not isinstance(facts, dict):
        raise CommandFailed("the guest's account of its identity is none", detail=text[:200])
    if "error" in facts:
        raise CommandFailed("the guest failed to change its identity", detail=str(facts["error"]))
    return facts


def check(
    order: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    tolerance: float = CLOCK_TOLERANCE,
    clock: Callable[[], float] = time.time,
) -> None:
    """Hold what a guest says of itself against its order. Raises DomainError on a difference.

    *tolerance* is how far its clock may be off, in seconds.
    """
    wanted = {
        "hostname": order["hostname"],
        "hostname_file": order["hostname"],
        "machine_id": order["machine_id"],
        "host_key": order["host_key_public"],
    }
    if order["boot_id"]:
        wanted["boot_id"] = order["boot_id"]
    # Not every guest has D-Bus or cloud-init's directory.
    for key, value in (("dbus_id", "machine_id"), ("instance_id", "instance_id")):
        if facts.get(key) is not None:
            wanted[key] = order[value]
    wrong = [key for key, value in wanted.items() if facts.get(key) != value]
    if order.get("mac") and order["mac"][1] not in (facts.get("mac") or []):
        wrong.append("mac")
    try:
        off = clock() - float(facts["time"])
    except (KeyError, TypeError, ValueError):
        off = float("inf")
    if abs(off) > tolerance:
        wrong.append("time")
    if wrong:
        raise DomainError(
            f"{order['hostname']} did not take on its identity: {', '.join(wrong)}",
            detail="\n".join(f"{key}: {facts.get(key)}" for key in wrong),
        )
