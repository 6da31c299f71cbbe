"""Binfmt handlers of a test's own: a user namespace with a binfmt_misc that nobody else sees."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from armvm.usermode.programs import interpreter
from armvm.usermode.rootfs.enter import header_of


def qemu_user(architecture: str) -> Path:
    """Return where this host's QEMU for an architecture's programs is, or would be."""
    paths = [interpreter.BINARIES / name for name in interpreter.names(architecture)]
    return next((path for path in paths if path.exists()), paths[0])


#: The host's QEMU for 32-bit ARM.
ARM = qemu_user("arm")

_SCRIPT = """\
read -r _
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
while [ "$1" != -- ]; do printf %s "$1" > /proc/sys/fs/binfmt_misc/register || exit 99; shift; done
shift
exec "$@"
"""


def line(name: str, flags: str = "F") -> str:
    """Return the line that registers QEMU's static program for an architecture."""
    magic = "".join(f"\\x{byte:02x}" for byte in header_of(name))
    mask = "\\xff" * 7 + "\\x00" + "\\xff" * 8 + "\\xfe" + "\\xff" * 3
    return f":test-{name}:M:0:{magic}:{mask}:{qemu_user(name)}:{flags}"


def run_with_handlers(
    handlers: Sequence[str],
    words: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a command as root in a namespace whose only binfmt handlers are those *handlers*.

    All ids are mapped to themselves, which takes root.
    """
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", "sh", "-c", _SCRIPT, "sh", *handlers, "--", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        own = Path("/proc/self/ns/user").readlink()
        end = time.monotonic() + 20
        while Path(f"/proc/{process.pid}/ns/user").readlink() == own:
            assert time.monotonic() < end
            time.sleep(0.01)
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text("0 0 4294967295\n")
        out, err = process.communicate("\n", timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


_HOLD = """\
read -r _
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && mount -t tmpfs none /etc/binfmt.d && echo ok
exec sleep 3600
"""


@contextmanager
def holding() -> Iterator[tuple[str, ...]]:
    """Hold a namespace without binfmt handlers; yield the words that run a command as root there.

    /etc/binfmt.d is empty there. Ids below 65536 are mapped to themselves, which takes root; the
    map is not whole, so that programs know that they have no rights outside. Skips the test where
    the kernel does not allow it.
    """
    words = ["unshare", "--user", "--mount", "sh", "-c", _HOLD]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as holder:
        try:
            own = Path("/proc/self/ns/user").readlink()
            end = time.monotonic() + 20
            while Path(f"/proc/{holder.pid}/ns/user").readlink() == own:
                assert time.monotonic() < end
                time.sleep(0.01)
            for kind in ("uid", "gid"):
                Path(f"/proc/{holder.pid}/{kind}_map").write_text("0 0 65536\n")
            assert holder.stdin is not None and holder.stdout is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            told = holder.stdout.readline().strip()
            if told != "ok":
                pytest.skip(f"needs Linux 6.7 and user namespaces: {told}")
            enter = ("nsenter", "--target", str(holder.pid), "--user", "--mount")
            yield (*enter, "--preserve-credentials", "--")
        finally:
            holder.kill()
