"""File ownership in a shared directory: user ids in the guest and on the host.

virtiofsd can run in a user namespace: one guest user is mapped to one host user, and all others,
including root, are mapped to host ids that no account uses. A setuid file of the guest's root then
does not belong to the host's root. Source: libvirt's formatdomain.html, "Filesystems"
(``idmap``, since 10.0), user_namespaces(7), subuid(5).
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armvm.base.errors import MissingCapability

#: The files that list which ids a user may map.
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")


@dataclass(frozen=True, kw_only=True)
class Range:
    """Maps *count* guest ids from *start* on to host ids from *target* on."""

    start: int
    target: int
    count: int


@dataclass(frozen=True, kw_only=True)
class IdMap:
    """Users and groups; each guest id is in at most one range."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]


def id_map(
    account: pwd.struct_passwd, uid: int, gid: int, *, subuid: Path = SUBUID, subgid: Path = SUBGID
) -> IdMap:
    """Return the map in which the guest's user, with these ids there, is the host's *account*.

    Raises MissingCapability if the account lacks subordinate ids.
    """
    return IdMap(
        uids=_ranges(uid, account.pw_uid, _given(subuid, account, uid)),
        gids=_ranges(gid, account.pw_gid, _given(subgid, account, gid)),
    )


def _ranges(guest: int, host: int, given: Range) -> tuple[Range, ...]:
    """Map the id *guest* to *host*, and the ids below and above it to the range *given*."""
    one = Range(start=guest, target=host, count=1)
    above = Range(start=guest + 1, target=given.target + guest, count=given.count - guest)
    if guest == 0:
        return one, above
    return Range(start=0, target=given.target, count=guest), one, above


def _given(file: Path, account: pwd.struct_passwd, least: int) -> Range:
    """Return the user's first range of more than *least* subordinate ids."""
    for found in _entries(file, account):
        if found.count > least:
            return found
    option = "--add-subuids" if file.name == SUBUID.name else "--add-subgids"
    raise MissingCapability(
        f"{file} lists too few subordinate ids of {account.pw_name} for the guest's other users",
        hint=f"sudo usermod {option} 100000-165535 {account.pw_name}   (choose ids not in use)",
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
