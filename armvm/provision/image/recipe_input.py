"""Validates the command line's choices for a recipe: packages, kernel, size, archive."""

from __future__ import annotations

import re
from collections.abc import Sequence

from armvm.base.errors import ConfigError
from armvm.settings.names import shown
from armvm.settings.size import GIB, MIB, parse_size, size_label
from armvm.usermode.rootfs.distros import Kernel

#: Default, minimum and maximum size of the image's disk, in bytes. A machine's disk grows from it
#: to the machine's size.
USUAL_SIZE, MIN_SIZE, MAX_SIZE = 3 * GIB, GIB, 1024 * GIB

#: Debian Policy 5.6.1. No final "-", because apt-get would then remove the package.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]\Z")


def check_package(name: str) -> str:
    """Return *name* if it is a valid Debian package name, else raise ConfigError."""
    if len(name) <= 128 and PACKAGE.match(name):
        return name
    raise ConfigError(
        f"invalid package name {shown(name)}",
        hint="use a plain name of a-z, 0-9, '+', '-' and '.' (examples: docker.io, g++); versions, "
        "paths and apt options are unsupported",
    )


def check_packages(given: Sequence[str]) -> tuple[str, ...]:
    """Return the package names in *given*, whose items may be lists with commas, sorted.

    Raises ConfigError for an invalid name.
    """
    names = [name.strip() for item in given for name in item.split(",")]
    return tuple(sorted({check_package(name) for name in names}))


def parse_image_size(text: str) -> int:
    """Return the bytes of ``--size``, in whole MiB; a plain number is GiB. Raises ConfigError."""
    size = -(-parse_size(text, what="--size", plain_unit=GIB) // MIB) * MIB
    if size < MIN_SIZE:
        raise ConfigError(
            f"--size {size_label(size)} is out of range "
            f"({size_label(MIN_SIZE)} to {size_label(MAX_SIZE)})",
            hint=f"the default is {size_label(USUAL_SIZE)}",
        )
    if size > MAX_SIZE:
        raise ConfigError(
            f"--size {size_label(size)} is out of range "
            f"({size_label(MIN_SIZE)} to {size_label(MAX_SIZE)})",
            hint="a machine's --disk may be larger than its image",
        )
    return size


def check_mirror(url: str) -> str:
    """Return the URL of a package archive, or raise ConfigError if it is invalid.

    Rejects text that mmdebstrap would read as a file, an option or a line of sources.list.
    """
    if re.match(r"https?://[^\s\[\]]{1,2000}\Z", url) and url.isprintable():
        return url
    raise ConfigError(
        f"invalid package archive URL {shown(url)}",
        hint="use the URL of the directory that contains dists/ (example: "
        "http://deb.debian.org/debian)",
    )


def check_kernel(word: str) -> Kernel:
    """Return the kernel that ``--kernel`` names. Raises ConfigError for an unknown one."""
    try:
        return Kernel(word)
    except ValueError:
        known = ", ".join(one.value for one in Kernel)
        raise ConfigError(f"unknown kernel {shown(word)}; known: {known}") from None
