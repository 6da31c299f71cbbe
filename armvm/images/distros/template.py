"""A user's own catalog: a URL with the version in it, and a file with checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from armvm.base.errors import ConfigError
from armvm.images.distros.catalog import Asking, Found, Offer, check_variant, no_such_release
from armvm.images.reference import CatalogReference, catalog_text
from armvm.images.trust.checksums import digests
from armvm.images.trust.openpgp import Key
from armvm.images.trust.statement import Statement
from armvm.settings.catalogs import OwnCatalog
from armvm.settings.system import OperatingSystem


def keys_of(own: OwnCatalog) -> tuple[Key, ...]:
    """Return the keys that may sign a user's own catalog."""
    return tuple(
        Key(
            fingerprint=one,
            owner=own.name,
            keyrings=(own.keyring,) if own.keyring else (),
            own=True,
        )
        for one in own.fingerprints
    )


@dataclass(frozen=True, kw_only=True)
class Template:
    """A catalog of URLs with placeholders. It knows the configured versions."""

    own: OwnCatalog

    @property
    def name(self) -> str:
        """The part of a reference before the colon."""
        return self.own.name

    @property
    def variants(self) -> tuple[str, ...]:
        """None are known: any variant is put into the URL, if that has a placeholder."""
        return ()

    @property
    def usual_variant(self) -> str | None:
        """None: the default images are without a variant."""
        return None

    @property
    def signed(self) -> bool:
        """Whether its checksums are signed."""
        return self.own.signature is not None

    def find(self, reference: CatalogReference, ask: Asking) -> Found:  # noqa: ARG002
        """Fill in the URLs, without asking a server."""
        version = reference.release
        if self.own.versions and version not in self.own.versions:
            no_such_release(reference, self.own.versions)
        if reference.variant and "{variant}" not in self.own.url:
            check_variant(self, reference)
        for what in ("serial", "variant"):
            if bool(getattr(reference, what)) != (f"{{{what}}}" in self.own.url):
                raise ConfigError(
                    f"the catalog {self.name} supports "
                    + (
                        "no serials"
                        if getattr(reference, what)
                        else f"only one image for each {what}"
                    ),
                    hint=f"write {self.name}:VERSION"
                    + ("/SERIAL" if "{serial}" in self.own.url else "")
                    + ("@VARIANT" if "{variant}" in self.own.url else ""),
                )
        values = {
            "version": version,
            "arch": "arm64",
            "serial": reference.serial or "",
            "variant": reference.variant or "",
        }
        location = _fill(self.own.url, values)
        name = unquote(urlsplit(location).path.rpartition("/")[2])
        return Found(
            location=location,
            name=name,
            version=version,
            system=OperatingSystem(distro=self.own.distro, version=version),
            serial=reference.serial,
            variant=reference.variant,
            pinned=bool(reference.serial),
            statement=self._statement(values),
            read=lambda document: _digest(document, name),
        )

    # ARG002: part of the Catalog interface.
    def releases(self, ask: Asking, *, every: bool = False) -> list[Offer]:  # noqa: ARG002
        """List the configured versions."""
        return [
            Offer(reference=catalog_text(self.name, one), version=one) for one in self.own.versions
        ]

    def means(self, release: str, version: str) -> bool:
        """Versions match themselves."""
        return release == version

    def usual(self) -> list[str]:
        """The configured versions."""
        return [catalog_text(self.name, one) for one in self.own.versions]

    def _statement(self, values: Mapping[str, str]) -> Statement | None:
        own = self.own
        if own.checksums is None:
            return None
        clear = own.signature == "clear"
        return Statement(
            url=_fill(own.checksums, values),
            signature=_fill(own.signature, values) if own.signature and not clear else None,
            clear=clear,
            keys=keys_of(own),
        )


def _fill(template: str, values: Mapping[str, str]) -> str:
    # Not str.format: its braces could access attributes. The values contain no braces.
    for key, value in values.items():
        template = template.replace(f"{{{key}}}", value)
    return template


def _digest(document: bytes, name: str) -> str | None:
    """Return a file's digest, or that of the only line if that is unnamed."""
    found = digests(document)
    return found.get(name) or (found.get("") if len(found) == 1 else None)
