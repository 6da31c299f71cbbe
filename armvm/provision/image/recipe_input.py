"""What the command line says of a recipe, checked: packages, kernel, size, archive."""

from __future__ import annotations

import re

from armvm.base.errors import ConfigError
from armvm.settings.names import shown
from armvm.settings.size import GIB, MIB, parse_size, size_label
from armvm.usermode.rootfs.distros import Kernel

#: The image's own disk, in bytes, where no size is asked for, and within what one may be. A
#: machine's disk grows from it to the machine's size.
USUAL_SIZE, MIN_SIZE, MAX_SIZE = 3 * GIB, GIB, 1024 * GIB

#: Debian's policy 5.6.1. No "-" at the end, by which apt-get would remove a package.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]\Z")


def check_package(name: str) -> str:
    """Return *name* if it can be a Debian package's, else raise ConfigError."""
    if len(name) <= 128 and PACKAGE.match(name):
        return name
    raise ConfigError(
        f"{shown(name)} cannot be the name of a package",
        hint="a name alone (docker.io, g++), of a-z, 0-9, '+', '-' and '.'; versions, paths and "
        "apt's options are not taken",
    )


def parse_image_size(text: str) -> int:
    """Return the bytes of ``--size``, in whole MiB; a plain number is GiB. Raises ConfigError."""
    size = -(-parse_size(text, what="--size", plain_unit=GIB) // MIB) * MIB
    if size < MIN_SIZE:
        raise ConfigError(
            f"an image of {size_label(size)} is too small for a system",
            hint=f"--size {size_label(MIN_SIZE)} is the least, {size_label(USUAL_SIZE)} the usual",
        )
    if size > MAX_SIZE:
        raise ConfigError(
            f"an image of {size_label(size)} is larger than armvm makes",
            hint=f"--size {size_label(MAX_SIZE)} is the most; a machine's --disk may be larger",
        )
    return size


def check_mirror(url: str) -> str:
    """Return the URL of a package archive, or raise ConfigError for anything else.

    What mmdebstrap would take for a file, an option or a line of sources.list is none.
    """
    if re.match(r"https?://[^\s\[\]]{1,2000}\Z", url) and url.isprintable():
        return url
    raise ConfigError(
        f"{shown(url)} is no URL of a package archive",
        hint="the directory in which dists/ lies, such as http://deb.debian.org/debian",
    )


def check_kernel(word: str) -> Kernel:
    """Return the kernel of ``--kernel``. Raises ConfigError for a word that is none."""
    try:
        return Kernel(word)
    except ValueError:
        known = " or ".join(one.value for one in Kernel)
        raise ConfigError(f"{shown(word)} is no kernel", hint=f"--kernel {known}") from None
