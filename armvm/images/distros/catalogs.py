"""All catalogs: the built-in ones, at their mirrors, and the user's own.

Each distribution's module is imported on demand: a machine from a golden or a file needs
none of them.
"""

from __future__ import annotations

from armvm.images.check import formats
from armvm.images.distros.catalog import Catalog
from armvm.images.trust.openpgp import Key
from armvm.images.trust.pinned import UBUNTU
from armvm.settings.catalogs import DISTROS, ImageConfig, OwnCatalog
from armvm.settings.system import OperatingSystem


def names(config: ImageConfig) -> tuple[str, ...]:
    """Return the names of all catalogs, in display order."""
    return (*DISTROS, *(own.name for own in config.own))


def catalog(name: str, config: ImageConfig, *, ubuntu_keys: tuple[Key, ...] = UBUNTU) -> Catalog:
    """Return a catalog by name; *ubuntu_keys* may sign Ubuntu's. Raises KeyError if unknown."""
    mirror = config.mirrors.get(name)
    if name == "ubuntu":
        from armvm.images.distros import ubuntu

        return ubuntu.catalog(mirror or ubuntu.BASE, ubuntu_keys)
    if name == "debian":
        from armvm.images.distros import debian

        return debian.Debian(base=mirror or debian.BASE)
    if name == "fedora":
        from armvm.images.distros import fedora

        return fedora.Fedora(base=mirror or fedora.BASE)
    if name == "alpine":
        from armvm.images.distros import alpine

        return alpine.Alpine(base=mirror or alpine.BASE)
    if name == "opensuse":
        from armvm.images.distros import opensuse

        return opensuse.OpenSuse(base=mirror or opensuse.BASE)
    if name == "oraclelinux":
        from armvm.images.distros import oraclelinux

        return oraclelinux.OracleLinux(base=mirror or oraclelinux.BASE)
    if name == "amazonlinux":
        from armvm.images.distros import amazonlinux

        return amazonlinux.AmazonLinux(base=mirror or amazonlinux.BASE)
    if name == "kali":
        from armvm.images.distros import kali

        return kali.Kali(base=mirror or kali.BASE)
    if name in ("almalinux", "rocky", "centos"):
        from armvm.images.distros import enterprise

        layout = enterprise.LAYOUTS[name]
        return enterprise.Enterprise(layout=layout, base=mirror or layout.base)
    return _own({own.name: own for own in config.own}[name])


def _own(own: OwnCatalog) -> Catalog:
    from armvm.images.distros.template import Template, keys_of

    if own.kind == "simplestreams":
        from armvm.images.distros.streams import USUAL, Streams

        return Streams(name=own.name, trees={USUAL: own.url}, distro=own.distro, keys=keys_of(own))
    return Template(own=own)


def system_of(file_name: str) -> OperatingSystem | None:
    """Return the operating system in an image's published file name, or None."""
    from armvm.images.distros import (
        alpine,
        amazonlinux,
        enterprise,
        fedora,
        kali,
        opensuse,
        oraclelinux,
    )

    found = formats.guess_system(file_name)
    modules = (fedora, alpine, opensuse, enterprise, oraclelinux, amazonlinux, kali)
    return found or next(filter(None, (one.system_of(file_name) for one in modules)), None)
