"""A board's image becomes a machine with its packages, users and settings.

The image is one of our own making, with what a Raspberry Pi OS has that matters here: MBR, FAT and
ext4, fstab by PARTUUID, a kernel package for the board, services of the first boot on a card (one
that would wait for an answer for ever), and a cloud-init that looks for its seed on the card.
"""

from __future__ import annotations

import json
import lzma
import subprocess
from pathlib import Path

import pytest

from tests import schemas
from tests.board_tools import FSTAB, MIB, board
from tests.boot.conftest import BOOT_TIMEOUT
from tests.build_tools import can_build
from tests.support import armvm, fresh_name

pytestmark = [can_build, pytest.mark.timeout(6000), pytest.mark.slow]

KERNEL = "6.12.25+rpt-rpi-v8"

#: Runs in the board's root file system.
SETTINGS = r"""
set -e
useradd --create-home --shell /bin/bash pi
echo raspberrypi > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 raspberrypi\n' > /etc/hosts
mkdir -p /etc/default /boot/firmware /etc/cloud/cloud.cfg.d /etc/systemd/system
echo LANG=en_GB.UTF-8 > /etc/default/locale
echo board > /etc/armvm-marker
printf '%s\n' 'datasource_list: [ NoCloud, None ]' 'datasource:' '  NoCloud:' \
    '    seedfrom: file:///boot/firmware' > /etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg
for unit in userconfig regenerate_ssh_host_keys; do
    printf '[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n' \
        > /etc/systemd/system/$unit.service
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -s ../$unit.service /etc/systemd/system/multi-user.target.wants/$unit.service
done
echo 0123456789abcdef0123456789abcdef > /etc/machine-id
dpkg -i /kernel.deb
rm /kernel.deb
"""


def kernel_package(work: Path, target: Path) -> None:
    """Write a package with a board's kernel, as far as its files go."""
    files = work / "kernel"
    for name in ("DEBIAN", "boot", f"lib/modules/{KERNEL}"):
        (files / name).mkdir(parents=True)
    (files / "DEBIAN/control").write_text(
        f"Package: linux-image-{KERNEL}\nVersion: 1\nArchitecture: arm64\n"
        "Maintainer: T <t@example.org>\nDescription: a board's kernel\n"
    )
    (files / f"boot/vmlinuz-{KERNEL}").write_text("boots on a board only")
    (files / f"lib/modules/{KERNEL}/modules.dep").write_text("")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", files, target], check=True)


def board_image(work: Path) -> Path:
    """Return the packed image of a board's card."""
    root, card = work / "root", work / "raspios-arm64.img"
    armvm("rootfs", "create", root, "--image", "debian:12", timeout=1200).ok()
    kernel_package(work, root / "kernel.deb")
    armvm("rootfs", "enter", root, "--", "sh", "-c", SETTINGS, timeout=300).ok()
    (root / "etc/fstab").write_text(FSTAB)
    board(root, card, 1024 * MIB)
    packed = card.with_name(f"{card.name}.xz")
    with card.open("rb") as source, lzma.open(packed, "wb", preset=0) as target:
        while chunk := source.read(MIB):
            target.write(chunk)
    card.unlink()
    return packed


def test_a_boards_image_boots_with_its_users_and_settings(tmp_path: Path, name: str) -> None:
    image = fresh_name("armvm-board")
    packed = board_image(tmp_path)
    words = ("image", "import", packed, "--as", image, "--bootable", "--json")
    done = armvm(*words, timeout=3000).ok()
    assert "GPIO" in done.err
    told = schemas.check("image import", json.loads(done.out))
    assert told["board"]["removed_kernels"] == [KERNEL]
    assert told["board"]["unused_mounts"] == ["/boot/firmware"]
    assert "userconfig.service" in told["board"]["masked_services"]
    connect = ("--connect", "qemu:///system")
    try:
        armvm(*words, timeout=300).failed(5)
        armvm(
            *("create", "--name", name, "--image", f"local:{image}", "--preset", "minimal"),
            *(*connect, "--timeout", str(BOOT_TIMEOUT)),
            timeout=BOOT_TIMEOUT + 60,
        ).ok()
        asked = (
            "cat /etc/armvm-marker; id -un pi; uname -r; cat /etc/default/locale; hostname; "
            "findmnt -no SOURCE,TARGET /var/tmp; systemctl is-enabled userconfig; "
            "grep -c PARTUUID /etc/fstab; ls /boot /lib/modules; systemctl --failed --no-legend"
        )
        seen = armvm("ssh", name, *connect, "--", asked).ok().out.splitlines()
        print("\n".join(seen))
        assert seen[:2] == ["board", "pi"]
        assert "cloud-arm64" in seen[2]
        assert seen[3:5] == ["LANG=en_GB.UTF-8", name]
        assert seen[5].split() == ["tmpfs", "/var/tmp"]
        assert seen[6:8] == ["masked", "2"]
        assert not [line for line in seen[8:] if KERNEL in line or "failed" in line]
    finally:
        armvm("delete", "--yes", name, *connect)
        armvm("image", "rm", f"local:{image}", *connect).ok()
