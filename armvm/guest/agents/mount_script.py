"""The shell scripts that add a shared directory to a guest's /etc/fstab, and remove it.

The line has ``nofail``, so that the guest boots even if the host no longer shares the directory.
"""

from __future__ import annotations

import posixpath
import re
import shlex

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

#: The scripts' exit codes: no virtiofs in the kernel, something is mounted there, it is in use.
NO_VIRTIOFS, TAKEN, BUSY = 65, 66, 67
#: A virtio-fs tag is at most 36 bytes, including a zero byte.
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,34}")

_POSSIBLE = f"""\
modprobe virtiofs 2>/dev/null || grep -qw virtiofs /proc/filesystems || exit {NO_VIRTIOFS}
if mountpoint -q "$target"; then exit {TAKEN}; fi
"""
#: The new file is complete, on the same file system, before anything is mounted: if the disk is
#: full, the old one stays.
_WITHOUT = """\
set -e
new=/etc/fstab.armvm
trap 'rm -f "$new"' EXIT
cp -p /etc/fstab "$new"
awk -v tag="$tag" '$1 != tag || $3 != "virtiofs"' /etc/fstab >"$new"
"""
#: The kernel may take a moment to detect a device that was just plugged in.
_MOUNT = """\
printf '%s\\n' "$line" >>"$new"
made=
[ -d "$target" ] || made=yes
mkdir -p -- "$target"
i=0
until mount -t virtiofs -o "$options" -- "$tag" "$target" 2>/dev/null; do
  i=$((i + 1))
  if [ $i -ge 40 ]; then
    [ -z "$made" ] || rmdir -- "$target"
    exit 1
  fi
  sleep 0.5
done
"""
#: systemd reads the file at the next boot: a reload now takes a minute in an emulated guest.
_DONE = """\
mv -f "$new" /etc/fstab
"""
_UNMOUNT = f"""\
if mountpoint -q "$target"; then umount -- "$target" || exit {BUSY}; fi
"""


def check_target(path: str) -> str:
    """Return a guest directory's normalized path. Raises ConfigError if it is invalid."""
    plain = posixpath.normpath(path)
    if path.startswith("/") and plain.strip("/") and path.isprintable():
        return "/" + plain.lstrip("/")
    raise ConfigError(
        f"invalid guest directory {shown(path)}",
        hint="use an absolute path: NAME:/mnt/src",
    )


def check_tag(tag: str) -> str:
    """Return *tag* if it is a valid share name. Raises ConfigError."""
    if _TAG.fullmatch(tag):
        return tag
    raise ConfigError(
        f"invalid tag {shown(tag)}", hint="use 1 to 35 of a-z, A-Z, 0-9, '.', '_' and '-'"
    )


def possible(target: str) -> bytes:
    """Return the script that checks whether a share can be mounted at *target*."""
    return _script("", target, _POSSIBLE)


def add(tag: str, target: str, *, read_only: bool) -> bytes:
    """Return the script that mounts *target* now and at each boot; on failure, it does neither."""
    options = ",".join(["ro" if read_only else "rw", "nosuid", "nodev"])
    line = f"{tag} {_escaped(target)} virtiofs {options},nofail 0 0"
    text = _POSSIBLE + _WITHOUT + _MOUNT + _DONE
    return _script(tag, target, text, options=options, line=line)


def remove(tag: str, target: str) -> bytes:
    """Return the script that unmounts *target* and removes it from /etc/fstab."""
    return _script(tag, target, _UNMOUNT + _WITHOUT + _DONE)


def _script(tag: str, target: str, text: str, **more: str) -> bytes:
    words = {"tag": tag, "target": target, **more}
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in words.items())
    # The shell reads all of it before running any: a program in it could read the rest as input.
    return f"{{\n{head}{text}exit 0\n}} </dev/null\n".encode()


def _escaped(path: str) -> str:
    """Return a path escaped for fstab(5)."""
    return "".join(f"\\{ord(one):03o}" if one in " \\#" else one for one in path)
