"""Build a bootable disk image from a root file system: GPT, EFI system partition, ext4, qcow2.

It only writes plain files: no loop device, no mount, no root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from armvm.base import process, programs
from armvm.base.errors import HostileImage

#: The root file system's label, as in Ubuntu's and Debian's cloud images.
ROOT_LABEL = "cloudimg-rootfs"

#: The EFI system partition's volume label.
ESP_LABEL = "UEFI"

SECTOR = 512
MIB = 1 << 20

#: Start and end of the partitions, in bytes. The root partition is the last on the disk, so
#: that it can grow, and has number 1, as in Debian's cloud images, where people expect it.
ESP_START = MIB
ESP_SIZE = 64 * MIB
ROOT_START = ESP_START + ESP_SIZE
#: Free space at the end of the disk for the second copy of the partition table.
TAIL = MIB

#: Partition types: the UEFI specification's, and "Linux root (ARM-64)" of the Discoverable
#: Partitions Specification.
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_TYPE = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"

#: The ext4 features that every GRUB since 2.02 and every kernel since 4.4 supports. They are
#: listed because newer mke2fs versions add some (metadata_csum_seed, orphan_file) that GRUB 2.06
#: rejects. resize_inode lets the file system grow while it is mounted.
EXT4_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """The contents of the EFI system partition.

    ``files`` maps a file in the root file system to its name on the partition. The firmware
    starts the removable-media path; Microsoft's key signs shim, shim verifies GRUB (by the
    distribution's key), GRUB the kernel. Without Secure Boot, the same chain runs unchecked.
    ``grub_cfg`` is where the signed GRUB looks for its commands, by its built-in prefix.
    """

    files: Mapping[str, str]
    grub_cfg: str


DEBIAN = BootFiles(
    files={
        "usr/lib/shim/shimaa64.efi.signed": "EFI/BOOT/BOOTAA64.EFI",
        "usr/lib/shim/mmaa64.efi.signed": "EFI/BOOT/mmaa64.efi",
        "usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed": "EFI/BOOT/grubaa64.efi",
    },
    grub_cfg="EFI/debian/grub.cfg",
)

#: shimaa64.efi.signed would be an update-alternatives link to this file.
UBUNTU = BootFiles(
    files={
        "usr/lib/shim/shimaa64.efi.signed.latest": "EFI/BOOT/BOOTAA64.EFI",
        "usr/lib/shim/mmaa64.efi": "EFI/BOOT/mmaa64.efi",
        "usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed": "EFI/BOOT/grubaa64.efi",
    },
    grub_cfg="EFI/ubuntu/grub.cfg",
)

BOOT_FILES: Mapping[str, BootFiles] = {"debian": DEBIAN, "ubuntu": UBUNTU}

GRUB_CFG = f"""\
search --no-floppy --label --set=root {ROOT_LABEL}
set prefix=($root)/boot/grub
configfile $prefix/grub.cfg
"""


def description(boot: BootFiles = DEBIAN) -> str:
    """Return everything that shapes the disk besides its files, for the digest of a build."""
    return "\n".join(
        [
            partition_table(0),
            EXT4_FEATURES,
            ROOT_LABEL,
            ESP_LABEL,
            *(f"{source} {target}" for source, target in boot.files.items()),
            boot.grub_cfg,
            GRUB_CFG,
        ]
    )


def size_for(content: int) -> int:
    """Return a disk size in bytes, a multiple of 128 MiB, that fits *content* bytes of files.

    Besides the files, the disk holds ext4's journal of 64 MiB, inode tables and the reserve (1/64
    and 1/100 of the disk), and half-filled blocks at the ends of files.
    """
    step = 128 * MIB
    return -(-(int(content * 1.05) + ROOT_START + TAIL + 64 * MIB) // step) * step


def partition_table(size: int) -> str:
    """Return sfdisk's script for a disk of *size* bytes."""
    esp = f"start={ESP_START // SECTOR}, size={ESP_SIZE // SECTOR}, type={ESP_TYPE}, name=esp"
    root = (
        f"start={ROOT_START // SECTOR}, size={root_size(size) // SECTOR}, "
        f"type={ROOT_TYPE}, name=root"
    )
    return f"label: gpt\nfirst-lba: {ESP_START // SECTOR}\n15: {esp}\n1: {root}\n"


