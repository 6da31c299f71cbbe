"""All catalogs there are: those that armvm brings, at their mirrors, and the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from armvm.images import ubuntu
from armvm.images.alpine import Alpine
from armvm.images.catalog import Catalog
from armvm.images.debian import Debian
from armvm.images.fedora import Fedora
from armvm.images.opensuse import OpenSuse
from armvm.images.streams import USUAL, Streams
from armvm.images.template import Template, keys_of
from armvm.spec.catalogs import DISTROS, ImageConfig, OwnCatalog


def _at(kind: Callable[..., Catalog]) -> Callable[[str | None], Catalog]:
    return lambda mirror: kind(base=mirror) if mirror else kind()


_BUILT_IN: Mapping[str, Callable[[str | None], Catalog]] = MappingProxyType(
    {
        "ubuntu": _at(ubuntu.catalog),
        "debian": _at(Debian),
        "fedora": _at(Fedora),
        "alpine": _at(Alpine),
        "opensuse": _at(OpenSuse),
    }
)


def catalogs(config: ImageConfig) -> dict[str, Catalog]:
    """Return the catalogs by name, in the order in which they are shown."""
    found = {name: _BUILT_IN[name](config.mirrors.get(name)) for name in DISTROS}
    return found | {own.name: _own(own) for own in config.own}


def _own(own: OwnCatalog) -> Catalog:
    if own.kind == "simplestreams":
        return Streams(name=own.name, trees={USUAL: own.url}, distro=own.distro, keys=keys_of(own))
    return Template(own=own)
