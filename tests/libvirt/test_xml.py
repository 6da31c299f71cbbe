"""The domain that armvm leaves behind is libvirt's: valid, editable, portable, startable."""

from __future__ import annotations

import difflib
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from armvm.host.xml import parse
from tests.images_tools import KERNEL, bootable_image, debian_tree
from tests.libvirt.world import SYSTEM, World, virsh

FORMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "headless": ("--headless",),
    "minimal": ("--preset", "minimal"),
    "fast": ("--fast",),
    "user network": ("--network", "user"),
    "cpu": ("--cpu", "cortex-a72"),
    "max": ("--cpu", "max"),
    "many CPUs": ("--cpus", "9", "--mem", "512"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_schema_takes_it_and_libvirt_too(
    world: World, image: Path, name: str, form: str, tmp_path: Path
) -> None:
    command = ("create", "--name", name, "--image", str(image), *FORMS[form])
    file = tmp_path / "domain.xml"
    file.write_text(world.armvm(*command, "--print-xml").ok().out)
    validate(file)
    virsh("define", "--validate", file)
    virsh("undefine", "--nvram", name)


def validate(file: Path) -> None:
    """Check a file against libvirt's schema."""
    done = subprocess.run(
        ["virt-xml-validate", str(file), "domain"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("form", ["plain", "minimal", "max", "many CPUs"])
def test_it_starts(world: World, image: Path, name: str, form: str) -> None:
    """The guest has nothing to boot, and stays in its firmware."""
    command = ("create", "--name", name, "--image", str(image), "--no-wait", *FORMS[form])
    world.armvm(*command).ok()
    assert virsh("domstate", name).strip() == "running"
    world.armvm("delete", "--yes", name).ok()
    assert world.traces(name) == []


def test_an_edit_changes_what_was_edited(world: World, image: Path, name: str) -> None:
    world.held(name, image)
    before = virsh("dumpxml", "--inactive", name)
    subprocess.run(
        [
            *("virt-xml", "--connect", SYSTEM, name, "--edit"),
            *("--memory", "3072,maxmemory=3072"),
        ],
        check=True,
        capture_output=True,
    )
    after = virsh("dumpxml", "--inactive", name)
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0)
    changed = [line for line in diff if re.match(r"[+-] ", line)]
    assert len(changed) == 4, changed
    assert all(re.search(r"<(currentM|m)emory unit='KiB'>", line) for line in changed)
    shown = world.armvm("show", name, "--json").ok().json
    assert shown["memory_mib"] == 3072
    assert shown["settings"]["memory_mib"] == 2048  # what was asked for is remembered


@pytest.fixture
def copy() -> Iterator[str]:
    """The name of a copy, which is undefined in the end."""
    name = f"armvm-test-{uuid.uuid4().hex[:6]}"
    yield name
    virsh("destroy", name, check=False)
    virsh("undefine", "--nvram", name, check=False)


def test_its_own_xml_can_be_defined_elsewhere(
    world: World, image: Path, name: str, copy: str, tmp_path: Path
) -> None:
    world.armvm("create", "--name", name, "--image", image, "--no-wait").ok()
    world.armvm("stop", "--force", name).ok()  # it has been started: libvirt knows its firmware
    text = world.armvm("xml", name).ok().out
    for path in ("qemu-system-aarch64", "AAVMF", "/nvram/", "virt-7"):
        assert path not in text
    own = virsh("domuuid", name).strip()
    file = tmp_path / "copy.xml"
    file.write_text(
        text.replace(f"<name>{name}<", f"<name>{copy}<").replace(own, str(uuid.uuid4()))
    )
    validate(file)
    virsh("define", "--validate", file)
    virsh("start", copy)
    assert virsh("domstate", copy).strip() == "running"


def test_a_fast_machine_has_the_images_kernel(world: World, name: str, tmp_path: Path) -> None:
    image = bootable_image(tmp_path / "image.qcow2", debian_tree())
    command = ("create", "--name", name, "--image", image, "--fast", "--network", "user")
    made = world.armvm(*command, "--no-wait").ok()
    assert "firmware" not in made.err
    assert virsh("domstate", name).strip() == "running"
    file = tmp_path / "domain.xml"
    file.write_text(virsh("dumpxml", "--inactive", name))
    validate(file)
    document = parse(file.read_text())
    paths = [Path(document.findtext(f"os/{what}") or "") for what in ("kernel", "initrd")]
    assert [path.name for path in paths] == [f"{name}.kernel", f"{name}.initrd"]
    assert paths[0].read_bytes() == KERNEL
    emulated = document.get("type") == "qemu"
    assert ("kpti=0" in (document.findtext("os/cmdline") or "").split()) is emulated
    assert document.find("os/loader") is None and document.find("os/nvram") is None
    shown = world.armvm("show", name, "--json").ok().json["fast"]
    assert shown["disk"].startswith("cache=unsafe") and "vmlinuz-6.1.0-1" in shown["kernel"]
    assert ("kpti" in shown) is emulated
    world.armvm("delete", "--yes", name).ok()
    assert world.traces(name) == []


def test_without_a_kernel_in_the_image_the_firmware_boots(
    world: World, image: Path, name: str
) -> None:
    made = world.armvm("create", "--name", name, "--image", image, "--fast", "--no-wait").ok()
    assert made.err.count("--fast: falling back to a firmware boot: ") == 1
    shown = world.armvm("show", name, "--json").ok().json["fast"]
    assert list(shown) == ["disk"]
    assert "firmware='efi'" in virsh("dumpxml", "--inactive", name)


def test_a_golden_cannot_be_fast(world: World, image: Path, name: str) -> None:
    command = ("golden", "create", name, "--image", image, "--fast", "--network", "user")
    error = world.armvm(*command).failed(2)
    assert "No such option: --fast" in error.err
    assert world.traces(name) == []
