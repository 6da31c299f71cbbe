"""All catalogs there are: those that armvm brings, at their mirrors, and the user's own."""

from __future__ import annotations

from armvm.images import alpine, debian, fedora, formats, opensuse, ubuntu
from armvm.images.alpine import Alpine
from armvm.images.catalog import Catalog
from armvm.images.debian import Debian
from armvm.images.fedora import Fedora
from armvm.images.openpgp import Key
from armvm.images.opensuse import OpenSuse
from armvm.images.pinned import UBUNTU
from armvm.images.streams import USUAL, Streams
from armvm.images.template import Template, keys_of
from armvm.spec.catalogs import ImageConfig, OwnCatalog
from armvm.spec.system import OperatingSystem


def catalogs(config: ImageConfig, *, ubuntu_keys: tuple[Key, ...] = UBUNTU) -> dict[str, Catalog]:
    """Return the catalogs by name, in the order in which they are shown."""
    at = config.mirrors.get
    found: list[Catalog] = [
        ubuntu.catalog(at("ubuntu", ubuntu.BASE), ubuntu_keys),
        Debian(base=at("debian", debian.BASE)),
        Fedora(base=at("fedora", fedora.BASE)),
        Alpine(base=at("alpine", alpine.BASE)),
        OpenSuse(base=at("opensuse", opensuse.BASE)),
        *map(_own, config.own),
    ]
    return {one.name: one for one in found}


def system_of(file_name: str) -> OperatingSystem | None:
    """Return the system that an image's name tells of, where it is named as its makers do."""
    guesses = (formats.guess_system, fedora.system_of, alpine.system_of, opensuse.system_of)
    return next(filter(None, (guess(file_name) for guess in guesses)), None)


def _own(own: OwnCatalog) -> Catalog:
    if own.kind == "simplestreams":
        return Streams(name=own.name, trees={USUAL: own.url}, distro=own.distro, keys=keys_of(own))
    return Template(own=own)
