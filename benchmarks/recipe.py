"""The manual recipe: an overlay, a plain seed, a hand-written domain, ``virsh define``."""

from __future__ import annotations

import shutil
from pathlib import Path

from lxml import etree
from lxml.builder import E

from benchmarks.world import USER, World

#: armvm's default shape, so that all tools boot the same guest.
CPUS, MEMORY_MIB, DISK = 2, 2048, "10G"


def make_disk(world: World, name: str) -> Path:
    """Make an overlay on the image, as ``qemu-img create -b`` does."""
    disk = world.directory / f"{name}.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    world.run(*words, "-b", world.image, disk, DISK)
    return disk


def make_seed(world: World, name: str) -> Path:
    """Make a seed with a plain cloud-config: a host name, the default user, a key."""
    seed = world.directory / f"{name}.seed.iso"
    files = world.directory / name
    files.mkdir()
    user_data, meta_data = files / "user-data", files / "meta-data"
    key = world.key.with_suffix(".pub").read_text().strip()
    user_data.write_text(
        f"#cloud-config\nhostname: {name}\nssh_authorized_keys:\n  - {key}\n"
        f"system_info:\n  default_user:\n    name: {USER}\n"
    )
    meta_data.write_text(f"instance-id: {name}\nlocal-hostname: {name}\n")
    if shutil.which("cloud-localds"):
        world.run("cloud-localds", seed, user_data, meta_data)
        return seed
    maker = ["genisoimage"] if shutil.which("genisoimage") else ["xorriso", "-as", "mkisofs"]
    options = ["-quiet", "-volid", "cidata", "-joliet", "-rock"]
    world.run(*maker, *options, "-output", seed, user_data, meta_data)
    return seed


def seed_problem(_: World) -> str | None:
    """Return why this host cannot make a seed, or None."""
    if any(shutil.which(one) for one in ("cloud-localds", "genisoimage", "xorriso")):
        return None
    return "install cloud-localds, genisoimage or xorriso (cloud-image-utils)"


def domain_xml(name: str, disk: Path, seed: Path) -> str:
    """Return the recipe's domain: virt, cortex-a57, UEFI, virtio.

    The seed is a virtio disk, because this image's kernel cannot use the cdrom of usual recipes.
    """
    drives = [
        E.disk(
            E.driver(name="qemu", type=kind),
            E.source(file=str(path)),
            E.target(dev=target, bus="virtio"),
            type="file",
            device="disk",
        )
        for path, kind, target in ((disk, "qcow2", "vda"), (seed, "raw", "vdb"))
    ]
    domain = E.domain(
        E.name(name),
        E.memory(str(MEMORY_MIB), unit="MiB"),
        E.vcpu(str(CPUS)),
        E.os(
            E.type("hvm", arch="aarch64", machine="virt"),
            E.firmware(
                E.feature(enabled="no", name="secure-boot"),
                E.feature(enabled="no", name="enrolled-keys"),
            ),
            E.boot(dev="hd"),
            firmware="efi",
        ),
        E.features(E.acpi(), E.gic(version="3")),
        E.cpu(E.model("cortex-a57", fallback="forbid"), mode="custom", match="exact"),
        E.devices(
            *drives,
            E.interface(E.source(network="default"), E.model(type="virtio"), type="network"),
            E.serial(type="pty"),
            E.console(type="pty"),
        ),
        type="qemu",
    )
    return etree.tostring(domain, pretty_print=True, encoding="unicode")