def root_size(size: int) -> int:
    """Return the root partition's size on a disk of *size* bytes: the remainder, in whole MiB."""
    return max((size - ROOT_START - TAIL) // MIB, 0) * MIB


def make(
    root: Path,
    output: Path,
    *,
    size: int,
    boot: BootFiles = DEBIAN,
    inside: Sequence[str] = (),
    on_phase: Callable[[str], None],
) -> None:
    """Write the bootable qcow2 image *output*, of virtual size *size*, from *root*.

    *inside* is put before the one command that reads the files with their owners. *output*, and a
    temporary raw image beside it, are sparse. Raises CommandFailed (if the files do not fit, for
    example) and MissingCapability. The caller removes leftovers of a failure.
    """
    raw = output.with_name(f"{output.name}.raw")
    on_phase("writing the disk")
    with raw.open("wb") as file:
        file.truncate(size)
    # In a user namespace mke2fs runs as another user; the directory protects the file.
    raw.chmod(0o666)
    process.run(["sfdisk", "--quiet", raw], input=partition_table(size).encode())
    _make_esp(root, raw, boot)
    write_root(root, raw, start=ROOT_START, size=root_size(size), inside=inside)
    on_phase("converting to qcow2")
    convert(raw, output)


def write_root(
    root: Path,
    raw: Path,
    *,
    start: int,
    size: int,
    label: bytes = ROOT_LABEL.encode(),
    uuid: UUID | None = None,
    inside: Sequence[str],
) -> None:
    """Create an ext4 file system with the files of *root* at byte *start* of the disk *raw*.

    *size* is in bytes, *uuid* random by default. *inside* is as for make(). Raises CommandFailed.
    """
    process.run(
        [
            *inside,
            programs.find("mke2fs"),
            *("-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1"),
            *("-L", os.fsdecode(label), "-O", EXT4_FEATURES),
            *(() if uuid is None else ("-U", str(uuid))),
            *("-E", f"offset={start},lazy_itable_init=1,lazy_journal_init=1"),
            *("-d", root, raw, str(size // 4096)),
        ]
    )


def convert(raw: Path, output: Path) -> None:
    """Convert a raw disk to the qcow2 file *output*, and remove it. Raises CommandFailed."""
    # Not compressed: the guest would unpack every cluster again on its first read.
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, output])
    raw.unlink()


def _make_esp(root: Path, raw: Path, boot: BootFiles) -> None:
    """Create and fill the EFI system partition inside *raw*."""
    where = f"{raw}@@{ESP_START}"
    sectors = ("-T", str(ESP_SIZE // SECTOR), "-H", str(ESP_START // SECTOR))
    process.run(
        ["mformat", "-i", where, *sectors, "-h", "64", "-s", "32", "-F", "-v", ESP_LABEL, "::"]
    )
    # mformat writes a DOS partition table into its boot sector, and GRUB's tools in the guest
    # then warn about nested partitions.
    with raw.open("r+b") as file:
        file.seek(ESP_START + 446)
        file.write(bytes(64))
    targets = [*boot.files.values(), boot.grub_cfg]
    directories = {str(parent) for name in targets for parent in Path(name).parents} - {"."}
    process.run(["mmd", "-i", where, *(f"::{name}" for name in sorted(directories))])
    for source, target in boot.files.items():
        process.run(["mcopy", "-i", where, _inside(root, source), f"::{target}"])
    process.run(["mcopy", "-i", where, "-", f"::{boot.grub_cfg}"], input=GRUB_CFG.encode())


def _inside(root: Path, name: str) -> Path:
    """Return a file of the root file system.

    Raises HostileImage for a link that leaves it, and for what is not a file: a pipe would block.
    """
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise HostileImage(f"/{name} in the root file system is a link to the host's {path}")
    if not path.is_file():
        raise HostileImage(f"/{name} in the root file system is not a regular file")
    return path
