"""Extract the kernel that an image would boot, without mounting the image.

armvm converts the image's disk to a raw file, reads its partition table, and reads the file
systems with debugfs (e2fsprogs), which needs neither root nor a loop device. The image's own
grub.cfg says which kernel, initrd and command line belong together. The result is kept beside
the image, in the cache: ``boot-<64 hex>/kernel``, ``initrd``, ``boot.json``.

Sources: the UEFI specification, "GUID Partition Table"; Linux's Documentation/filesystems/ext4
(superblock) and Documentation/arch/arm64/booting.rst (header of an Image); debugfs(8).
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from armvm.base import process
from armvm.base.errors import CommandFailed, ImageError
from armvm.base.limits import Limits
from armvm.base.paths import private_dir, write_atomic
from armvm.images.cache.files import storage_errors
from armvm.images.cache.store import Cache
from armvm.images.model import Image

#: Maximum sizes in bytes of a kernel and an initrd: real ones have a third of that.
MAX_KERNEL = 192 << 20
MAX_INITRD = 512 << 20
MAX_CONFIG = 1 << 20
#: Time limit in seconds for each program: the largest images have some GiB.
TIMEOUT = 300.0

_SECTOR = 512
_GPT = struct.Struct("<8s64xQII")  # signature, first LBA of the entries, their number and size
_ENTRY = struct.Struct("<16s16sQQ")  # type, id, first and last LBA
_MOST_ENTRIES = 256
#: Paths of grub.cfg: on the root file system, or on a separate /boot.
_CONFIGS = ("/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg")
_PATH = re.compile(r"/[A-Za-z0-9._+~/-]{1,250}")
_WORDS = re.compile(r"[A-Za-z0-9 ._,:;=/@+%~()\[\]-]{0,1500}")
#: Parses debugfs's answer about a file; and the maximum number of links to follow.
_LINK = re.compile(r'Fast link dest: "([^"\n]+)"')
_SIZE = re.compile(r"\bSize: (\d+)")
_LINKS = 8


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """An image's kernel, initrd and kernel command line.

    ``name`` is the kernel's file name in the image, which contains its version.
    """

    kernel: Path
    initrd: Path
    command_line: str
    name: str


def boot_files(image: Image, *, cache: Cache) -> BootFiles:
    """Return the kernel, initrd and command line of a verified image.

    The first call extracts them, which takes some seconds and temporarily as much space as the
    image's disk. Raises ImageError if they are not found or cannot be used, MissingCapability
    without debugfs or qemu-img, StorageError, PermissionDenied.
    """
    key = f"boot-{image.digest.removeprefix('sha256:')}"
    directory = cache.prepare() / key
    if (found := _kept(directory)) is not None:
        return found
    with cache.lock(key, on_wait=lambda: None):
        if (found := _kept(directory)) is not None:
            return found
        with cache.partial(key) as raw, storage_errors(raw):
            cache.check_room(2 * image.size)
            try:
                process.run(
                    ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.path, raw],
                    timeout=TIMEOUT,
                    limits=Limits(memory=2 << 30, cpu=int(TIMEOUT)),
                )
                return _extract(image, raw, directory)
            except CommandFailed as error:
                raise ImageError(
                    f"cannot read the files in {image.source.reference}",
                    detail=error.detail or error.message,
                ) from error


def remove_boot_files(digest: str, *, cache: Cache) -> None:
    """Remove an image's extracted files; missing files are not an error."""
    shutil.rmtree(cache.prepare() / f"boot-{digest.removeprefix('sha256:')}", ignore_errors=True)


def _kept(directory: Path) -> BootFiles | None:
    """Return the files extracted earlier; None if they are missing or incomplete."""
    try:
        known = json.loads((directory / "boot.json").read_bytes())
        found = BootFiles(
            kernel=directory / "kernel",
            initrd=directory / "initrd",
            command_line=str(known["command_line"]),
            name=str(known["name"]),
        )
        sizes = [found.kernel.stat().st_size, found.initrd.stat().st_size]
        return found if sizes == known["sizes"] else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _extract(image: Image, raw: Path, directory: Path) -> BootFiles:
    """Extract the files from the raw disk to *directory*; boot.json is written last."""
    reference = image.source.reference
    for start in partitions(raw):
        for config in _CONFIGS:
            text = _read(raw, start, config)
            entry = first_entry(text) if text else None
            if entry is None:
                continue
            kernel_path, initrd_path, command_line = entry
            private_dir(directory)
            (directory / "boot.json").unlink(missing_ok=True)
            kernel_path = _dump(raw, start, kernel_path, directory / "kernel", MAX_KERNEL)
            _dump(raw, start, initrd_path, directory / "initrd", MAX_INITRD)
            check_kernel(directory / "kernel")
            sizes = [(directory / name).stat().st_size for name in ("kernel", "initrd")]
            name = kernel_path.rpartition("/")[2]
            known = {"command_line": command_line, "name": name, "sizes": sizes}
            write_atomic(directory / "boot.json", json.dumps(known).encode())
            return BootFiles(
                kernel=directory / "kernel",
                initrd=directory / "initrd",
                command_line=command_line,
                name=name,
            )
    raise ImageError(f"kernel not found in {reference}: no grub.cfg on an ext4 file system")


