"""What each command prints with ``--json``: a sentence for the page, and the result's type."""

from __future__ import annotations

import json
from typing import Annotated, Any

import result_schema

from armvm.base.result import Doc
from armvm.provision.golden.goldens import GoldenDetails, VerifiedGolden
from armvm.provision.image.care import CheckedImage, ExportedImage, ImportedImage, RemovedFile
from armvm.provision.image.find import CachedImage, PulledImage
from armvm.provision.image.list_ import CatalogOffer
from armvm.provision.image.local import BuiltImage
from armvm.provision.machine.plan import PlannedMachine
from armvm.provision.manage.machines import (
    CreatedMachine,
    GuestIdentity,
    ListedMachine,
    MachineDetails,
)
from armvm.provision.rootfs.create import RootFileSystem
from armvm.provision.rootfs.to_image import Imaged

RESULTS: dict[str, tuple[str, Any]] = {
    "list": ("The machines that armvm made, by name.", list[ListedMachine]),
    "show": (
        "Everything that armvm knows about a machine; with --identity, the guest's own report.",
        MachineDetails | GuestIdentity,
    ),
    "create": (
        "The machine; with --count a list; with --dry-run the plans.",
        CreatedMachine
        | PlannedMachine
        | Annotated[list[CreatedMachine], Doc("With --count: the machines that exist.")]
        | Annotated[list[PlannedMachine], Doc("With --count and --dry-run.", minItems=1)],
    ),
    "clone": ("The new machine, as `armvm show` prints it.", MachineDetails),
    "golden create": ("The new golden.", GoldenDetails),
    "golden list": ("The goldens, by name.", list[GoldenDetails]),
    "golden show": ("What a golden was made from and with.", GoldenDetails),
    "golden verify": ("A golden that is intact and can be used.", VerifiedGolden),
    "image build": ("The image that was built, or was already cached.", BuiltImage),
    "image export": ("The copy of a cached image.", ExportedImage),
    "image import": ("The image that is now local:NAME.", ImportedImage),
    "image list": (
        "What is cached; with --remote, what the catalogs offer.",
        Annotated[list[CachedImage], Doc("The cache, newest first.")]
        | Annotated[list[CatalogOffer], Doc("The catalogs' offers.", minItems=1)],
    ),
    "image prune": ("What was removed, or would be with --dry-run.", list[RemovedFile]),
    "image pull": (
        "The image; for several or --all-lts a list.",
        PulledImage | Annotated[list[PulledImage], Doc("The requested images.", minItems=1)],
    ),
    "image rm": (
        "What was removed.",
        Annotated[
            list[Annotated[str, Doc("Path of a file, or name of a volume.")]],
            Doc("What was removed.", minItems=1),
        ],
    ),
    "image verify": ("The cached images that were read again.", list[CheckedImage]),
    "rootfs create": ("The root file system that was made.", RootFileSystem),
    "rootfs to-image": ("The image that was made of a root file system.", Imaged),
}


def schemas() -> dict[str, str]:
    """Return the text of every schema, by its file's name."""
    return {
        f"{command.replace(' ', '-')}.json": json.dumps(
            result_schema.schema(command, *RESULTS[command]), indent=2, ensure_ascii=False
        )
        + "\n"
        for command in sorted(RESULTS)
    }
