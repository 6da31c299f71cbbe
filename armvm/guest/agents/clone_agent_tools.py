"""Processes, files and system calls for `armvm.guest.agents.clone_agent`.

`armvm.guest.agents.clone_identity.guest_command` joins the two texts. Needs only Python's
standard library, 3.7 or newer.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

#: The directory for armvm's files in a guest; it lasts until the next boot.
DIRECTORY = "/run/armvm"
#: ioctls of random(4), linux/random.h: the same numbers on all of Linux's 64-bit architectures
#: that armvm supports.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
#: ioctls of netdevice(7), linux/sockios.h, and the layout of their argument.
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFHWADDR = 0x8913, 0x8914, 0x8924
IFF_UP, ARPHRD_ETHER = 1, 1
#: ioctl of block devices, linux/fs.h: flush and drop the cache of one.
BLKFLSBUF = 0x1261
#: mount(2)'s flag for a bind mount.
MS_BIND = 4096


def stir(entropy: bytes) -> None:
    """Feed the kernel's random number generator, and make every CPU's generator reseed."""
    with open("/dev/urandom", "wb") as device:
        pool = struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
        fcntl.ioctl(device, RNDADDENTROPY, pool)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def mask(path: str, text: str) -> None:
    """Make *path*, a kernel file, read as *text* until the next boot."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    over = DIRECTORY + "/" + os.path.basename(path)
    write(over, text, 0o444)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(over.encode(), path.encode(), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), "mount " + path)


def new_mac(old: str, new: str) -> None:
    """Change a network card's address from *old* to *new*.

    Takes the card down and up again, so that the kernel makes a new link-local IPv6 address too.
    """
    for card in os.listdir("/sys/class/net"):
        if read("/sys/class/net/" + card + "/address") == old and old != new:
            name = card.encode().ljust(16, b"\0")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, name + bytes(16))
                (flags,) = struct.unpack_from("H", answer, 16)
                down, up = (struct.pack("16sH14x", name, one) for one in (flags & ~IFF_UP, flags))
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, down)
                address = bytes.fromhex(new.replace(":", ""))
                fcntl.ioctl(
                    any_socket, SIOCSIFHWADDR, struct.pack("16sH14s", name, ARPHRD_ETHER, address)
                )
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)


def forget_blocks() -> None:
    """Drop the cached blocks of read-only disks (such as the seed), so that they are read again."""
    for disk in os.listdir("/sys/block"):
        if not disk.startswith("loop") and read("/sys/block/" + disk + "/ro") == "1":
            device = os.open("/dev/" + disk, os.O_RDONLY)
            fcntl.ioctl(device, BLKFLSBUF)
            os.close(device)


def run(*words: str, stdin: str = "") -> int:
    """Run a program, discard its output, and return its status as wait(2) reports it.

    *stdin* is at most a pipe's 64 KiB.
    """
    reader, writer = os.pipe()
    os.write(writer, stdin.encode())
    os.close(writer)
    child = os.fork()
    if child == 0:
        os.dup2(reader, 0)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        try:
            os.execvp(words[0], words)  # noqa: S606 - no shell needed
        finally:
            os._exit(127)
    os.close(reader)
    return os.waitpid(child, 0)[1]


def read(path: str) -> str | None:
    """Return a file's text without surrounding white space; None if the file does not exist."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def write(path: str, text: str, mode: int) -> None:
    """Replace a file; a reader sees either the old text or the new."""
    write_bytes(path, text.encode(), mode)


def write_bytes(path: str, data: bytes, mode: int) -> None:
    """Replace a file; a reader sees either the old bytes or the new."""
    target = path + ".armvm-new"
    with open(target, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    os.rename(target, path)
