"""Making a clone another machine than its golden: the order it gets, and the check afterwards.

The guest's half is `armvm.guest.agents.clone_agent`, sent as text. The
order holds private keys, so it goes through a channel of the machine's own and is never on a
command line. Nothing reaches the clone from outside before it has answered (provision opens the
way to its ssh after the check).
"""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from armvm.base.errors import CommandFailed, DomainError
from armvm.guest.identity import Identity

#: The lines of `armvm.guest.agents.clone_agent` that have no place behind the text they refer to.
_TAKEN = re.compile(
    r"^from (?:__future__ .*|armvm\.guest\.agents\.clone_agent_tools import \([^)]*\))\n",
    re.MULTILINE,
)
#: Bytes of fresh entropy: the kernel's generator takes 32; more does no harm.
_ENTROPY = 64
#: Seconds that a guest's clock may be behind when the last word about it is spoken.
CLOCK_TOLERANCE = 0.3
#: How often a clock is set before its error is accepted. Each is a fresh chance that nothing
#: holds up the word on its way.
CLOCK_TRIES = 10
#: Seconds of error at which a clock was not set at all: no host is as slow as that.
CLOCK_BROKEN = 60.0


def guest_command(verb: str, *words: str) -> list[str]:
    """Return the argument list that runs a verb of `armvm.guest.agents.clone_agent` in a guest.

    ``-I -S``: no site packages and nothing of the environment; it also starts faster.
    """
    tools, main = (
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("clone_agent_tools.py", "clone_agent.py")
    )
    # One text: what its second half takes from the first is there already.
    main = _TAKEN.sub("", main)
    return ["/usr/bin/python3", "-I", "-S", "-c", tools + main, verb, *words]


def make_order(
    name: str,
    identity: Identity,
    *,
    user: str,
    keys: Sequence[str],
    mac: tuple[str, str] | None = None,
    password_hash: str | None = None,
    full: bool = False,
    mask_boot_id: bool = True,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Return what a clone called *name* is to become. *keys* may log in as *user*.

    *mac* is the golden's MAC address and the clone's, where its network card is to change it.
    *password_hash* is *user*'s password as crypt(5) writes it. With *full*, cloud-init runs with
    what the seed holds, once the answer is given.

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
        "password_hash": password_hash or "",
        "full": full,
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


def check(order: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Hold what a guest says of itself against its order. Raises DomainError on a difference.

    Its clock is no part of it: see `set_clock`.
    """
    wanted: dict[str, Any] = {
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
    heard = {"full": order["full"], "password": bool(order["password_hash"])}
    wanted |= {key: True for key, value in heard.items() if value}
    wrong = [key for key, value in wanted.items() if facts.get(key) != value]
    if order.get("mac") and order["mac"][1] not in (facts.get("mac") or []):
        wrong.append("mac")
    if wrong:
        raise DomainError(
            f"{order['hostname']} did not take on its identity: {', '.join(wrong)}",
            detail="\n".join(f"{key}: {facts.get(key)}" for key in wrong),
        )


def set_clock(
    facts: Mapping[str, Any],
    ask: Callable[[bytes], bytes],
    *,
    clock: Callable[[], float] = time.time,
) -> float:
    """See that a guest's clock is right, and return by how many seconds it may be behind.

    *facts* were received just now; *ask* hands the guest a line and returns its answer. A guest
    sets its clock to the time at which the word was sent, so what the word and the answer took on
    their way (long, on a busy host) is the most that it can be behind. It is set again until
    that is little, some times over at most: a slow host is no reason to do without the clone.

    Raises DomainError when the clock cannot be set, CommandFailed for an answer of nonsense.
    """
    behind = clock() - _time_in(facts)
    for _ in range(CLOCK_TRIES):
        if abs(behind) <= CLOCK_TOLERANCE:
            break
        answer = ask(json.dumps({"time": clock()}).encode())
        now = read_facts(answer.decode(errors="replace"))
        behind = clock() - _time_in(now)
    if not abs(behind) < CLOCK_BROKEN:
        raise DomainError(f"its clock could not be set: it is off by {behind:.0f} s")
    return behind


def _time_in(facts: Mapping[str, Any]) -> float:
    try:
        return float(facts["time"])
    except (KeyError, TypeError, ValueError):
        return float("nan")
