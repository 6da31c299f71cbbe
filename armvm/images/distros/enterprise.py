"""AlmaLinux, Rocky Linux and CentOS Stream: generic cloud images.

The layouts (Lima's hack/update-template-almalinux.sh, -rocky.sh and -centos-stream.sh)::

    https://repo.almalinux.org/almalinux/10.2/cloud/aarch64/images/
        AlmaLinux-10-GenericCloud-10.2-20260526.0.aarch64.qcow2     CHECKSUM (GNU)
    https://dl.rockylinux.org/pub/rocky/10.2/images/aarch64/
        Rocky-10-GenericCloud-Base-10.2-20260525.0.aarch64.qcow2    NAME.CHECKSUM (BSD)
    https://cloud.centos.org/centos/10-stream/aarch64/images/
        CentOS-Stream-GenericCloud-10-20260720.0.aarch64.qcow2      CHECKSUM (BSD)

Of AlmaLinux and Rocky Linux, each minor release has a directory; older ones are empty, and the link
without the minor release may lag behind. So armvm reads the directories, newest first. The serial
is the minor release and the build (``10.2-20260526.0``), or the build (``20260720.0``). Some of
the checksum files are signed, but no key could be confirmed, so armvm does not check them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from armvm.images.distros.catalog import (
    Asking,
    Found,
    Offer,
    check_variant,
    no_such_release,
    no_such_serial,
    numbers,
    offers_of,
)
from armvm.images.distros.listing import directory, directory_if_any, releases_in
from armvm.images.reference import CatalogReference
from armvm.images.trust.statement import Statement
from armvm.settings.system import OperatingSystem

#: The number of directories of minor releases to read for one release, and of releases for
#: ``latest``. The newest may not have its images yet.
_MOST_MINORS = 3
_FOLDER = re.compile(r"(\d{1,2}(?:\.\d{1,2})?)(-stream)?\Z")
_RELEASE = re.compile(r"\d{1,2}(?:\.\d{1,2})?\Z")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a distribution's images are: *place* below a folder, *image* by its name.

    The groups of *image* are the release and the serial. ``minors``: folders are minor releases,
    otherwise releases with ``-stream``. ``checksums`` may contain ``{name}``. ``releases`` are
    listed newest first; armvm ignores folders of older ones.
    """

    name: str
    title: str
    base: str
    place: str
    image: re.Pattern[str]
    checksums: str
    minors: bool
    releases: tuple[str, ...]


ALMALINUX = Layout(
    name="almalinux",
    title="AlmaLinux",
    base="https://repo.almalinux.org/almalinux/",
    place="cloud/aarch64/images/",
    image=re.compile(
        r"AlmaLinux-(\d{1,2})-GenericCloud-(\d{1,2}\.\d{1,2}-\d{8}(?:\.\d{1,3})?)\.aarch64\.qcow2\Z"
    ),
    checksums="CHECKSUM",
    minors=True,
    releases=("10", "9", "8"),
)

ROCKY = Layout(
    name="rocky",
    title="Rocky Linux",
    base="https://dl.rockylinux.org/pub/rocky/",
    place="images/aarch64/",
    image=re.compile(
        r"Rocky-(\d{1,2})-GenericCloud-Base-(\d{1,2}\.\d{1,2}-\d{8}\.\d{1,3})\.aarch64\.qcow2\Z"
    ),
    checksums="{name}.CHECKSUM",
    minors=True,
    releases=("10", "9", "8"),
)

CENTOS = Layout(
    name="centos",
    title="CentOS Stream",
    base="https://cloud.centos.org/centos/",
    place="aarch64/images/",
    image=re.compile(r"CentOS-Stream-GenericCloud-(\d{1,2})-(\d{8}\.\d{1,3})\.aarch64\.qcow2\Z"),
    checksums="CHECKSUM",
    minors=False,
    releases=("10", "9"),
)

LAYOUTS: Mapping[str, Layout] = {one.name: one for one in (ALMALINUX, ROCKY, CENTOS)}


