"""A preset's cloud-config: ``cloud-init/preset-NAME.yaml``, if it has one."""

from __future__ import annotations

from typing import Any

from armvm.base.errors import ConfigError
from armvm.base.paths import resources
from armvm.settings.presets import chain
from armvm.settings.system import OperatingSystem

#: The system assumed for an unknown one.
_USUAL = "debian"


def documents_of(preset: str) -> tuple[str, ...]:
    """Return those presets in a preset's chain that have a document, in order."""
    return tuple(one for one in chain(preset) if (resources("cloud-init") / _file(one)).exists())


def preset_documents(
    preset: str, user: str, system: OperatingSystem | None
) -> list[dict[str, Any]]:
    """Return a preset's cloud-config documents, for the guest's *user* and its *system*.

    Raises ConfigError if a preset does not support that system.
    """
    found = []
    for name in documents_of(preset):
        import yaml

        text = (resources("cloud-init") / _file(name)).read_text()
        document: dict[str, Any] = yaml.safe_load(text)
        if "packages" in document:
            document["packages"] = _packages(document["packages"], name, system)
        if "runcmd" in document:
            values = {"user": user}
            document["runcmd"] = [
                [word % values for word in command] for command in document["runcmd"]
            ]
        found.append(document)
    return found


def packages_of(preset: str, system: OperatingSystem | None) -> list[str]:
    """Return the packages that a preset installs. Raises ConfigError as preset_documents() does."""
    return [
        package
        for document in preset_documents(preset, "", system)
        for package in document.get("packages", ())
    ]


def _packages(
    choice: dict[str, list[str]], preset: str, system: OperatingSystem | None
) -> list[str]:
    distro = system.distro if system and system.family else _USUAL
    if distro not in choice:
        raise ConfigError(
            f"preset {preset} does not support {distro}",
            hint=f"it supports {', '.join(choice)}; for others, list the packages in --user-data",
        )
    return choice[distro]


def _file(preset: str) -> str:
    return f"preset-{preset}.yaml"
