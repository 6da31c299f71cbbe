"""Whose a file in a shared directory is: the numbers of users in the guest and on the host.

virtiofsd can run in a user namespace: one user of the guest is one user of the host there, and all
others, root among them, have numbers of the host that are nobody's. A setuid file of the guest's
root is then no file of the host's root. Source: libvirt's formatdomain.html, "Filesystems"
(``idmap``, since 10.0), user_namespaces(7), subuid(5).
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import MissingCapability

#: Where it is written down which numbers a user may give away.
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")


@dataclass(frozen=True, kw_only=True)
class Range:
    """*count* numbers of the guest, from *start* on, and the host's for them, from *target* on."""

    start: int
    target: int
    count: int


@dataclass(frozen=True, kw_only=True)
class IdMap:
    """Users and groups; each number of the guest is in one range at most."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]


def id_map(
    account: pwd.struct_passwd, uid: int, gid: int, *, subuid: Path = SUBUID, subgid: Path = SUBGID
) -> IdMap:
    """Return the map in which the guest's user, with these numbers there, is the host's *account*.

    Raises MissingCapability where the account has no numbers to give away.
    """
    return IdMap(
        uids=_ranges(uid, account.pw_uid, _given(subuid, account, uid)),
        gids=_ranges(gid, account.pw_gid, _given(subgid, account, gid)),
    )


def _ranges(guest: int, host: int, given: Range) -> tuple[Range, ...]:
    """Return *guest* as *host*, and the numbers below and above it as those given away."""
    one = Range(start=guest, target=host, count=1)
    above = Range(start=guest + 1, target=given.target + guest, count=given.count - guest)
    if guest == 0:
        return one, above
    return Range(start=0, target=given.target, count=guest), one, above


def _given(file: Path, account: pwd.struct_passwd, least: int) -> Range:
    """Return the first range of a user's that has more than *least* numbers."""
    for found in _entries(file, account):
        if found.count > least:
            return found
    option = "--add-subuids" if file.name == SUBUID.name else "--add-subgids"
    raise MissingCapability(
        f"{file} gives {account.pw_name} no numbers for the guest's other users",
        hint=f"sudo usermod {option} 100000-165535 {account.pw_name}   (numbers nobody else has)",
    )


def _entries(file: Path, account: pwd.struct_passwd) -> Iterator[Range]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    names = (account.pw_name, str(account.pw_uid))
    for line in lines:
        who, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if who in names and first.isdecimal() and count.isdecimal():
            yield Range(start=0, target=int(first), count=int(count))
