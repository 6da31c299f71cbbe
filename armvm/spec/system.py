"""The operating systems armvm knows by name: libosinfo ids and the default user of each."""

from __future__ import annotations

from dataclasses import dataclass

#: The user made in a guest whose distribution is not known.
FALLBACK_USER = "armvm"

#: codename → version, for references such as ``ubuntu:noble``.
CODENAMES = {
    "ubuntu": {
        "focal": "20.04",
        "jammy": "22.04",
        "noble": "24.04",
        "oracular": "24.10",
        "plucky": "25.04",
        "questing": "25.10",
    },
    "debian": {"bullseye": "11", "bookworm": "12", "trixie": "13"},
}


@dataclass(frozen=True, kw_only=True)
class OperatingSystem:
    """A guest's distribution (``ubuntu``, ``debian``) and version (``24.04``, ``12``)."""

    distro: str
    version: str

    @property
    def libosinfo_id(self) -> str:
        """The id virt-manager takes its icon and hints from.

        Unknown versions are harmless: libosinfo users fall back to a generic entry.
        """
        return (
            f"http://{self.distro}.{_DOMAINS.get(self.distro, 'org')}/{self.distro}/{self.version}"
        )

    @property
    def default_user(self) -> str:
        """The user name that the distribution's own cloud images document."""
        return self.distro if self.distro in _DOMAINS else FALLBACK_USER

    def __str__(self) -> str:
        return f"{self.distro} {self.version}"


_DOMAINS = {"ubuntu": "com", "debian": "org"}
