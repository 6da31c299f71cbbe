"""Images like those of boards' cards, made from a directory: MBR, FAT with cmdline.txt, ext4."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SECTOR = 512
MIB = 1 << 20

#: What a Raspberry Pi OS of 2025 has in its fstab, with the ids of its card.
FSTAB = """\
proc            /proc           proc    defaults          0       0
PARTUUID=5e3da3da-01  /boot/firmware  vfat    defaults          0       2
PARTUUID=5e3da3da-02  /               ext4    defaults,noatime  0       1
tmpfs /var/tmp tmpfs nosuid,size=50m 0 0
"""


def ext4(root: Path, target: Path, size: int, *options: str) -> None:
    """Write an ext4 file system of *size* bytes with the files of *root*."""
    target.write_bytes(b"")
    with target.open("r+b") as file:
        file.truncate(size)
    subprocess.run(
        ["/sbin/mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", root, target],
        check=True,
        capture_output=True,
    )


def mbr(entries: list[tuple[int, int, int]]) -> bytes:
    """Return a sector with a partition table: type, first sector, number of sectors of each."""
    table = b"".join(struct.pack("<4xB3xII", *entry) for entry in entries)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def board(root: Path, target: Path, size: int, *, boot: int = 16 * MIB) -> None:
    """Write the image of a board's card with *root*, whose file system has *size* bytes."""
    part = target.with_name(f"{target.name}.ext4")
    ext4(root, part, size)
    start = 4 * MIB
    with target.open("wb") as disk:
        first = (start + boot) // SECTOR
        disk.write(mbr([(0x0C, start // SECTOR, boot // SECTOR), (0x83, first, size // SECTOR)]))
        disk.truncate(start + boot + size)
    fat = f"{target}@@{start}"
    subprocess.run(
        ["mformat", "-i", fat, "-T", str(boot // SECTOR), "-h", "64", "-s", "32", "::"], check=True
    )
    line = b"console=tty1 root=PARTUUID=5e3da3da-02 init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
    subprocess.run(["mcopy", "-i", fat, "-", "::cmdline.txt"], input=line, check=True)
    subprocess.run(
        ["dd", f"if={part}", f"of={target}", "bs=1M", f"seek={(start + boot) // MIB}",
         "conv=notrunc,sparse", "status=none"],
        check=True,
    )  # fmt: skip
    part.unlink()
