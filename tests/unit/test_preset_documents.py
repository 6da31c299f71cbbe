"""What presets tell the guest, and the recipe of a tuned image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from armvm.base.errors import ConfigError
from armvm.guest.agents import tune
from armvm.guest.cloudinit.documents import compose
from armvm.guest.cloudinit.presets import documents_of, packages_of, preset_documents
from armvm.guest.identity import new_identity
from armvm.settings.machine import Machine
from armvm.settings.names import check_user_name
from armvm.settings.presets import chain, preset_layer, preset_names
from armvm.settings.system import FAMILIES, OperatingSystem

DEBIAN = OperatingSystem(distro="debian", version="12")


def told(preset: str, *, tuned: bool = False, clone: bool = False) -> dict[str, Any]:
    """Return the user-data of a machine of a preset."""
    machine = Machine(name="m", preset=preset, tuned=tuned)
    documents = compose(machine, new_identity("m"), "alice", system=DEBIAN, clone=clone)
    data: dict[str, Any] = yaml.safe_load(documents.user_data)
    return data


def test_a_preset_begins_with_what_it_is_based_on() -> None:
    assert chain("docker") == ("default", "minimal", "docker")
    values = preset_layer("docker").values
    assert values["mem"] == "2G", "its own"
    assert values["headless"] is True, "from minimal"
    assert "base" not in values
    assert "description" not in values


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("distro", FAMILIES)
def test_every_preset_has_something_to_say_to_every_distribution_or_says_that_it_has_not(
    preset: str, distro: str
) -> None:
    system = OperatingSystem(distro=distro, version="1")
    try:
        found = preset_documents(preset, "alice", system)
    except ConfigError as error:
        assert distro in error.message
        # Red Hat's rebuilds have no package of docker's.
        rebuilds = ("almalinux", "rocky", "centos", "oraclelinux") if preset == "docker" else ()
        assert distro in ("alpine", *rebuilds)
        return
    for document in found:
        assert all(isinstance(one, str) for one in document["packages"])
        assert "%(" not in yaml.safe_dump(document)


def test_a_preset_without_a_document_says_nothing() -> None:
    assert documents_of("minimal") == ()
    assert documents_of("docker") == ("docker",)
    assert "packages" not in told("minimal")


def test_docker_comes_with_its_group_for_the_guests_user() -> None:
    data = told("docker")
    assert "docker.io" in data["packages"]
    assert ["usermod", "--append", "--groups", "docker", "alice"] in data["runcmd"]


def test_what_a_tuned_image_has_is_not_installed_again() -> None:
    data = told("docker", tuned=True)
    assert "packages" not in data
    assert ["usermod", "--append", "--groups", "docker", "alice"] in data["runcmd"]


def test_a_clone_is_told_nothing_of_what_its_golden_has() -> None:
    data = told("docker", clone=True)
    assert "packages" not in data
    assert "usermod" not in yaml.safe_dump(data)


def test_packages_of_an_unknown_system_are_debians() -> None:
    assert packages_of("docker", None) == packages_of("docker", DEBIAN)


@pytest.mark.parametrize(
    ("reference", "presets", "name"),
    [
        ("ubuntu:24.04", (), "tuned-ubuntu-24.04"),
        ("local:debian-12", ("docker",), "tuned-docker-debian-12"),
        ("/srv/My Image.qcow2", (), "tuned-my-image"),
        ("https://x.example/a/b.img#sha256=00", (), "tuned-b.img-sha256-00"),
        ("x" * 200, (), "tuned-" + "x" * 57),
    ],
)
def test_a_tuned_image_is_named_after_its_own(
    reference: str, presets: tuple[str, ...], name: str
) -> None:
    assert tune.image_name(reference, presets) == name


def test_the_script_is_a_shell_script_that_says_how_it_ended(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "tune.sh"
    file.write_text(tune.script())
    subprocess.run(["sh", "-n", file], check=True)
    assert tune.DONE in tune.script()
    assert tune.FAILED in tune.script()
    assert check_user_name(tune.USER) == tune.USER
    assert yaml.safe_load(tune.USER_DATA) == {"package_update": True}