@dataclass(frozen=True, kw_only=True)
class Enterprise:
    """A distribution's images on a server with its *layout*."""

    layout: Layout
    base: str
    variants: tuple[str, ...] = ()
    usual_variant: str | None = None
    signed: bool = False

    @property
    def name(self) -> str:
        """The catalog's name."""
        return self.layout.name

    def find(self, reference: CatalogReference, ask: Asking) -> Found:
        """Find a release's image (``10``, ``10.2``); ``latest`` is the newest release."""
        check_variant(self, reference)
        folders = self._folders(ask)
        releases = self._releases(folders)
        version = reference.release
        if version == "latest":
            version = self._latest(releases, folders, ask)
        if not _RELEASE.match(version) or not self._places(version, folders):
            no_such_release(reference, releases)
        place, images = self._images(version, self._places(version, folders), ask, reference.serial)
        serials = sorted(images, key=numbers, reverse=True)
        serial = reference.serial or next(iter(serials), "")
        if serial not in images:
            no_such_serial(reference, version, serials)
        name = images[serial]
        return Found(
            location=place + name,
            name=name,
            version=version,
            system=OperatingSystem(distro=self.name, version=version.partition(".")[0]),
            serial=serial,
            pinned=reference.serial is not None,
            statement=Statement(url=place + self.layout.checksums.format(name=name)),
        )

    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:
        """List the releases with their newest image, or every image of its directory."""
        offers = []
        folders = self._folders(ask)
        for version in self._releases(folders):
            _, images = self._images(version, self._places(version, folders), ask)
            serials = sorted(images, key=numbers, reverse=True)
            title = self.layout.title
            offers += offers_of(self.name, version, serials, every=every, title=title)
        return offers

    def means(self, release: str, version: str) -> bool:
        """Versions match themselves, and latest matches any."""
        return release in (version, "latest")

    def usual(self) -> list[str]:
        """Common releases."""
        return [f"{self.name}:{one}" for one in self.layout.releases]

    def _folders(self, ask: Asking) -> dict[str, str]:
        """Return the versions of the server's folders with their names."""
        found = {}
        for name in directory(ask, self.base):
            match = _FOLDER.match(name.rstrip("/"))
            old = match and int(match[1].partition(".")[0]) < int(self.layout.releases[-1])
            if match and not old and bool(match[2]) != self.layout.minors:
                found[match[1]] = match[0]
        releases_in(list(found), self.base, self.name)
        return found

    def _releases(self, folders: Mapping[str, str]) -> list[str]:
        """Return the releases without minor numbers, newest first."""
        majors = {version.partition(".")[0] for version in folders}
        return sorted(majors, key=numbers, reverse=True)

    def _latest(self, releases: list[str], folders: Mapping[str, str], ask: Asking) -> str:
        """Return the newest release that has images; the folder of the next one may be there."""
        for version in releases[:_MOST_MINORS]:
            if self._images(version, self._places(version, folders), ask)[1]:
                return version
        return releases[0]

    def _places(self, version: str, folders: Mapping[str, str]) -> list[str]:
        """Return the URLs that may have a version's images, the newest minor release first."""
        found = [one for one in folders if one == version or one.startswith(f"{version}.")]
        ordered = sorted(found, key=numbers, reverse=True)[:_MOST_MINORS]
        return [f"{self.base}{folders[one]}/{self.layout.place}" for one in ordered]

    def _images(
        self, version: str, places: list[str], ask: Asking, serial: str | None = None
    ) -> tuple[str, dict[str, str]]:
        """Return the first place that has images (and *serial*), and serials with their names."""
        first: tuple[str, dict[str, str]] = ("", {})
        major = version.partition(".")[0]
        for place in places:
            names = directory_if_any(ask, place)
            matches = [match for match in map(self.layout.image.match, names) if match]
            images = {match[2]: match[0] for match in matches if match[1] == major}
            if images and (serial is None or serial in images):
                return place, images
            first = first if first[1] else (place, images)
        return first


def system_of(name: str) -> OperatingSystem | None:
    """Return the release in an image's file name; None for other files."""
    for layout in LAYOUTS.values():
        if match := layout.image.match(name):
            return OperatingSystem(distro=layout.name, version=match[1])
    return None
