"""Entering a root file system: whose ids, which environment, and can its programs run here."""

from __future__ import annotations

import json
import os
import platform
import pwd
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armvm.base import programs
from armvm.base.errors import ConfigError, MissingCapability, NotFound, PermissionDenied
from armvm.usermode.binfmt import aarch64, handlers
from armvm.usermode.programs import emulate
from armvm.usermode.rootfs import tree
from armvm.usermode.rootfs.requirements import range_of

#: PATH in the root file system, as Debian's login gives root.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Variables of the caller's that mean the same in there.
PASSED = ("TERM", "COLORTERM", "NO_COLOR", "http_proxy", "https_proxy", "no_proxy")

#: From here on, ids are lent to user namespaces (subuid(5)): a tree of theirs is an ordinary
#: user's, also when root looks at it.
FIRST_LENT = 65536

#: How the helper is started: with the standard library and armvm alone.
_START = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from armvm.usermode.rootfs.enter_program import main; main()"
)
_PACKAGES = Path(__file__).resolve().parents[3]

#: A line of a user namespace's map (user_namespaces(7)): id inside, id outside, how many.
Lines = list[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class Ids:
    """The ids of a user namespace; with *direct*, root writes them itself."""

    uid: Lines
    gid: Lines
    direct: bool = False


def check_root(root: Path) -> Path:
    """Return the real path of a directory with a root file system in it.

    Raises NotFound, ConfigError for something else, PermissionDenied.
    """
    try:
        real = root.expanduser().resolve(strict=True)
        if not real.is_dir():
            raise ConfigError(f"{root} is no directory", hint="armvm rootfs create DIR makes one")
        if not os.access(real, os.X_OK):
            raise PermissionDenied(f"{root} cannot be entered by this user", hint="run it as root")
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no directory {root}", hint="armvm rootfs create DIR makes one"
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"{root} cannot be looked at: {error.strerror}", hint="run it as root"
        ) from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{root} cannot be entered: {error}", hint="name a directory") from error
    if real == Path("/"):
        raise ConfigError("/ is this host's own root file system", hint="name another directory")
    return real


def architecture(root: Path) -> str:
    """Return QEMU's name of the architecture of *root*; raises ConfigError where it is unclear."""
    found = tree.architecture(root)
    if found is None:
        raise ConfigError(
            f"{root} has no program in it whose architecture could be read",
            hint=f"a root file system has {', '.join('/' + one for one in tree.PROGRAMS)}",
        )
    return found


def ensure_runs(name: str, *, root: Path = handlers.ROOT, machine: str | None = None) -> None:
    """See to it that programs of an architecture run in another root file system.

    For aarch64 a handler is registered where one is missing and that may be done; *root* is
    binfmt_misc, *machine* the host's own architecture. Raises MissingCapability.
    """
    host = machine or platform.machine()
    own = {name} if name == host else set()
    own |= {"i386"} if host == "x86_64" else set()
    if name in own:
        return
    if name == "aarch64":
        aarch64.ensure_handler(root, machine=machine)
        return
    winner = handlers.read(root).winner(header_of(name))
    if winner is not None and winner.fixed:
        return
    if winner is None and host == "aarch64" and name == "arm":
        return  # most such processors run these programs themselves; the kernel will tell
    if winner is not None:
        raise MissingCapability(
            f"the binfmt handler {winner.name} has no flag F, so it works in no other root file "
            "system",
            hint=f"armvm binfmt register {name} --replace",
        )
    raise MissingCapability(
        f"no binfmt handler runs {name} programs here", hint=f"armvm binfmt register {name}"
    )


def header_of(name: str) -> bytes:
    """Return how a program of an architecture begins: an ELF header's first 20 bytes."""
    machine, bits, little = next(
        key for key, value in emulate.ARCHITECTURES.items() if value == name
    )
    order: Any = "little" if little else "big"
    numbers = (2).to_bytes(2, order) + machine.to_bytes(2, order)
    return b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1]) + bytes(9) + numbers


