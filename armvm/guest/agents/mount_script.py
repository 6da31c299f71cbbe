"""The shell scripts that put a shared directory into a guest's /etc/fstab, and take it out.

The line has ``nofail``: a guest whose host gives it no such directory any more boots all the same.
"""

from __future__ import annotations

import posixpath
import re
import shlex

from armvm.base.errors import ConfigError
from armvm.settings.names import shown

#: How the scripts end: the kernel has no virtiofs, something is mounted there, it is in use.
NO_VIRTIOFS, TAKEN, BUSY = 65, 66, 67
#: A virtio-fs tag has 36 bytes.
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,34}")

_POSSIBLE = f"""\
modprobe virtiofs 2>/dev/null || grep -qw virtiofs /proc/filesystems || exit {NO_VIRTIOFS}
if mountpoint -q "$target"; then exit {TAKEN}; fi
"""
#: The new file is whole, and on the same file system, before anything is mounted: with a full disk
#: there the old one stays.
_WITHOUT = """\
set -e
new=/etc/fstab.armvm
trap 'rm -f "$new"' EXIT
cp -p /etc/fstab "$new"
awk -v tag="$tag" '$1 != tag || $3 != "virtiofs"' /etc/fstab >"$new"
"""
#: The kernel may find a device that was plugged in just now a little later.
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
#: systemd reads the file with the next boot: making it do so now costs an emulated guest a minute.
_DONE = """\
mv -f "$new" /etc/fstab
"""
_UNMOUNT = f"""\
if mountpoint -q "$target"; then umount -- "$target" || exit {BUSY}; fi
"""


def check_target(path: str) -> str:
    """Return a guest directory in its plain form. Raises ConfigError for what can be none."""
    plain = posixpath.normpath(path)
    if path.startswith("/") and plain.strip("/") and path.isprintable():
        return "/" + plain.lstrip("/")
    raise ConfigError(
        f"{shown(path)} is no place for a directory in the guest",
        hint="it has to be a whole path: NAME:/mnt/src",
    )


def check_tag(tag: str) -> str:
    """Return *tag* if a share can be called that. Raises ConfigError."""
    if _TAG.fullmatch(tag):
        return tag
    raise ConfigError(
        f"{shown(tag)} cannot be a tag", hint="use 1 to 35 of a-z, A-Z, 0-9, '.', '_' and '-'"
    )


def possible(target: str) -> bytes:
    """Return the script that tells whether a share can be mounted at *target*; nothing changes."""
    return _script("", target, _POSSIBLE)


def add(tag: str, target: str, *, read_only: bool) -> bytes:
    """Return the script that mounts *target* now and with each boot. If it fails, neither is so."""
    options = ",".join(["ro" if read_only else "rw", "nosuid", "nodev"])
    line = f"{tag} {_escaped(target)} virtiofs {options},nofail 0 0"
    text = _POSSIBLE + _WITHOUT + _MOUNT + _DONE
    return _script(tag, target, text, options=options, line=line)


def remove(tag: str, target: str) -> bytes:
    """Return the script that unmounts *target*, and has it mounted no more."""
    return _script(tag, target, _UNMOUNT + _WITHOUT + _DONE)


def _script(tag: str, target: str, text: str, **more: str) -> bytes:
    words = {"tag": tag, "target": target, **more}
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in words.items())
    # All of it is read before any of it runs: a program in it could read the rest as its input.
    return f"{{\n{head}{text}exit 0\n}} </dev/null\n".encode()


def _escaped(path: str) -> str:
    """Return a path as fstab(5) takes it."""
    return "".join(f"\\{ord(one):03o}" if one in " \\#" else one for one in path)
