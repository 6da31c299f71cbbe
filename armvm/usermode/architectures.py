"""The foreign architectures that armvm has handlers for, and how to recognise their programs.

The first 20 bytes of an ELF file contain class, byte order, type and machine (System V ABI,
chapter 4). Magic and mask of each architecture are built from them, and are byte for byte those
of QEMU's scripts/qemu-binfmt-conf.sh and Debian's /usr/lib/binfmt.d, including their differences
in the mask (the OS/ABI byte of ppc64le and s390x, half of ppc64le's machine).
"""

from __future__ import annotations

from dataclasses import dataclass

from armvm.base.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture: *name* is QEMU's, the others are its names elsewhere.

    *abi_mask* is the mask of the OS/ABI byte, *machine_mask* that of the two machine bytes.
    *triplets* are GNU's names, which Debian uses for directories of foreign libraries.
    """

    name: str
    bits: int
    little: bool
    machine: int
    debian: tuple[str, ...] = ()
    platform: str | None = None
    triplets: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    abi_mask: int = 0x00
    machine_mask: int = 0xFFFF

    @property
    def magic(self) -> bytes:
        """The first 20 bytes of its programs (type 2: executable)."""
        ident = bytes([0x7F, *b"ELF", self.bits // 32, 1 if self.little else 2, 1, *[0] * 9])
        return ident + self._short(2) + self._short(self.machine)

    @property
    def mask(self) -> bytes:
        """The significant bits of the magic: all but the last of the type (3: PIE)."""
        ident = bytes([*[0xFF] * 7, self.abi_mask, *[0xFF] * 8])
        return ident + self._short(0xFFFE) + self._short(self.machine_mask)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that users may type for it."""
        return self.name, *self.debian, *self.aliases

    def _short(self, value: int) -> bytes:
        return value.to_bytes(2, "little" if self.little else "big")


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="aarch64",
        bits=64,
        little=True,
        machine=183,
        debian=("arm64",),
        platform="linux/arm64",
        triplets=("aarch64-linux-gnu",),
    ),
    Architecture(
        name="arm",
        bits=32,
        little=True,
        machine=40,
        debian=("armhf", "armel"),
        platform="linux/arm/v7",
        triplets=("arm-linux-gnueabihf", "arm-linux-gnueabi"),
        aliases=("armv7l", "armv7"),
    ),
    Architecture(name="armeb", bits=32, little=False, machine=40),
    Architecture(
        name="riscv64",
        bits=64,
        little=True,
        machine=243,
        debian=("riscv64",),
        platform="linux/riscv64",
        triplets=("riscv64-linux-gnu",),
    ),
    Architecture(
        name="ppc64le",
        bits=64,
        little=True,
        machine=21,
        debian=("ppc64el",),
        platform="linux/ppc64le",
        triplets=("powerpc64le-linux-gnu",),
        abi_mask=0xFC,
        machine_mask=0x00FF,
    ),
    Architecture(
        name="s390x",
        bits=64,
        little=False,
        machine=22,
        debian=("s390x",),
        platform="linux/s390x",
        triplets=("s390x-linux-gnu",),
        abi_mask=0xFC,
    ),
)

#: Architectures that a host's kernel runs natively, by ``uname -m``. A 64-bit ARM kernel may also
#: run 32-bit programs, but many current processors cannot: not listed.
NATIVE = {
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}


#: Further architectures that a host's kernel runs natively, as containers' platforms call them.
NATIVE_PLATFORMS = dict.fromkeys(("x86_64", "amd64"), ("amd64", "386"))


def find(name: str) -> Architecture:
    """Return the architecture with the name *name* in QEMU, Debian, docker or uname.

    Raises NotFound, with the known names.
    """
    wanted = name.lower().removeprefix("linux/").removeprefix("qemu-").replace("arm/v7", "arm")
    for one in ARCHITECTURES:
        if wanted in one.names:
            return one
    known = ", ".join(one.name for one in ARCHITECTURES)
    raise NotFound(f"unknown architecture {name!r}", hint=f"known: {known}")


def of_platform(name: str) -> Architecture | None:
    """Return the architecture that containers' platforms call *name* (``arm64``), or None."""
    return next(
        (one for one in ARCHITECTURES if one.platform and one.platform.split("/")[1] == name), None
    )


def of_header(header: bytes) -> Architecture | None:
    """Return the architecture of a program whose file starts with *header*, or None."""
    for one in ARCHITECTURES:
        part = header[: len(one.magic)]
        if len(part) == len(one.magic) and all(
            (a ^ b) & m == 0 for a, b, m in zip(part, one.magic, one.mask, strict=True)
        ):
            return one
    return None