def partitions(raw: Path) -> Iterator[int]:
    """Yield the offsets in bytes of the ext2/3/4 file systems on a raw disk with a GPT."""
    with raw.open("rb") as disk:
        size = os.fstat(disk.fileno()).st_size
        disk.seek(_SECTOR)
        head = disk.read(_SECTOR)
        signature, table, count, length = _GPT.unpack_from(head.ljust(_GPT.size, b"\0"))
        if signature != b"EFI PART" or not 128 <= length <= 4096 or table > size // _SECTOR:
            return
        for number in range(min(count, _MOST_ENTRIES)):
            disk.seek(table * _SECTOR + number * length)
            entry = disk.read(_ENTRY.size)
            if len(entry) < _ENTRY.size:
                return
            kind, _, first, _ = _ENTRY.unpack(entry)
            start = first * _SECTOR
            if kind == bytes(16) or not 0 < start < size - 2048:
                continue
            disk.seek(start + 1024 + 56)
            if disk.read(2) == b"\x53\xef":
                yield start


def first_entry(config: str) -> tuple[str, str, str] | None:
    """Return kernel, initrd and command line of the first complete entry of a grub.cfg.

    A console on ttyAMA0 is added to the command line if it has none. Entries with GRUB variables
    or unexpected characters are skipped.
    """
    kernel: tuple[str, str] | None = None
    for line in config.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "menuentry":
            kernel = None
        elif words[0] in ("linux", "linuxefi") and len(words) > 1:
            text = " ".join(words[2:])
            sound = _PATH.fullmatch(words[1]) and _WORDS.fullmatch(text) and "root=" in text
            kernel = (words[1], text) if sound else None
        elif words[0] in ("initrd", "initrdefi") and kernel and _one_path(words[1:]):
            path, text = kernel
            console = "" if "console=ttyAMA0" in text else " console=ttyAMA0"
            return path, words[1], text + console
    return None


def _one_path(words: list[str]) -> bool:
    return len(words) == 1 and bool(_PATH.fullmatch(words[0]))


def check_kernel(path: Path) -> None:
    """Raise ImageError unless QEMU can load the file as an arm64 kernel: an Image, or gzipped."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[:2] == b"\x1f\x8b" or head[56:60] == b"ARM\x64":
        return
    raise ImageError("QEMU cannot load the image's kernel: unsupported format")


def _debugfs(raw: Path, start: int, request: str) -> bytes:
    # debugfs is read-only by default, and reports errors only on stderr.
    # The raw file is given by its bare name: its directory may have characters special to debugfs.
    return process.run(
        ["debugfs", "-R", request, f"{raw.name}?offset={start}"],
        cwd=raw.parent,
        timeout=TIMEOUT,
        check=False,
    ).stdout


def _find(raw: Path, start: int, path: str, most: int) -> tuple[str, int] | None:
    """Return a file's path, with links resolved, and its size; None if larger than *most*."""
    for _ in range(_LINKS):
        text = _debugfs(raw, start, f"stat {path}").decode(errors="replace")
        link, size = _LINK.search(text), _SIZE.search(text)
        if link is None:
            regular = "Type: regular" in text and size is not None
            return (path, int(size[1])) if regular and size and 0 < int(size[1]) <= most else None
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1]))
        if not _PATH.fullmatch(path):
            return None
    return None


def _read(raw: Path, start: int, path: str) -> str | None:
    """Return a text file; None if it is missing or too large."""
    found = _find(raw, start, path, MAX_CONFIG)
    return found and _debugfs(raw, start, f"cat {found[0]}").decode(errors="replace")


def _dump(raw: Path, start: int, path: str, target: Path, most: int) -> str:
    """Copy a file out of the file system; return its path, with links resolved."""
    found = _find(raw, start, path, most)
    if found is None:
        raise ImageError(f"{path} not found in the image, or its size is out of range")
    target.unlink(missing_ok=True)
    _debugfs(raw, start, f"dump {found[0]} {target.relative_to(raw.parent)}")
    if not target.is_file() or target.stat().st_size != found[1]:
        raise ImageError(f"cannot read {path} from the image")
    return found[0]
