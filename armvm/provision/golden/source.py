"""The source of a golden and its clones: an image, or the disk of a machine.

A new machine's source is one of ``FromImage | FromGolden | FromMachine``, or
``FromMedium``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from armvm.host.domain.golden_domain import Golden
from armvm.images.model import ImageSource, Verified
from armvm.provision.image.recipe_input import PACKAGE
from armvm.settings.system import OperatingSystem

#: Prefix of the image reference and digest of a golden made from a machine; the rest is the
#: machine's name, or its UUID and the time.
_MACHINE = "machine:"


@dataclass(frozen=True, kw_only=True)
class FromGolden(ImageSource):
    """The image that a golden was booted from. Its base is in the pool, so nothing is fetched.

    With ``packages``, ``reference`` is the original image's, and ``digest`` that of the image with
    the packages, unless the guest installed them.
    """

    digest: str


@dataclass(frozen=True, kw_only=True)
class FromMachine(ImageSource):
    """The disk of *machine* at the time a golden was made from it. It corresponds to no image.

    ``digest`` contains the machine's UUID and the time.
    """

    digest: str
    machine: str


def reference_to(machine: str) -> str:
    """Return the image reference of a golden that is made from a machine's disk."""
    return _MACHINE + machine


def from_machine(machine: str, *, uuid: str, now: str, system: str) -> FromMachine:
    """Return a machine's disk at the time *now* (ISO 8601) as a source."""
    return FromMachine(
        reference=reference_to(machine),
        digest=f"{_MACHINE}{uuid} {now}",
        system=_system(system),
        machine=machine,
    )


def source_in(golden: Golden) -> FromGolden | FromMachine:
    """Return the source of a golden."""
    image, digest = golden.mark.record.image, str(golden.mark.shape["image"])
    reference, system = image.get("reference", ""), _system(image.get("system", ""))
    if digest.startswith(_MACHINE):
        return FromMachine(
            reference=reference,
            digest=digest,
            system=system,
            machine=reference.removeprefix(_MACHINE),
        )
    return FromGolden(
        reference=reference,
        digest=digest,
        system=system,
        serial=image.get("serial"),
        verified=Verified(image.get("verified", Verified.NOTHING.value)),
        signer=image.get("signer"),
        packages=packages_in(image),
    )


def packages_in(image: Mapping[str, str]) -> tuple[str, ...]:
    """Return the packages that the record of an image names, without invalid ones."""
    return tuple(filter(PACKAGE.match, image.get("packages", "").split()))


def _system(text: str) -> OperatingSystem | None:
    distro, _, version = text.partition(" ")
    return OperatingSystem(distro=distro, version=version) if distro else None
