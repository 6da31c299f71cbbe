"""Grow a guest's root file system after its disk has grown, as cloud-init does at boot.

Tools: growpart (cloud-guest-utils), resize2fs, xfs_growfs, btrfs. They report differently that
there is nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Prints the size of the root file system in bytes, before and after.
_SCRIPT = """
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
size() { df -B1 / | awk 'END { print $2 }'; }
source=$(findmnt -nvo SOURCE /) && type=$(findmnt -no FSTYPE /) || exit 1
before=$(size)
device=$(basename "$(readlink -f "$source")")
if [ -e "/sys/class/block/$device/partition" ]; then
  disk=$(basename "$(dirname "$(readlink -f "/sys/class/block/$device")")")
  said=$(growpart "/dev/$disk" "$(cat "/sys/class/block/$device/partition")" 2>&1)
  case $? in 0) ;; 1) case $said in NOCHANGE*) ;; *) echo "$said" >&2; exit 1;; esac;;
    *) echo "$said" >&2; exit 1;; esac
elif [ -d "/sys/class/block/$device/dm" ]; then
  echo "the root file system is on LVM or encrypted ($source)" >&2; exit 1
fi
case $type in
  ext2|ext3|ext4) resize2fs "$source" >&2 || exit 1;;
  xfs) xfs_growfs / >&2 || exit 1;;
  btrfs) btrfs filesystem resize max / >&2 || exit 1;;
  *) echo "unsupported file system $type" >&2; exit 1;;
esac
echo "$before $(size)"
"""


def grow_command() -> Sequence[str]:
    """Return the command that grows the root file system; run as root in the guest."""
    return ["/bin/sh", "-c", _SCRIPT]


def read_growth(output: str) -> tuple[int, int] | None:
    """Return the file system's size in bytes before and after; None if *output* has none."""
    words = output.split()
    if len(words) != 2 or not all(re.fullmatch("[0-9]{1,19}", word) for word in words):
        return None
    return int(words[0]), int(words[1])
