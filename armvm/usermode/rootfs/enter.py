"""Prepare to enter a root file system: ids, environment, and whether its programs run here."""

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

#: PATH in the root file system, as Debian's login sets it for root.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The caller's variables that have the same meaning inside.
PASSED = ("TERM", "COLORTERM", "NO_COLOR", "http_proxy", "https_proxy", "no_proxy")

#: Ids from here on are lent to user namespaces (subuid(5)): a tree with such an owner is an
#: ordinary user's, even if root enters it.
FIRST_LENT = 65536

#: Starts the helper, with only the standard library and armvm.
_START = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from armvm.usermode.rootfs.enter_program import main; main()"
)
_PACKAGES = Path(__file__).resolve().parents[3]

#: A line of a user namespace's map (user_namespaces(7)): first id inside, outside, count.
Lines = list[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class Ids:
    """The ids of a user namespace; with *direct*, root writes them itself."""

    uid: Lines
    gid: Lines
    direct: bool = False


def check_root(root: Path) -> Path:
    """Return the real path of a directory that contains a root file system.

    Raises NotFound, ConfigError for anything else, PermissionDenied.
    """
    try:
        real = root.resolve(strict=True)
        if not real.is_dir():
            raise ConfigError(
                f"{root} is not a directory", hint="create one: armvm rootfs create DIR"
            )
        if not os.access(real, os.X_OK):
            raise PermissionDenied(f"permission denied: cannot enter {root}", hint="run it as root")
    except FileNotFoundError as error:
        raise NotFound(
            f"directory {root} not found", hint="create it: armvm rootfs create DIR"
        ) from error
    except PermissionError as error:
        raise PermissionDenied(
            f"cannot read {root}: {error.strerror}", hint="run it as root"
        ) from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"cannot enter {root}: {error}", hint="give the path of a directory"
        ) from error
    if real == Path("/"):
        raise ConfigError("/ is this host's own root file system", hint="use another directory")
    return real


def architecture(root: Path) -> str:
    """Return QEMU's name of the architecture of *root*; raises ConfigError if it is unclear."""
    found = tree.architecture(root)
    if found is None:
        raise ConfigError(
            f"cannot detect the architecture of {root}: no known program found",
            hint=f"expected one of: {', '.join('/' + one for one in tree.PROGRAMS)}",
        )
    return found


def ensure_runs(name: str, *, root: Path = handlers.ROOT, machine: str | None = None) -> None:
    """Make sure that programs of an architecture run in another root file system.

    For aarch64, registers a missing handler if this user may; *root* is binfmt_misc, *machine*
    the host's own architecture. Raises MissingCapability.
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
        return  # most such processors run these programs; the kernel reports an error otherwise
    if winner is not None:
        raise MissingCapability(
            f"the binfmt handler {winner.name} lacks flag F, so it does not work in other root "
            "file systems",
            hint=f"armvm binfmt register {name} --replace",
        )
    raise MissingCapability(
        f"no binfmt handler runs {name} programs here", hint=f"armvm binfmt register {name}"
    )


def header_of(name: str) -> bytes:
    """Return the first 20 bytes of an architecture's programs: an ELF header."""
    machine, bits, little = next(
        key for key, value in emulate.ARCHITECTURES.items() if value == name
    )
    order: Any = "little" if little else "big"
    numbers = (2).to_bytes(2, order) + machine.to_bytes(2, order)
    return b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1]) + bytes(9) + numbers


def ids_for(root: Path, *, uid: int | None = None, etc: Path = Path("/etc")) -> Ids | None:
    """Return the ids of the user namespace in which *root*'s owner is root, or None.

    For an ordinary user, mmdebstrap gives files the user's ids in /etc/subuid; files may also
    belong to the user. Root does not need a namespace for root's trees; it enters an ordinary
    user's tree with that user's ids, so that programs inside are not the host's root. *uid* is
    this process's, *etc* is the directory of subuid and subgid. Raises PermissionDenied for
    another user's tree, MissingCapability without ids.
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
            f"user name of uid {me} not found, so it cannot have ids in {etc / 'subuid'}",
            hint="run it as root",
        ) from None
    lent = [range_of(etc / file, name) for file in ("subuid", "subgid")]
    if lent[0] is None or lent[1] is None:
        raise MissingCapability(
            f"user {name} lacks ids in {etc / 'subuid'} and {etc / 'subgid'}",
            hint=f"sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 {name}"
            "   (if these ids are free; or enter as root)",
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
        f"{root} belongs to {owner}, not to you or your subordinate ids",
        hint="enter it as root (sudo), or create your own: armvm rootfs create",
    )


def environment(
    root: Path, name: str, caller: Mapping[str, str], machine: str | None = None
) -> dict[str, str]:
    """Return the environment of a command in *root* of the architecture *name*."""
    passed = {key: caller[key] for key in PASSED if key in caller}
    if "TERM" not in passed:
        passed["TERM"] = "dumb"
    own = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}
    if "QEMU_CPU" in caller:
        own["QEMU_CPU"] = caller["QEMU_CPU"]
    elif name == "aarch64" and not aarch64.is_native(machine):
        # QEMU for arm does not know the property, and would not start.
        mixed = tree.foreign_architectures(root) & {"armhf", "armel"}
        if not mixed and _handler_is_quick():
            own["QEMU_CPU"] = emulate.QUICK
    return {**passed, **own}


def _handler_is_quick() -> bool:
    handler = aarch64.aarch64_handler()
    try:
        return handler is not None and emulate.takes_quick_cpu(handler.interpreter)
    except MissingCapability:
        return False  # removed; flag F keeps it usable


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

    With *network*, the host's resolv.conf is mounted. Raises MissingCapability without newuidmap.
    """
    resolv = "/etc/resolv.conf" if network else None
    return [*_helper(ids, root=str(root), environment=dict(environment), resolv=resolv), *words]


def as_owner(root: Path) -> tuple[str, ...]:
    """Return the prefix for host commands that must see *root* as its owner does.

    Raises what ids_for() raises.
    """
    ids = ids_for(root)
    return () if ids is None else _helper(ids, root=None, environment=None, resolv=None)


def _helper(ids: Ids | None, **request: Any) -> tuple[str, ...]:
    """Return the helper's command line with *request*; the command to run follows it."""
    if ids is not None:
        request |= {"ids": {"uid": ids.uid, "gid": ids.gid}, "direct": ids.direct}
        if not ids.direct:
            request |= {name: programs.find(name) for name in ("newuidmap", "newgidmap")}
    else:
        request |= {"ids": None}
    return sys.executable, "-I", "-S", "-c", _START, str(_PACKAGES), json.dumps(request)


def prepared(root: Path, words: Sequence[str], *, network: bool = True) -> list[str | Path]:
    """Return the command line that runs *words* in *root*, after making sure that they can run.

    Raises what check_root(), architecture(), ensure_runs() and ids_for() raise.
    """
    name = architecture(root)
    ids = ids_for(root)
    ensure_runs(name)
    values = environment(root, name, os.environ)
    return command(root, words or shell(root), ids=ids, environment=values, network=network)
