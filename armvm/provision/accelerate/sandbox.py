"""Compile in a confined directory tree: bubblewrap around the host's cross compiler.

The compiler sees the guest's files at their paths in the guest, read-only, the host's ``/usr``
below `HOST`, and a directory for its output. It has no network, sees no other processes, has no
privileges, and has limits of memory, time, processes and output. Its arguments and sources come
from the guest, so it may do anything within that. Source: bwrap(1).
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process
from armvm.base.errors import CommandFailed, MissingCapability
from armvm.base.limits import Limits
from armvm.base.programs import find
from armvm.provision.accelerate.options import Step

#: Where the host's /usr is in the tree, and the directory of the output.
HOST, OUTPUT = "/.armvm-host", "/.armvm-output"
#: Where the guest's files cannot be.
TAKEN = (f"{HOST}/", f"{OUTPUT}/", "/dev/")
#: Limits of a step: bytes of memory of each process, bytes of its output and of each file in it
#: (which may have holes), seconds of CPU time of each process, and seconds in all.
MEMORY, LARGEST, CPU, PATIENCE = 4 << 30, 256 << 20, 900, 1800.0
#: Most processes in a sandbox. gcc needs five: bubblewrap, the shell, gcc, cc1 and as.
PROCESSES = 8
#: Most bytes that a sandbox may send: its files, and the archive around them.
_MOST_SENT = LARGEST + (1 << 20)
#: The unprivileged user and group that root's compilers have; Linux distributions call them so.
NOBODY = 65534
#: Runs its arguments, then writes their exit code (c), messages (e), object (o) and dependency file
#: (d) to standard output. Code that the guest makes the compiler run can write there in its place:
#: see `_members`. An option that makes the compiler write a file of another name is one that the
#: guest has to compile with.
_SCRIPT = f"""\
ulimit -f {LARGEST // 512}
"$@" >{OUTPUT}/e 2>&1 </dev/null
code=$?
cd {OUTPUT} || exit
case "$(echo *)" in "e" | "e o" | "d e o") ;; *) [ $code != 0 ] || code=1 ;; esac
echo $code >c
exec tar -cf - c e o d 2>/dev/null
"""
_NAMES = ("c", "e", "o", "d")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a compiler left: its exit code, messages, and the files that it was to write."""

    code: int
    messages: bytes
    output: bytes | None
    depends: bytes | None


def compile_in(
    tree: Path,
    step: Step,
    *,
    compiler: str,
    hidden: Sequence[str],
    standard: Sequence[str],
    directory: str,
    epoch: str,
    terminal: bool,
) -> Result:
    """Compile a step whose files are in *tree*.

    *compiler* is a path below ``/usr``, *hidden* its include directories on this host, *standard*
    those of the guest's compiler, *directory* the working directory. Raises CommandFailed if it
    takes longer than PATIENCE seconds, sends too much or cannot be started.
    """
    words = [
        f"{HOST}{compiler}",
        *step.options,
        "-pipe",
        *step.include_options,
        *(word for one in standard for word in ("-isystem", one)),
        *(["-fdiagnostics-color=always"] if terminal else []),
        *(["-MF", f"{OUTPUT}/d"] if step.depends is not None else []),
        "-o",
        f"{OUTPUT}/o",
        step.source,
    ]
    told = {"PATH": f"{HOST}/usr/bin", "LC_ALL": "C.UTF-8", "TMPDIR": OUTPUT, "HOME": OUTPUT}
    told["LD_LIBRARY_PATH"] = ":".join(f"{HOST}{one}" for one in _libraries())
    if epoch:
        told["SOURCE_DATE_EPOCH"] = epoch
    done = process.run(
        [
            *_unprivileged(),
            find("bwrap"),
            *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--uid", str(NOBODY), "--gid", str(NOBODY), "--clearenv"),
            *("--ro-bind", str(tree), "/", "--ro-bind", "/usr", f"{HOST}/usr"),
            # The compiler always looks there too, for what the guest's directories do not have.
            *(word for one in _outermost(hidden) for word in _empty(f"{HOST}{one}")),
            *("--dev", "/dev", "--remount-ro", "/dev"),
            *("--size", str(LARGEST), "--tmpfs", OUTPUT),
            *(word for key, value in told.items() for word in ("--setenv", key, value)),
            *("--chdir", directory, "--", *_few_processes()),
            *(f"{HOST}/usr/bin/sh", "-c", _SCRIPT, "sh"),
            *words,
        ],
        check=False,
        timeout=PATIENCE,
        limits=Limits(memory=MEMORY, cpu=CPU),
        most=_MOST_SENT,
    )
    found = _members(done.stdout)
    code = found.get("c", b"")[:9].strip()
    if not code.isdigit():
        raise CommandFailed(
            "the sandbox failed", detail=done.stderr.decode(errors="replace")[-500:] or None
        )
    return Result(
        code=int(code),
        messages=found.get("e", b""),
        output=found.get("o"),
        depends=found.get("d"),
    )


