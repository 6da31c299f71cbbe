"""Read the files and folders of a directory from a web server's index page.

Apache, nginx, lighttpd and openSUSE's MirrorCache all write ``<a href="NAME">`` for a file and
``<a href="NAME/">`` for a folder; some with ``./`` or the directory's own path in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from armvm.images.distros.catalog import Asking, no_such_release
from armvm.images.fetch import documents
from armvm.images.fetch.http import Missing
from armvm.images.reference import CatalogReference

#: Maximum size of a directory page, in bytes.
MAX_LISTING = 4 << 20

_HREF = re.compile(rb"""href\s{0,8}=\s{0,8}["']([^"'<>\s]{1,512})["']""", re.IGNORECASE)
#: A plain name: a URL can contain it unquoted, and it does not lead to another directory.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,254}/?\Z")


def directory(ask: Asking, url: str) -> list[str]:
    """Return the names in the directory *url* (ending in a slash), folders with a slash.

    Names that are not plain are omitted. Raises Unreachable and FetchFailed.
    """
    page = documents.document(ask.web, url, progress=ask.progress, limit=MAX_LISTING, page=True)
    return names(page, urlsplit(url).path)


def directory_if_any(ask: Asking, url: str) -> list[str]:
    """Return directory(), or nothing if it does not exist (404, 410): mirrors may be partial.

    Raises Unreachable and FetchFailed.
    """
    try:
        return directory(ask, url)
    except Missing:
        return []


def releases_in(found: list[str], url: str, catalog: str) -> list[str]:
    """Return the releases *found* in the directory *url*. Raises FetchFailed if there are none.

    A page without releases is not a mirror's.
    """
    if not found:
        raise documents.no_catalog(url, f"is not a catalog of {catalog} (perhaps a login page)")
    return found


def names(page: bytes, path: str) -> list[str]:
    """Return the plain names in a directory page's links; *path* is the directory's own."""
    found: dict[str, None] = {}
    for match in _HREF.finditer(page):
        try:
            target = match[1].decode("ascii")
        except UnicodeDecodeError:
            continue
        target = target.removeprefix("./")
        if target.startswith("/"):
            if not target.startswith(path):
                continue
            target = target.removeprefix(path)
        if _NAME.match(target):
            found[target] = None
    return list(found)


def of_release(
    ask: Asking,
    url: str,
    *,
    reference: CatalogReference,
    version: str,
    known: Callable[[], list[str]],
    images: Callable[[list[str]], Collection[str]],
) -> list[str]:
    """Return directory(); raise NotFound if the release does not exist.

    *known* lists the releases, newest first. It is called only if the directory does not exist,
    or has none of a release's *images*, and raises FetchFailed if the server is not a mirror:
    servers answer 404 for an unknown release, login pages never do.
    """
    try:
        found = directory(ask, url)
    except Missing:
        versions = known()
        if version in versions:
            raise
        no_such_release(reference, versions)
    if not images(found) and version not in (versions := known()):
        no_such_release(reference, versions)
    return found
