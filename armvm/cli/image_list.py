"""``image list``: lists cached images and images in the catalogs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from armvm.base.progress import size_text
from armvm.cli import complete
from armvm.cli.context import open_host, print_json, print_rows, progress_for
from armvm.cli.options import Connect, Json, PoolName, Quiet

if TYPE_CHECKING:
    from armvm.provision.image.find import CachedImage
    from armvm.provision.image.list_ import CatalogOffer

T = TypeVar("T")

#: Units for ages: length in seconds, and name.
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command("list", epilog=_EXAMPLES)(list_)


_EXAMPLES = """Examples:

  armvm image list

  armvm image list ubuntu:24.04

  armvm image list --remote

  armvm image list --remote --all ubuntu debian"""


def list_(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Catalogs (ubuntu, debian, …) or, without --remote, cached images. Default: all.",
            autocompletion=complete.images,
            show_default=False,
        ),
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="List images in the catalogs instead of the cache.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --remote: list every serial and variant.")
    ] = False,
    connect: Connect = None,
    pool: PoolName = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List cached images and the machines that use them, or the images in the catalogs."""
    from armvm.base.errors import UsageError

    if every and not remote:
        raise UsageError(
            "--all requires --remote", hint="without --remote all cached images are listed"
        )
    if remote:
        from armvm.provision.image.list_ import on_offer

        offers = on_offer(names or [], progress_for(quiet), every=every)
        _print(offers, _print_offers, json=json)
        return
    from armvm.provision.connect import pool_name
    from armvm.provision.image.list_ import in_cache

    found = in_cache(names or [], _connection(connect), pool_name(pool))
    _print(found, _print_cached, json=json)


def _print(found: list[T], table: Callable[[list[T]], None], *, json: bool) -> None:
    if json:
        print_json(found)
    elif not found:
        print("no images found: list the catalogs with armvm image list --remote", file=sys.stderr)
    else:
        table(found)


def _connection(connect: str | None) -> Any:
    """Open libvirt; None if that fails and *connect* is None: the cache works without it."""
    from armvm.base.errors import ConnectFailed, PermissionDenied

    try:
        return open_host(connect)
    except (ConnectFailed, PermissionDenied):
        if connect is not None:
            raise
        return None


def _print_cached(found: list[CachedImage]) -> None:
    rows = [
        [
            one.reference or "?",
            one.serial or "-",
            size_text(one.size),
            age_text(time.time() - one.stored) if one.stored else "-",
            one.problem or _vouched(one),
            "?" if one.used_by is None else ", ".join(one.used_by) or "-",
            str(one.digest)[:19],
        ]
        for one in found
    ]
    print_rows(["REFERENCE", "SERIAL", "SIZE", "AGE", "VERIFIED", "USED BY", "DIGEST"], rows)


def _print_offers(offers: list[CatalogOffer]) -> None:
    rows = [
        [
            one.reference,
            one.serial or "-",
            size_text(one.size) if one.size else "-",
            one.title or "-",
            "yes" if one.cached else "-",
        ]
        for one in offers
    ]
    print_rows(["REFERENCE", "SERIAL", "SIZE", "RELEASE", "CACHED"], rows)


def _vouched(one: CachedImage) -> str:
    """Return how an image was verified: the kind, and the id of a signing key."""
    kind = one.verified.value
    return f"{kind} {one.signer[-16:]}" if one.signer else kind


def age_text(seconds: float) -> str:
    """Return an age in its largest whole unit: ``age_text(7300)`` is ``2 h``."""
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"
