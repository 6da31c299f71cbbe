"""Detect the format of an image file by its first bytes, never by its name."""

from __future__ import annotations

import enum
import re
from pathlib import Path

from armvm.base.errors import HostileImage, ImageError
from armvm.settings.system import CODENAMES, OperatingSystem

#: Number of bytes to read: enough for ISO 9660's descriptor at 32 KiB.
HEAD = 36 * 1024

_NOT_DISKS = (
    (0, b"\x1f\x8b", "gzip-compressed", "gunzip"),
    (0, b"\xfd7zXZ\x00", "xz-compressed", "unxz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed", "unzstd"),
    (0, b"BZh", "bzip2-compressed", "bunzip2"),
    (0, b"PK\x03\x04", "a zip archive", "unzip"),
    (257, b"ustar", "a tar archive", "tar -xf"),
)
_OTHER_DISKS = (
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
_FOREIGN = re.compile(
    r"(?<![a-z0-9])(amd64|x86[_-]64|i[3-6]86|armhf|armv7l?|ppc64(?:el|le)|s390x|riscv64)(?![a-z0-9])",
    re.IGNORECASE,
)
_OURS = re.compile(r"arm64|aarch64", re.IGNORECASE)
#: Architecture words in image names, and the word in the name of the arm64 image.
_WORDS = {"amd64": "arm64", "x86_64": "aarch64", "x86-64": "aarch64"}
_DISTRO_VERSION = re.compile(r"(ubuntu|debian)-(\d{1,2}(?:\.\d\d)?|sid)(?![0-9a-z])")


class DiskFormat(enum.Enum):
    """A format of base images; the value is QEMU's name for it."""

    QCOW2 = "qcow2"
    RAW = "raw"


def recognise(head: bytes, name: str) -> DiskFormat:
    """Return the disk format of a file that starts with *head* (its first HEAD bytes).

    Raises HostileImage, with the actual type of the file. *name* is for messages.
    """
    if head.startswith(b"QFI\xfb"):
        return DiskFormat.QCOW2
    for offset, magic, what, tool in _NOT_DISKS:
        if head[offset : offset + len(magic)] == magic:
            raise HostileImage(
                f"{name} is {what}, not a disk image", hint=f"unpack it first: {tool} FILE"
            )
    for offset, magic, kind in _OTHER_DISKS:
        if head[offset : offset + len(magic)] == magic:
            raise HostileImage(
                f"{name} is a {kind} image, which armvm does not support",
                hint=f"convert it: qemu-img convert -f {kind} -O qcow2 FILE NEW.qcow2",
            )
    # Before the MBR: a hybrid ISO has both, and is an installer.
    if head[32769:32774] == b"CD001":
        raise HostileImage(
            f"{name} is an ISO image (an installer), not a disk image",
            hint="use the distribution's cloud image for arm64 (qcow2 or raw)",
        )
    if b"EFI PART" in (head[512:520], head[4096:4104]) or _has_partitions(head):
        return DiskFormat.RAW
    raise HostileImage(
        f"{name} is {_describe(head)}, not a disk image",
        hint="use a cloud image for arm64: qcow2, or raw with a partition table",
    )


def refuse_foreign(file_name: str) -> None:
    """Raise ImageError if a file's name contains another architecture."""
    found = _FOREIGN.search(file_name)
    if found and not _OURS.search(file_name):
        raise ImageError(
            f"{file_name} is an image for {found.group(1).lower()}; armvm needs arm64 (aarch64)",
            hint=arm64_hint(file_name),
        )


def arm64_hint(name: str) -> str:
    """Return a hint for finding the arm64 image, with its probable name if possible."""
    other = _FOREIGN.sub(lambda word: _WORDS.get(word.group(1).lower(), word.group(1)), name)
    if other != name:
        return f"the arm64 image is probably {other}"
    return "use the image with arm64 or aarch64 in its name"


def guess_system(file_name: str) -> OperatingSystem | None:
    """Return the operating system in a published image's file name, or None.

    Recognises ``debian-12-genericcloud-arm64.qcow2``, ``noble-server-cloudimg-arm64.img``,
    ``ubuntu-24.04-server-cloudimg-arm64.img`` and local names such as ``debian-12``.
    """
    low = file_name.lower()
    if found := _DISTRO_VERSION.match(low):
        return OperatingSystem(distro=found.group(1), version=found.group(2))
    if found := re.match(r"([a-z]+)-(?:server|minimal|genericcloud)(?![a-z])", low):
        for distro, codenames in CODENAMES.items():
            if version := codenames.get(found.group(1)):
                return OperatingSystem(distro=distro, version=version)
    return None


def read_head(path: Path) -> bytes:
    """Return a file's first HEAD bytes."""
    with path.open("rb") as file:
        return file.read(HEAD)


def _has_partitions(head: bytes) -> bool:
    """Return whether there is an MBR with a partition: FAT boot sectors have the same magic."""
    if head[510:512] != b"\x55\xaa":
        return False
    entries = [head[446 + 16 * n : 462 + 16 * n] for n in range(4)]
    return all(e[0] in (0x00, 0x80) for e in entries) and any(
        e[4] and any(e[12:16]) for e in entries
    )


def _describe(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head.startswith(b"\x7fELF"):
        return "a program (ELF)"
    if head[:4] == b"hsqs":
        return "a squashfs file system"
    if re.match(rb"\s*<(?:!doctype\s+html|html)", head[:200], re.IGNORECASE):
        return "a web page (HTML)"
    sample = head[:512]
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in sample):
        return "text"
    return "a file of unknown format"
