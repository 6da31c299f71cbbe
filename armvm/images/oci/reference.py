"""References to artifacts in a registry: ``oci://HOST[:PORT]/NAME[:TAG][@sha256:HEX]``.

Source: the OCI distribution specification 1.1, "Pulling manifests", for names and tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from armvm.base.errors import UsageError
from armvm.settings.names import shown

PREFIX = "oci://"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"oci://(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?)"
    rf"/(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
#: Hosts to which armvm speaks HTTP, as docker does: nobody can listen in between.
_LOOPBACK = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?")

#: The names of Docker Hub, whose registry has a third one. Source: docker's distribution/reference.
DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def is_loopback(host: str) -> bool:
    """Return whether a host, with or without a port, is this one."""
    return _LOOPBACK.fullmatch(host) is not None


@dataclass(frozen=True, kw_only=True)
class OciReference:
    """An artifact's place; ``digest`` is None if only its tag is known."""

    host: str
    name: str
    tag: str = "latest"
    digest: str | None = None

    def __str__(self) -> str:
        """Return the reference as the user writes it."""
        version = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{PREFIX}{self.host}/{self.name}{version}"

    @property
    def repository(self) -> str:
        """The name as the registry knows it: on Docker Hub, its own images are in ``library``."""
        official = self.host in DOCKER_HUB and "/" not in self.name
        return f"library/{self.name}" if official else self.name

    @property
    def url(self) -> str:
        """The URL of the repository."""
        host = "registry-1.docker.io" if self.host in DOCKER_HUB else self.host
        return f"{'http' if is_loopback(host) else 'https'}://{host}/v2/{self.repository}"


def parse(text: str) -> OciReference:
    """Return a reference. Raises UsageError."""
    found = _REFERENCE.fullmatch(text)
    invalid = UsageError(
        f"invalid reference {shown(text)}",
        hint="expected oci://HOST/NAME:TAG, for example oci://ghcr.io/me/goldens/ci:v1",
    )
    if found is None or len(found["name"]) > 255:
        raise invalid
    reference = OciReference(
        host=found["host"],
        name=found["name"],
        tag=found["tag"] or "latest",
        digest=found["digest"],
    )
    try:
        urlsplit(reference.url).port  # noqa: B018 - an address or a port can be out of range
    except ValueError:
        raise invalid from None
    return reference


def parse_target(text: str) -> OciReference:
    """Return a reference to push to. Raises UsageError, also for one with a digest."""
    reference = parse(text)
    if reference.digest is not None:
        raise UsageError(
            f"cannot push to a digest: {reference}",
            hint=f"give a tag: {PREFIX}{reference.host}/{reference.name}:v1",
        )
    return reference