def include_directories(compiler: str, language: str) -> list[str]:
    """Return the standard include directories of a compiler of this host."""
    words = [compiler, "-x", language, "-E", "-v", "-"]
    told = process.run(words, input=b"", env={"LC_ALL": "C"}, timeout=60).stderr.decode()
    part = told.partition("#include <...>")[2].partition("End of search")[0]
    return [posixpath.normpath(one.strip()) for one in part.splitlines()[1:]]


def _outermost(directories: Sequence[str]) -> list[str]:
    return [
        one
        for one in dict.fromkeys(directories)
        if one.startswith("/usr/") and not any(one.startswith(f"{two}/") for two in directories)
    ]


def _empty(directory: str) -> tuple[str, ...]:
    """Return the words that put an empty directory, read-only, in a directory's place."""
    return "--size", "4096", "--tmpfs", directory, "--remount-ro", directory


def _members(archive: bytes) -> dict[str, bytes]:
    """Return the files of a tar archive, which may be a confined program's instead of tar's.

    Each name counts once, and a file takes no more memory than in the archive: no compression, no
    holes. Raises CommandFailed for anything else than `_SCRIPT` writes.
    """
    found: dict[str, bytes] = {}
    with (
        contextlib.suppress(tarfile.TarError),  # it may be incomplete
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar,
    ):
        for one in tar:
            content = tar.extractfile(one) if one.isreg() and not one.issparse() else None
            if content is None or one.name in found or one.name not in _NAMES:
                raise CommandFailed("the sandbox sent an odd archive")
            found[one.name] = content.read()
    return found


def prepare(tree: Path) -> None:
    """Create in a new tree what the compiler needs beside the guest's files."""
    for path in (f"{HOST}/usr", OUTPUT, "/dev"):
        (tree / path[1:]).mkdir(parents=True)
    for name in ("lib", "lib64"):  # where the host's programs expect their dynamic linker
        source = Path("/", name)
        if source.exists() and not (tree / name).exists():
            (tree / name).symlink_to(f"{HOST}{source.resolve()}")


def may_use(path: Path) -> None:
    """Let the compilers of this process, and no other user's, enter a directory."""
    path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def assert_works() -> None:
    """Raise MissingCapability, with the cure, if compilers cannot be confined on this host."""
    find("bwrap")
    done = process.run(
        [
            *_unprivileged(),
            find("bwrap"),
            *("--unshare-all", "--ro-bind", "/", "/", "--", "/usr/bin/true"),
        ],
        check=False,
        timeout=60,
    )
    if done.returncode != 0:
        raise MissingCapability(
            "bubblewrap cannot make a sandbox for compilers on this host",
            detail=done.stderr.decode(errors="replace").strip()[-500:] or None,
            hint="allow user namespaces, for example: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )


def _unprivileged() -> list[str]:
    """Return the words that start a program without root's privileges; none for other users."""
    if os.geteuid() != 0:
        return []
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
    return [find("setpriv"), *ids, "--"]


def _few_processes() -> list[str]:
    """Return the words that limit a sandbox's processes; none on Linux before 5.14.

    There, a limit would count all processes of the user. Source: kernel/ucount.c.
    """
    version = tuple(int(one) for one in re.findall(r"\d+", os.uname().release)[:2])
    return [f"{HOST}/usr/bin/prlimit", f"--nproc={PROCESSES}"] if version >= (5, 14) else []


def _libraries() -> list[str]:
    """Return the host's directories of shared libraries."""
    places = [*sorted(Path("/usr/lib").glob(f"{os.uname().machine}-*")), Path("/usr/lib64")]
    return [str(one) for one in (*places, Path("/usr/lib")) if one.is_dir()]
