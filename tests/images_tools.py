"""What the images tests share: real images, a session without proxies, a progress that listens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from armvm.base import process
from armvm.base.progress import Task
from armvm.images.fetch.http import Web


def direct() -> requests.Session:
    """A session that goes to loopback whatever proxy the environment names."""
    session = requests.Session()
    session.trust_env = False
    return session


class Sleeps(list[float]):
    """Stands in for time.sleep: notes the pauses, and does not pause."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def quick(
    sleep: Callable[[float], None] | None = None,
    *,
    read_timeout: float = 10.0,
    slow_rate: float = 1024.0,
    slow_window: float = 60.0,
) -> Web:
    """A Web without pauses."""
    return Web(
        session=direct,
        sleep=Sleeps() if sleep is None else sleep,
        read_timeout=read_timeout,
        slow_rate=slow_rate,
        slow_window=slow_window,
    )


class Heard:
    """A progress that records its messages and can interrupt like Ctrl-C."""

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.tasks: list[tuple[str, int | None]] = []
        self.done = 0
        self._interrupt_at = interrupt_at

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    @contextmanager
    def task(self, label: str, *, total: int | None = None) -> Iterator[Task]:
        self.tasks.append((label, total))
        yield self

    def update(
        self, done: int | None = None, text: str | None = None, outlook: str | None = None
    ) -> None:
        self.done = done or 0
        if self._interrupt_at is not None and self.done >= self._interrupt_at:
            raise KeyboardInterrupt


def qcow2_image(path: Path, *, payload: int = 3 << 20, size: str = "64M") -> Path:
    """Make a qcow2 image that holds *payload* random bytes."""
    raw = path.with_suffix(".random")
    raw.write_bytes(os.urandom(payload))
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
    process.run(["qemu-img", "resize", "-q", "-f", "qcow2", path, size])
    raw.unlink()
    return path


def raw_image(path: Path, *, size: int = 4 << 20) -> Path:
    """Make a raw image with an MBR and one partition."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(446)
        file.write(
            bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0]) + b"\x00\x08\x00\x00" + b"\x00\x10\x00\x00"
        )
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(1 << 20)
        file.write(os.urandom(8192))
    return path


def leftovers(root: Path) -> list[str]:
    """Return the names of all files in a cache, hidden ones too."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


#: A kernel as far as QEMU's loader looks: the header of an arm64 Image (booting.rst in Linux's
#: documentation), which jumps to itself.
KERNEL = (
    b"\x00\x00\x00\x14"  # b .
    + bytes(12)
    + (1 << 20).to_bytes(8, "little")
    + bytes(32)
    + b"ARM\x64"
    + bytes(4032)
)
GRUB_CFG = """\
set timeout=0
menuentry "Linux" {
    linux /vmlinuz root=LABEL=here ro console=tty0
    initrd /initrd.img
}
"""
PARTITION_START = 1 << 20


def bootable_image(path: Path, tree: Mapping[str, bytes | str]) -> Path:
    """Make a qcow2 image with one ext4 partition: paths to contents; a text is a link's target."""
    root = path.with_suffix(".root")
    for name, content in tree.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        file.truncate(40 << 20)
    table = f"label: gpt\nfirst-lba: 2048\n1: start=2048, size={36 << 11}\n"
    process.run(["sfdisk", "--quiet", raw], input=table.encode())
    options = ("-q", "-F", "-t", "ext4", "-b", "4096", "-E", f"offset={PARTITION_START}")
    process.run(["mke2fs", *options, "-d", root, raw, str((36 << 20) // 4096)])
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
    raw.unlink()
    return path


def debian_tree(kernel: bytes = KERNEL) -> dict[str, bytes | str]:
    """Return the boot files of a root file system laid out as Debian's."""
    return {
        "boot/grub/grub.cfg": GRUB_CFG.encode(),
        "boot/vmlinuz-6.1.0-1-arm64": kernel,
        "boot/initrd.img-6.1.0-1-arm64": b"an initrd",
        "vmlinuz": "boot/vmlinuz-6.1.0-1-arm64",
        "initrd.img": "boot/initrd.img-6.1.0-1-arm64",
    }
