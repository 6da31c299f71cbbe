"""The operating systems that armvm knows by name, and how their cloud images differ.

Sources: libosinfo's database (``osinfo-query os``) for the ids; each distribution's page about
its cloud images for the user; cloud-init's sources for the network (see ``netplan``).
"""

from __future__ import annotations

from dataclasses import dataclass

#: The user in a guest whose distribution is unknown.
FALLBACK_USER = "armvm"

#: codename → version, for references such as ``ubuntu:noble``.
CODENAMES = {
    "ubuntu": {
        "xenial": "16.04",
        "bionic": "18.04",
        "focal": "20.04",
        "jammy": "22.04",
        "noble": "24.04",
        "oracular": "24.10",
        "plucky": "25.04",
        "questing": "25.10",
        "resolute": "26.04",
        "stonking": "26.10",
    },
    "debian": {"bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14"},
}

#: Debian's names for its suites, as of November 2026. They move on with each of its releases.
DEBIAN_SUITES = {
    "oldstable": "12", "stable": "13", "testing": "14", "sid": "sid", "unstable": "sid",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Family:
    """Common properties of a distribution's cloud images.

    ``domain`` and ``osinfo`` form libosinfo's id. ``debian_like``: its cloud-init has the modules
    of Debian's and Ubuntu's, in the same order. ``groups`` are those of the user: ``sudo`` or
    ``wheel`` may use sudo with a password.
    """

    domain: str
    osinfo: str
    user: str
    systemd: bool = True
    debian_like: bool = False
    groups: tuple[str, ...] = ("adm", "sudo")


FAMILIES = {
    "ubuntu": Family(domain="ubuntu.com", osinfo="ubuntu", user="ubuntu", debian_like=True),
    "debian": Family(domain="debian.org", osinfo="debian", user="debian", debian_like=True),
    "fedora": Family(
        domain="fedoraproject.org", osinfo="fedora", user="fedora", groups=("adm", "wheel")
    ),
    # OpenRC instead of systemd.
    "alpine": Family(domain="alpinelinux.org", osinfo="alpinelinux", user="alpine", systemd=False),
    "opensuse": Family(domain="opensuse.org", osinfo="opensuse", user="opensuse"),
    "almalinux": Family(
        domain="almalinux.org", osinfo="almalinux", user="almalinux", groups=("adm", "wheel")
    ),
    "rocky": Family(domain="rockylinux.org", osinfo="rocky", user="rocky", groups=("adm", "wheel")),
    "centos": Family(
        domain="centos.org", osinfo="centos-stream", user="cloud-user", groups=("adm", "wheel")
    ),
    "oraclelinux": Family(
        domain="oracle.com", osinfo="ol", user="cloud-user", groups=("adm", "wheel")
    ),
    # The last two are not in libosinfo's database.
    "kali": Family(domain="kali.org", osinfo="kali", user="kali", debian_like=True),
    "amazonlinux": Family(
        domain="amazonlinux.com", osinfo="amazonlinux", user="ec2-user", groups=("adm", "wheel")
    ),
}


#: Versions whose images use ifupdown: Ubuntu has netplan since 17.10, Debian since 12.
_BEFORE_NETPLAN = {"ubuntu": ("14.04", "16.04"), "debian": ("9", "10", "11")}


@dataclass(frozen=True, kw_only=True)
class OperatingSystem:
    """A guest's distribution (``ubuntu``, ``debian``) and version (``24.04``, ``12``)."""

    distro: str
    version: str

    @property
    def family(self) -> Family | None:
        """The properties of the distribution's images; None if it is unknown."""
        return FAMILIES.get(self.distro)

    @property
    def libosinfo_id(self) -> str:
        """The libosinfo id, from which virt-manager takes its icon and defaults.

        Unknown versions are harmless: libosinfo users fall back to a generic entry.
        """
        family = self.family
        if family is None:
            return f"http://{self.distro}.org/{self.distro}/{self.version}"
        return f"http://{family.domain}/{family.osinfo}/{self.version}"

    @property
    def default_user(self) -> str:
        """The default user of the distribution's cloud images."""
        return self.family.user if self.family else FALLBACK_USER

    @property
    def netplan(self) -> bool:
        """Whether a network configuration may match interfaces by a pattern.

        Only cloud-init's netplan renderer supports one (cloudinit/net/netplan.py); the others
        (NetworkManager, wicked, ifupdown) look for an interface with the entry's own name.
        """
        if self.version in _BEFORE_NETPLAN.get(self.distro, ()):
            return False
        return self.family is None or self.family.debian_like

    def __str__(self) -> str:
        return f"{self.distro} {self.version}"
