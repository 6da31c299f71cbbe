"""Give a clone its own identity: the request sent to it, and the check afterwards.

The guest's half is `armvm.guest.agents.clone_agent`, sent as text. The request holds private
keys, so it goes through the machine's own channel and never appears on a command line. Nothing
outside can reach the clone before it has answered (provision opens ssh to it after the check).
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.base.errors import CommandFailed, DomainError
from armvm.guest.agents.command_server import MARK
from armvm.guest.identity import Identity

#: The program's parts, in order.
_PARTS = ("clone_agent_tools.py", "command_server.py", "clone_agent.py")
#: Lines that are dropped when the parts are joined into one text.
_TAKEN = re.compile(
    r"^from (?:__future__|armvm\.guest\.agents\.\w+) import (?:\([^)]*\)|.*)\n",
    re.MULTILINE,
)
#: No site packages and nothing of the environment; it also starts faster.
PYTHON = ("/usr/bin/python3", "-I", "-S")
#: Bytes of fresh entropy: the kernel's generator uses 32; more does no harm.
_ENTROPY = 64
#: The most seconds that a guest's clock may be behind after it was set.
CLOCK_TOLERANCE = 0.3
#: How often a clock is set before its error is accepted. A message that was delayed once may
#: arrive in time the next time.
CLOCK_TRIES = 10
#: Seconds of error that mean that the clock was not set at all: no host is that slow.
CLOCK_BROKEN = 60.0


def program() -> str:
    """Return the text of `armvm.guest.agents.clone_agent` with all that it imports from armvm."""
    parts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in _PARTS]
    # One text: the later parts use the earlier ones' names without an import.
    return "\n".join([parts[0], *(_TAKEN.sub("", part) for part in parts[1:])])


def guest_command(verb: str) -> list[str]:
    """Return the argument list that runs a verb of `armvm.guest.agents.clone_agent` in a guest."""
    return [*PYTHON, "-c", program(), verb]


def request(order: Mapping[str, Any]) -> bytes:
    """Return an order as it is sent through a channel, without the end of the line."""
    return MARK + json.dumps(order).encode()


def make_order(
    name: str,
    identity: Identity,
    *,
    user: str,
    keys: Sequence[str],
    macs: Sequence[tuple[str, str]] = (),
    password_hash: str | None = None,
    full: bool = False,
    mask_boot_id: bool = True,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Return the request that gives a clone called *name* its identity. *keys* log in as *user*.

    *macs* has the golden's MAC address and the clone's, for each network card that must change it.
    *password_hash* is *user*'s password as crypt(5) writes it. With *full*, cloud-init runs with
    the seed's documents after the answer.

    The machine-id is the UUID: systemd chooses it too on a hypervisor's first boot. A clone
    cannot get a new boot-id from the kernel, so armvm masks the kernel's file.
    """
    return {
        "entropy": os.urandom(_ENTROPY).hex(),
        "time": clock(),
        "hostname": name,
        "machine_id": identity.uuid.replace("-", ""),
        "instance_id": identity.instance_id,
        "host_key_private": identity.host_key.private,
        "host_key_public": identity.host_key.public,
        "user": user,
        "authorized_keys": list(keys),
        "password_hash": password_hash or "",
        "full": full,
        "boot_id": str(uuid.uuid4()) if mask_boot_id else "",
        "mac": list(macs[0]) if macs else [],
        "other_macs": [list(pair) for pair in macs[1:]],
    }


def renew(
    ask: Callable[[bytes], bytes],
    *,
    user: str,
    keys: Sequence[str],
    clock: Callable[[], float] = time.time,
) -> float:
    """Renew a clone that was suspended: its clock, its random numbers, and the keys of *user*.

    Returns the most seconds that its clock may be behind. Raises CommandFailed if the guest fails
    to do it, and DomainError if the clock cannot be set.
    """
    order = {
        "entropy": os.urandom(_ENTROPY).hex(),
        "time": clock(),
        "user": user,
        "authorized_keys": list(keys),
    }
    facts = read_facts(ask(request({"renew": order})).decode(errors="replace"))
    if facts.get("renewed") is not True:
        raise CommandFailed("the guest sent an invalid answer", detail=str(facts)[:200])
    return set_clock(facts, ask, clock=clock)


def read_facts(text: str) -> dict[str, Any]:
    """Return a guest's identity report. Raises CommandFailed if it is invalid."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandFailed(
            "the guest sent an identity report that cannot be parsed", detail=text[:200]
        ) from error
    if not isinstance(facts, dict):
        raise CommandFailed("the guest sent an invalid identity report", detail=text[:200])
    if "error" in facts:
        raise CommandFailed(
            "the guest failed to change its identity", detail=str(facts["error"])[:1000]
        )
    return facts


def check(order: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Compare a guest's identity report with the request. Raises DomainError on a difference.

    The clock is not compared: see `set_clock`.
    """
    wanted: dict[str, Any] = {
        "hostname": order["hostname"],
        "hostname_file": order["hostname"],
        "machine_id": order["machine_id"],
        "host_key": order["host_key_public"],
    }
    if order["boot_id"]:
        wanted["boot_id"] = order["boot_id"]
    # Some guests lack D-Bus or cloud-init's directory.
    for key, value in (("dbus_id", "machine_id"), ("instance_id", "instance_id")):
        if facts.get(key) is not None:
            wanted[key] = order[value]
    heard = {"full": order["full"], "password": bool(order["password_hash"])}
    wanted |= {key: True for key, value in heard.items() if value}
    wrong = [key for key, value in wanted.items() if facts.get(key) != value]
    pairs = [one for one in (order.get("mac"), *order.get("other_macs", ())) if one]
    macs = facts.get("mac")
    if any(not isinstance(macs, list) or new not in macs for _, new in pairs):
        wrong.append("mac")
    if wrong:
        raise DomainError(
            f"{order['hostname']} did not apply its new identity: {', '.join(wrong)}",
            detail="\n".join(f"{key}: {str(facts.get(key))[:200]}" for key in wrong),
        )


def set_clock(
    facts: Mapping[str, Any],
    ask: Callable[[bytes], bytes],
    *,
    clock: Callable[[], float] = time.time,
) -> float:
    """Check a guest's clock, and return the most seconds that it may be behind.

    *facts* were received just now; *ask* sends the guest a line and returns its answer. A guest
    sets its clock to the time at which the line was sent, so it is behind by at most the round
    trip, which is long on a busy host. The clock is set again until the difference is small, a
    few times at most: a slow host does not make the clone unusable.

    Raises DomainError if the clock cannot be set, CommandFailed for an invalid answer.
    """
    behind = clock() - _time_in(facts)
    for _ in range(CLOCK_TRIES):
        if abs(behind) <= CLOCK_TOLERANCE:
            break
        answer = ask(request({"time": clock()}))
        now = read_facts(answer.decode(errors="replace"))
        behind = clock() - _time_in(now)
    if not abs(behind) < CLOCK_BROKEN:
        raise DomainError(f"cannot set its clock: it is off by {behind:.0f} s")
    return behind


def _time_in(facts: Mapping[str, Any]) -> float:
    try:
        return float(facts["time"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return float("nan")