def ids_for(root: Path, *, uid: int | None = None, etc: Path = Path("/etc")) -> Ids | None:
    """Return the ids of the user namespace in which *root*'s owner is root; None: none is needed.

    mmdebstrap gives an ordinary user's files the ids that /etc/subuid lends him; files may also
    be his own. Root needs no namespace for root's trees; an ordinary user's he enters with that
    user's ids, so that what runs in there is not the host's root. *uid* is this process's, *etc*
    is where subuid and subgid are. Raises PermissionDenied for a tree of somebody else's,
    MissingCapability without ids.
    """
    status = root.stat()
    me = os.geteuid() if uid is None else uid
    if me == 0:
        if status.st_uid < FIRST_LENT:
            return None
        whole = [(0, status.st_uid, FIRST_LENT)]
        return Ids(uid=whole, gid=[(0, status.st_gid, FIRST_LENT)], direct=True)
    try:
        name = pwd.getpwuid(me).pw_name
    except KeyError:
        raise MissingCapability(
            f"uid {me} has no name here, and so no ids in {etc / 'subuid'}", hint="run it as root"
        ) from None
    lent = [range_of(etc / file, name) for file in ("subuid", "subgid")]
    if lent[0] is None or lent[1] is None:
        raise MissingCapability(
            f"{name} has no ids of his own in {etc / 'subuid'} and {etc / 'subgid'}",
            hint=f"sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 {name}"
            "   (free ones; or enter as root)",
        )
    (first, count), (first_group, groups) = lent[0], lent[1]
    if status.st_uid == first:
        return Ids(uid=[(0, first, count)], gid=[(0, first_group, groups)])
    if status.st_uid == me:
        return Ids(
            uid=[(0, me, 1), (1, first, count - 1)],
            gid=[(0, status.st_gid, 1), (1, first_group, groups - 1)],
        )
    owner = "root" if status.st_uid == 0 else f"uid {status.st_uid}"
    raise PermissionDenied(
        f"{root} belongs to {owner}, neither to you nor to the ids lent to you",
        hint="enter it as root (sudo), or make one of your own: armvm rootfs create",
    )


def environment(
    root: Path, name: str, caller: Mapping[str, str], machine: str | None = None
) -> dict[str, str]:
    """Return the environment of a command in *root*, whose architecture is called *name*."""
    passed = {key: caller[key] for key in PASSED if key in caller}
    if "TERM" not in passed:
        passed["TERM"] = "dumb"
    own = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}
    if "QEMU_CPU" in caller:
        own["QEMU_CPU"] = caller["QEMU_CPU"]
    elif name == "aarch64" and not aarch64.is_native(machine):
        # QEMU for arm does not know the property, and would run nothing.
        mixed = tree.foreign_architectures(root) & {"armhf", "armel"}
        if not mixed and _handler_is_quick():
            own["QEMU_CPU"] = emulate.QUICK
    return {**passed, **own}


def _handler_is_quick() -> bool:
    handler = aarch64.aarch64_handler()
    try:
        return handler is not None and emulate.takes_quick_cpu(handler.interpreter)
    except MissingCapability:
        return False  # gone; flag F keeps it running


def shell(root: Path) -> list[str]:
    """Return the login shell of *root*: bash, or else sh."""
    return [next((f"/{one}" for one in ("bin/bash",) if tree.find(root, one)), "/bin/sh"), "-l"]


def command(
    root: Path,
    words: Sequence[str],
    *,
    ids: Ids | None,
    environment: Mapping[str, str],
    network: bool = True,
) -> list[str | Path]:
    """Return the command line that runs *words* in *root*; see armvm.usermode.rootfs.enter_program.

    With *network*, the host's resolv.conf is lent. Raises MissingCapability without newuidmap.
    """
    resolv = "/etc/resolv.conf" if network else None
    return [*_helper(ids, root=str(root), environment=dict(environment), resolv=resolv), *words]


def as_owner(root: Path) -> tuple[str, ...]:
    """Return what to put before a command of the host's that must see *root* as its owner does.

    Raises what ids_for() raises.
    """
    ids = ids_for(root)
    return () if ids is None else _helper(ids, root=None, environment=None, resolv=None)


def _helper(ids: Ids | None, **request: Any) -> tuple[str, ...]:
    """Return the command line that runs what follows it as *request* says."""
    if ids is not None:
        request |= {"ids": {"uid": ids.uid, "gid": ids.gid}, "direct": ids.direct}
        if not ids.direct:
            request |= {name: programs.find(name) for name in ("newuidmap", "newgidmap")}
    else:
        request |= {"ids": None}
    return sys.executable, "-I", "-S", "-c", _START, str(_PACKAGES), json.dumps(request)


def prepared(root: Path, words: Sequence[str], *, network: bool = True) -> list[str | Path]:
    """Return the command line that runs *words* in *root*, once its programs can run here.

    Raises what check_root(), architecture(), ensure_runs() and ids_for() raise.
    """
    name = architecture(root)
    ids = ids_for(root)
    ensure_runs(name)
    values = environment(root, name, os.environ)
    return command(root, words or shell(root), ids=ids, environment=values, network=network)
