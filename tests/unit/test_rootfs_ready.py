"""Which root file systems can become an image, and the errors for others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from armvm.base.errors import ConfigError
from armvm.base.progress import Quiet
from armvm.images.disk import BOOT_FILES, ROOT_LABEL
from armvm.provision.rootfs import bootable, to_image
from armvm.usermode.rootfs import build
from armvm.usermode.rootfs.distros import DEBIAN, DISTROS, Kernel
from tests.elf_tools import elf_file, exit_with


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system that has all that a machine needs, by name."""
    top = tmp_path / "root"
    packages = [*bootable.NEEDED, DEBIAN.kernels[Kernel.CLOUD]]
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "etc/fstab": f"LABEL={ROOT_LABEL} / ext4 defaults 0 1\n",
        "boot/grub/grub.cfg": f"search --label {ROOT_LABEL}\n",
        "boot/vmlinuz-6.1": "",
        "boot/initrd.img-6.1": "",
        "etc/machine-id": "",
        **dict.fromkeys(BOOT_FILES["debian"].files, ""),
        "var/lib/dpkg/status": "".join(
            f"Package: {name}\nStatus: install ok installed\nVersion: 1\n\n" for name in packages
        ),
    }
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "vmlinuz").symlink_to("boot/vmlinuz-6.1")
    (top / "initrd.img").symlink_to("/boot/initrd.img-6.1")
    (top / "bin").mkdir()
    (top / "bin/sh").write_bytes(exit_with(0))
    return top


def test_one_that_has_all_is_ready(root: Path) -> None:
    assert not bootable.lacks(root)
    system = bootable.make_ready(root, install=False, progress=Quiet())
    assert (system.distro, system.version) == ("debian", "12")


def test_every_package_needed_is_one_that_image_build_installs() -> None:
    for distro in DISTROS.values():
        assert set(bootable.NEEDED) <= set(distro.packages)


@pytest.mark.parametrize("package", [*bootable.NEEDED])
def test_a_package_that_is_missing_is_named(root: Path, package: str) -> None:
    status = root / "var/lib/dpkg/status"
    text = status.read_text()
    removed = f"Package: {package}\nStatus: deinstall ok config-files\n"
    status.write_text(text.replace(f"Package: {package}\nStatus: install ok installed\n", removed))
    assert bootable.lacks(root).packages == (package,)
    with pytest.raises(ConfigError, match="cannot boot yet") as caught:
        bootable.make_ready(root, install=False, progress=Quiet())
    assert package in str(caught.value.detail)
    assert "--install-missing" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vmlinuz", "/vmlinuz"),
        ("boot/initrd.img-6.1", "/initrd.img"),
        ("etc/fstab", "/etc/fstab"),
        ("boot/grub/grub.cfg", "/boot/grub/grub.cfg"),
        *((name, name) for name in BOOT_FILES["debian"].files),
    ],
)
def test_a_file_that_is_missing_is_named(root: Path, name: str, said: str) -> None:
    (root / name).unlink()
    (problem,) = bootable.lacks(root).settings
    assert said in problem


def test_a_machine_id_would_be_every_machines(root: Path) -> None:
    (root / "etc/machine-id").write_text("uninitialized\n")
    assert not bootable.lacks(root)
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    assert "all machines would share it" in bootable.lacks(root).settings[0]


def test_another_kernel_does_too_and_none_is_named(root: Path) -> None:
    status = root / "var/lib/dpkg/status"
    text = status.read_text()
    status.write_text(text.replace("Package: linux-image-cloud-arm64", "Package: my-kernel"))
    assert not bootable.lacks(root)
    (root / "boot/vmlinuz-6.1").unlink()
    assert bootable.lacks(root).packages == ("linux-image-cloud-arm64",)


def test_only_known_distributions_and_arm64(root: Path) -> None:
    (root / "etc/os-release").write_text("ID=alpine\n")
    with pytest.raises(ConfigError, match="Debian and Ubuntu"):
        bootable.lacks(root)
    to_image.refuse_other_processors(root)
    (root / "bin/sh").write_bytes(elf_file(40, bits=32))
    with pytest.raises(ConfigError, match="unsupported architecture arm"):
        to_image.refuse_other_processors(root)


def test_a_hostile_one_is_read_within_itself(root: Path) -> None:
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to("../../../../../../etc/passwd")
    (root / "var/lib/dpkg/status").unlink()
    (root / "var/lib/dpkg/status").symlink_to("/dev/zero")
    found = bootable.lacks(root)
    assert "/etc/fstab" in found.settings[0]
    assert "openssh-server" in found.packages


@pytest.mark.parametrize("distro", DISTROS.values(), ids=lambda one: one.name)
def test_the_scripts_that_set_it_up_are_shell(distro: object) -> None:
    settings = build.settings(getattr(distro, "scripts", None))
    assert ROOT_LABEL in settings
    for part in (bootable._INSTALL, bootable._FINISH):
        script = f"{bootable._BEGIN}{settings}{part}"
        subprocess.run(["sh", "-n", "-c", script], check=True)
