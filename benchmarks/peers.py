"""virt-install and testcloud, set up to boot the same image."""

from __future__ import annotations

from pathlib import Path

from armvm.base.process import run
from benchmarks.recipe import CPUS, DISK, MEMORY_MIB
from benchmarks.world import TIMEOUT, USER, World, need, which

#: The only path where testcloud looks for ARM64 firmware: Fedora's.
TESTCLOUD_LOADER = Path("/usr/share/edk2/aarch64/QEMU_EFI-silent-pflash.raw")
#: The same firmware on Debian and Ubuntu, and its empty variables.
DEBIAN_LOADER = Path("/usr/share/AAVMF/AAVMF_CODE.fd")
DEBIAN_VARIABLES = Path("/usr/share/AAVMF/AAVMF_VARS.fd")
#: Where libvirt looks for a machine's UEFI variables before it copies a template there.
NVRAM = Path("/var/lib/libvirt/qemu/nvram")


def virt_install(world: World, name: str, seed: Path) -> list[str | Path]:
    """Return virt-install's command line: it makes the overlay itself and gets the seed.

    The seed is a virtio disk. For an ARM64 guest, ``--cloud-init`` would put it on a
    controller that cloud kernels do not support.
    """
    disk = world.directory / f"{name}.qcow2"
    size = DISK.removesuffix("G")
    return [
        *("virt-install", "--connect", "qemu:///system", "--name", name, "--import"),
        *("--arch", "aarch64", "--machine", "virt", "--virt-type", "qemu"),
        *("--cpu", "cortex-a57", "--vcpus", str(CPUS), "--memory", str(MEMORY_MIB)),
        *("--osinfo", "debian11", "--boot", "uefi", "--graphics", "none"),
        *(
            "--disk",
            f"path={disk},size={size},format=qcow2,bus=virtio,backing_store={world.image},backing_format=qcow2",
        ),
        *("--disk", f"path={seed},device=disk,bus=virtio,readonly=on"),
        *("--network", "network=default,model=virtio", "--noautoconsole"),
    ]


def virt_install_problem(_: World) -> str | None:
    """Return why virt-install cannot run here."""
    return need(("virt-install", "apt-get install virtinst"))


def testcloud_problem(_: World) -> str | None:
    """Return why testcloud cannot run here."""
    missing = need(
        ("testcloud", "pip install testcloud"),
        ("genisoimage", "apt-get install genisoimage"),
        ("setfacl", "apt-get install acl"),
    )
    if missing is None and not (TESTCLOUD_LOADER.exists() or DEBIAN_LOADER.exists()):
        return f"testcloud's ARM64 firmware not found: {TESTCLOUD_LOADER}"
    return missing


class Testcloud:
    """testcloud with separate directories, settings and firmware for this run."""

    def __init__(self, world: World) -> None:
        """Prepare testcloud: its settings are a Python file in its home directory."""
        self._world = world
        self._home = world.directory / "testcloud"
        settings = self._home / ".config" / "testcloud" / "settings.py"
        settings.parent.mkdir(parents=True)
        data = self._home / "data"
        for directory in (data / "instances", data / "backingstores"):
            directory.mkdir(parents=True)
        key = world.key.with_suffix(".pub").read_text().strip()
        user_data = (
            f"#cloud-config\nssh_authorized_keys:\n  - {key}\n"
            f"system_info:\n  default_user:\n    name: {USER}\n"
        )
        settings.write_text(
            f"DATA_DIR = {str(data)!r}\nSTORE_DIR = {str(data / 'backingstores')!r}\n"
            f"CONSOLE_LOG_DIR = {str(data)!r}\nUSER_DATA = {user_data!r}\n"
        )
        self._give_firmware()
        # The first use copies the image into its store; do this before the clock starts.
        self.create(world.name("tcdry"), "--dry")

    def create(self, name: str, *more: str) -> None:
        """Create a machine, and wait until it has an address.

        libvirt does not have a variables template for testcloud's loader and would stop with
        "unable to find any master var store", so copy the variables first.
        """
        if TESTCLOUD_LOADER.is_symlink():
            variables = NVRAM / f"{name}_VARS.fd"
            self._world.run("cp", "--sparse=always", DEBIAN_VARIABLES, variables)
            self._world.cleanup.callback(variables.unlink, missing_ok=True)
        size = DISK.removesuffix("G")
        words = [which("testcloud") or "testcloud", "-c", "qemu:///system", "create"]
        words += ["--name", name, "--arch", "aarch64", "--ram", str(MEMORY_MIB)]
        words += ["--vcpus", str(CPUS), "--disksize", size, "--no-graphic", "--timeout", "600"]
        words += [*more, f"file://{self._world.image}"]
        run(words, timeout=TIMEOUT, env={"HOME": str(self._home)})

    def _give_firmware(self) -> None:
        """Link the firmware to the path that testcloud uses; remove the link after the run."""
        if TESTCLOUD_LOADER.exists():
            return
        made = [one for one in TESTCLOUD_LOADER.parents if not one.exists()]
        TESTCLOUD_LOADER.parent.mkdir(parents=True, exist_ok=True)
        for directory in reversed(made):
            self._world.cleanup.callback(directory.rmdir)
        TESTCLOUD_LOADER.symlink_to(DEBIAN_LOADER)
        self._world.cleanup.callback(TESTCLOUD_LOADER.unlink, missing_ok=True)
