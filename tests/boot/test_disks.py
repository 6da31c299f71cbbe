"""Disks in real guests: seen at once, bigger at once, gone at once."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pexpect
import pytest

from tests.boot.conftest import BOOT_TIMEOUT, POOL, leftovers
from tests.foreign_programs import program_of
from tests.libvirt.world import until
from tests.support import ARMVM, armvm, environment


def await_size(name: str, disk: str, size: int | None) -> None:
    """Wait until a disk has that size in the guest, in bytes; None: until there is no such disk.

    The guest's kernel needs five seconds to plug in a PCIe device, and more on a busy host.
    """
    device = f"/dev/disk/by-id/virtio-{disk}"
    command = ("exec", name, "--", "sh", "-c", f"blockdev --getsize64 {device} 2>&-")
    expected = "" if size is None else str(size)
    until(lambda: armvm(*command).out.strip() == expected, limit=120, why=f"{disk} of {size}")


def test_a_running_guest_sees_its_disks(golden: str, name: str) -> None:
    made = ("create", "--from", golden, "--name", name)
    armvm(*made, "--add-disk", "size=1G,name=data", timeout=300).ok()
    await_size(name, "data", 1 << 30)
    armvm("disk", "grow", name, "data", "2G").ok()
    await_size(name, "data", 2 << 30)
    device = "/dev/disk/by-id/virtio-data"
    armvm("exec", name, "--", "sh", "-c", f"mkfs.ext4 -q {device} && mount {device} /mnt").ok()
    told = armvm("disk", "remove", name, "data", "--yes").failed(5).err
    assert "mounted at '/mnt'" in told
    armvm("exec", name, "--", "umount", "/mnt").ok()
    armvm("disk", "remove", name, "data", "--yes").ok()
    await_size(name, "data", None)
    assert not (POOL / f"{name}.disk-data.qcow2").exists()
    armvm("disk", "add", name, "size=512M,name=again,format=raw").ok()
    await_size(name, "again", 512 << 20)
    armvm("delete", name, "--yes").ok()
    assert leftovers(name) == []


@pytest.mark.slow
def test_an_installer_asks_its_first_question(name: str, tmp_path: Path) -> None:
    """Debian's own, which it ships as a package, on a medium of our making."""
    iso = installer(tmp_path)
    command = ("create", "--name", name, "--cdrom", iso, "--disk", "4G", "--network", "user")
    out = armvm(*command, "--headless", timeout=120).ok().out
    assert f"armvm console {name}" in out
    console = pexpect.spawn(
        ARMVM[0], [*ARMVM[1:], "console", name],
        env=environment(TERM="xterm"), timeout=BOOT_TIMEOUT, dimensions=(40, 120),
    )  # fmt: skip
    try:
        console.expect("Select a language")
    finally:
        console.close(force=True)
    rows = armvm("disk", "list", name, "--json").ok().json
    assert [row["name"] for row in rows] == ["root", "cdrom"]
    told = armvm("wait", name, "--timeout", "3").failed(11).err
    assert "no login prompt on the serial console" in told
    armvm("delete", name, "--yes").ok()
    assert leftovers(name) == []


@pytest.mark.slow
def test_a_guest_without_a_seed_gets_its_ignition_file(
    debian_image: Path, name: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.ign"
    config.write_text(json.dumps({"ignition": {"version": "3.4.0"}, "marker": "x" * 3000}))
    options = ("--image", debian_image, "--network", "user", "--headless")
    created = armvm(
        *("create", "--name", name, *options, "--ignition", config),
        *("--timeout", str(BOOT_TIMEOUT)),
        timeout=BOOT_TIMEOUT + 120,
    )
    assert f"{name} shows a login prompt" in created.ok().out
    begun = time.monotonic()
    out = armvm("wait", name).ok().out
    assert "shows a login prompt" in out
    assert time.monotonic() - begun < 30
    seen = "cat /sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw"
    load = "modprobe qemu_fw_cfg 2>&-; "
    done = armvm("exec", name, "--", "sh", "-c", load + seen, timeout=120)
    if "No such file" in done.err + done.out:
        pytest.skip("the guest's kernel lacks qemu_fw_cfg")
    assert done.ok().out == config.read_text()


def installer(place: Path) -> Path:
    """Make an ISO image of Debian's installer, with a boot loader for the serial console."""
    package = "debian-installer-12-netboot-arm64"
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "download", package],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"cannot download {package}: {done.stderr[-300:]}")
    (archive,) = place.glob("*.deb")
    tree, efi = place / "tree", place / "efi.img"
    subprocess.run(["dpkg-deb", "-x", archive, place / "package"], check=True)
    archive.unlink()
    (tree / ".disk").mkdir(parents=True)
    (tree / ".disk" / "info").touch()
    (tree / "boot" / "grub").mkdir(parents=True)
    images = place / "package/usr/lib/debian-installer/images/12/arm64/text/debian-installer/arm64"
    for part in ("linux", "initrd.gz"):
        (images / part).rename(tree / part)
    (tree / "boot" / "grub" / "grub.cfg").write_text(
        "linux /linux console=ttyAMA0 ---\ninitrd /initrd.gz\nboot\n"
    )
    loader = program_of(
        "grub-efi-arm64-bin", "usr/lib/grub/arm64-efi/monolithic/gcdaa64.efi", "arm64"
    )
    with efi.open("wb") as file:
        file.truncate(8 << 20)
    drive = str(efi)
    for words in (
        ["mformat", "-i", drive, "-T", str((8 << 20) // 512), "-h", "64", "-s", "32", "::"],
        ["mmd", "-i", drive, "::/EFI"],
        ["mmd", "-i", drive, "::/EFI/BOOT"],
        ["mcopy", "-i", drive, str(loader), "::/EFI/BOOT/BOOTAA64.EFI"],
    ):
        subprocess.run(words, check=True)
    efi.rename(tree / "efi.img")
    iso = place / "installer.iso"
    subprocess.run(
        [
            *("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso),
            *("-e", "efi.img", "-no-emul-boot", tree),
        ],
        check=True,
    )
    return iso
