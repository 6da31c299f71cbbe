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

#: What armvm keeps in a guest, until its next boot.
DIRECTORY = "/run/armvm"
#: ioctls of random(4), linux/random.h: the same numbers on all of Linux's 64-bit architectures
#: that matter here.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
#: ioctls of netdevice(7), linux/sockios.h, and what they take.
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFHWADDR = 0x8913, 0x8914, 0x8924
IFF_UP, ARPHRD_ETHER = 1, 1
#: ioctl of block devices, linux/fs.h: write and drop what is cached of one.
BLKFLSBUF = 0x1261
#: mount(2)'s flag for a bind mount.
MS_BIND = 4096


def stir(entropy: bytes) -> None:
    """Feed the kernel's random number generator, and make every CPU's generator take it."""
    with open("/dev/urandom", "wb") as device:
        pool = struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
        fcntl.ioctl(device, RNDADDENTROPY, pool)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def mask(path: str, text: str) -> None:
    """Let *path*, a file of the kernel's, read as *text* until the next boot."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    over = DIRECTORY + "/" + os.path.basename(path)
    write(over, text, 0o444)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(over.encode(), path.encode(), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), "mount " + path)


def new_mac(old: str, new: str) -> None:
    """Give the network card that has the address *old* the address *new*.

    Down and up again, so that the kernel makes a new link-local IPv6 address too.
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
    """Let the next reader of a read-only disk (the seed is one) get what lies there now."""
    for disk in os.listdir("/sys/block"):
        if not disk.startswith("loop") and read("/sys/block/" + disk + "/ro") == "1":
            device = os.open("/dev/" + disk, os.O_RDONLY)
            fcntl.ioctl(device, BLKFLSBUF)
            os.close(device)


def run(*words: str, stdin: str = "") -> int:
    """Run a program that says nothing of use, and return how it ended, as wait(2) tells it.

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
            os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    os.close(reader)
    return os.waitpid(child, 0)[1]


def read(path: str) -> str | None:
    """Return a file's text without the white space around it; None where there is none."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def write(path: str, text: str, mode: int) -> None:
    """Replace a file; a reader sees the old text or the new."""
    write_bytes(path, text.encode(), mode)


def write_bytes(path: str, data: bytes, mode: int) -> None:
    """Replace a file; a reader sees the old bytes or the new."""
    target = path + ".armvm-new"
    with open(target, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    os.rename(target, path)
