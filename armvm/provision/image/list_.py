"""List images: those in the cache with their users, and those in the catalogs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from armvm.base.errors import ArmvmError, NotFound
from armvm.base.progress import Progress, Quiet
from armvm.base.result import Doc
from armvm.host.connection import Connection
from armvm.images.cache.entry import Entry, matches
from armvm.images.cache.store import Cache
from armvm.images.distros.catalog import Catalog, Offer
from armvm.images.obtain import LOCAL
from armvm.images.resolve import Settings
from armvm.provision.image.find import CachedImage, bases, cached, described, settings
from armvm.provision.image.local import usual_references
from armvm.settings.names import shown


@dataclass(frozen=True, kw_only=True)
class CatalogOffer:
    """An image that a catalog offers."""

    catalog: Annotated[str, Doc("The catalog's name.")]
    reference: Annotated[str, Doc("The reference to give to --image.")]
    version: Annotated[str, Doc("The release.")]
    serial: Annotated[str | None, Doc("The catalog's version of the image.")]
    variant: Annotated[str | None, Doc("The variant.")]
    title: Annotated[str, Doc("The release's code name or title.")]
    size: Annotated[int | None, Doc("Bytes to download.")]
    cached: Annotated[bool, Doc("Whether it is in the cache.")]


def in_cache(
    names: Sequence[str], connection: Connection | None, pool_name: str
) -> list[CachedImage]:
    """Return the cached images that *names* name, or all if none is given; newest first.

    A name is a catalog, ``local``, or a reference as for `matches`. ``used_by`` lists the machines
    and goldens that use the image's base in the pool; it is None without a connection. Raises
    NotFound for a name that is neither a catalog nor a cached image.
    """
    entries = Cache.default().entries()

    def named(entry: Entry, name: str) -> bool:
        return entry.reference.partition(":")[0] == name or matches(entry, name)

    for name in names:
        known = [*settings().names, LOCAL.rstrip(":")]
        if name not in known and not any(named(one, name) for one in entries):
            raise NotFound(
                f"{shown(name)} is neither a catalog nor an image in the cache",
                hint=f"list the images: armvm image list; catalogs: {', '.join(known)}",
            )
    users = bases(connection, pool_name) if connection is not None else None
    return [
        replace(described(one), used_by=used_by(one.digest, users))
        for one in entries
        if not names or any(named(one, name) for name in names)
    ]


def used_by(digest: str, users: Mapping[str, list[str]] | None) -> list[str] | None:
    """Return the machines whose overlays use the base of the image with this digest.

    *users* is the result of bases(), or None if it is unknown.
    """
    if users is None:
        return None
    overlays = users.get(digest.removeprefix("sha256:"), [])
    return sorted(overlay.removesuffix(".qcow2") for overlay in overlays)


def on_offer(
    names: Sequence[str],
    progress: Progress,
    *,
    every: bool = False,
    wanted: Settings | None = None,
    cache: Cache | None = None,
) -> list[CatalogOffer]:
    """Return the images in the catalogs *names*, or in all catalogs if none is named.

    Lists the newest image of each release, or *every* serial and variant. armvm asks the
    catalogs in parallel and warns of each that fails. Raises NotFound for an unknown catalog,
    and the first error if all catalogs fail.
    """
    catalogs = (wanted or settings()).catalogs()
    for name in names:
        if name not in catalogs:
            raise NotFound(f"unknown catalog {shown(name)}", hint="known: " + ", ".join(catalogs))
    asked = {name: one for name, one in catalogs.items() if not names or name in names}
    with progress.task("asking " + ", ".join(asked)):
        answers = _ask(asked, wanted or settings(), every)
    errors = [(name, answer) for name, answer in answers.items() if isinstance(answer, Exception)]
    for name, answer in answers.items():
        if not answer:
            progress.warn(f"{name}: the catalog lists no images")
    none = bool(errors) and len(errors) == len(answers)
    for name, error in errors[1:] if none else errors:
        progress.warn(f"{name}: {getattr(error, 'message', error)}")
    if none:
        raise errors[0][1]
    here = _cached_images(cache or Cache.default())
    return [
        CatalogOffer(catalog=name, **vars(offer), cached=_mark(name, offer) in here)
        for name, answer in answers.items()
        if not isinstance(answer, Exception)
        for offer in answer
    ]


def _ask(
    catalogs: dict[str, Catalog], wanted: Settings, every: bool
) -> dict[str, list[Offer] | Exception]:
    """Ask all catalogs in parallel; return each one's offers, or its error."""
    answers: dict[str, list[Offer] | Exception] = {}

    def ask(name: str, catalog: Catalog) -> None:
        try:
            answers[name] = catalog.releases(wanted.asking(Quiet()), every=every)
        except Exception as error:  # the waiting thread raises or reports it
            answers[name] = error

    # Daemon threads: Ctrl-C does not wait for a server that does not answer.
    threads = [
        threading.Thread(target=ask, args=item, daemon=True, name=item[0])
        for item in catalogs.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers.values():
        if isinstance(answer, Exception) and not isinstance(answer, ArmvmError):
            raise answer
    return {name: answers[name] for name in catalogs}


def _mark(name: str, offer: Offer) -> tuple[str, str, str | None, str | None]:
    return name, offer.version, offer.serial, offer.variant


def _cached_images(cache: Cache) -> set[tuple[str, str, str | None, str | None]]:
    """Return catalog, version, serial and variant of each image in the cache."""
    found = set()
    for entry in cache.entries():
        name, _, rest = entry.reference.partition(":")
        variant = rest.partition("@")[2] or None
        if entry.system is not None and not entry.problem:
            found.add((name, entry.system.version, entry.serial, variant))
    return found


def known_references() -> list[str]:
    """Return references for completion: the catalogs' usual ones, recipes and cached images.

    Asks no server.
    """
    usual = [text for one in settings().catalogs().values() for text in one.usual()]
    here = [one.reference for one in cached() if one.reference]
    return [*dict.fromkeys([*usual, *usual_references(), *here])]
