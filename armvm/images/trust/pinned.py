"""The keys that armvm trusts. They are built in: no setting adds or changes one.

A fingerprint is listed only if two independent sources confirm it.
"""

from __future__ import annotations

import re

from armvm.images.trust.openpgp import Key

_UBUNTU_KEYRINGS = ("/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",)
_UBUNTU_PACKAGE = (
    "ubuntu-cloudimage-keyring on Ubuntu, ubuntu-keyring on Debian 13 (Debian 12 has none)"
)
_KEYS_PACKAGE = "distribution-gpg-keys on Fedora and Debian 13 (Debian 12 has none)"

#: Ubuntu's cloud images. ubuntu-cloudimage-keyring.gpg contains both, in Ubuntu's package
#: ubuntu-cloudimage-keyring and in Debian 13's ubuntu-keyring; projects that verify SHA256SUMS.gpg
#: of cloud-images.ubuntu.com pin the same keys.
UBUNTU = (
    Key(
        fingerprint="D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81",
        owner="Ubuntu's UEC Image Automatic Signing Key",
        keyrings=_UBUNTU_KEYRINGS,
        package=_UBUNTU_PACKAGE,
    ),
    Key(
        fingerprint="4A3CE3CD565D7EB5C810E2B97FF3F408476CF100",
        owner="Ubuntu Cloud Image Builder",
        keyrings=_UBUNTU_KEYRINGS,
        package=_UBUNTU_PACKAGE,
    ),
)


def _fedora(release: int, fingerprint: str) -> Key:
    name = f"RPM-GPG-KEY-fedora-{release}-primary"
    return Key(
        fingerprint=fingerprint,
        owner=f"Fedora {release}",
        keyrings=(f"/etc/pki/rpm-gpg/{name}", f"/usr/share/distribution-gpg-keys/fedora/{name}"),
        package=_KEYS_PACKAGE,
    )


#: Fedora's releases: one key each, for the CHECKSUM files. Published at
#: https://fedoraproject.org/security/; confirmed by files in projects that verify Fedora's
#: images and packages (gpgv's output for a CHECKSUM file, rpm-ostree's for a deployment, …).
FEDORA = {
    "42": _fedora(42, "B0F4950458F69E1150C6C5EDC8AC4916105EF944"),
    "43": _fedora(43, "C6E7F081CF80E13146676E88829B606631645531"),
    "44": _fedora(44, "36F612DCF27F7D1A48A835E4DBFCF71C6D9F90A6"),
    "45": _fedora(45, "4F50A6114CD5C6976A7F1179655A4B02F577861E"),
    "46": _fedora(46, "D924B10D3E810DABDD8B56B596E7E91491211FCE"),
    "47": _fedora(47, "B2E766FA50CA6FA2D5ED06FC09D879E09488FB64"),
}

#: openSUSE's Leap and Tumbleweed (2022), which sign IMAGE.sha256 as IMAGE.sha256.asc. From
#: repomd.xml.key of Leap 16.0, and get.opensuse.org's instructions for verification.
OPENSUSE = (
    Key(
        fingerprint="AD485664E901B867051AB15F35A2F86E29B700A4",
        owner="openSUSE Project Signing Key",
        keyrings=(
            "/usr/share/distribution-gpg-keys/opensuse/RPM-GPG-KEY-openSUSE-2022",
            "/usr/share/distribution-gpg-keys/opensuse/RPM-GPG-KEY-openSUSE",
        ),
        package=_KEYS_PACKAGE,
    ),
)

# Not listed, because no source confirms a key: Debian's cloud images (SHA512SUMS is not
# signed; the keys at debian.org/CD/verify are for installation images) and Alpine's
# (0482D84022F52DF1C4E7CD43293ACD0907D9495A signs its ISO images and root file systems; no source
# says whether it signs cloud images too).

ALL = (*UBUNTU, *FEDORA.values(), *OPENSUSE)

_FINGERPRINT = re.compile(r"[0-9A-F]{40}(?:[0-9A-F]{24})?\Z")


def owner_of(fingerprint: str) -> str | None:
    """Return the owner of a pinned key; None if it is not pinned."""
    return next((key.owner for key in ALL if key.fingerprint == fingerprint), None)


def grouped(fingerprint: str) -> str:
    """Return a fingerprint in groups of four digits, for comparison.

    An invalid fingerprint (metadata can be edited) is returned as a question mark.
    """
    if not _FINGERPRINT.match(fingerprint):
        return "?"
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))
