"""What each command prints with ``--json``: a sentence for the page, and the result's type."""

from __future__ import annotations

import json
from typing import Annotated, Any

import result_schema

from armvm.base.paths import ConfigPath
from armvm.base.result import Doc
from armvm.cloud.create import PlannedServer
from armvm.cloud.describe import CreatedServer, ListedServer, ServerAddresses, ServerDetails
from armvm.cloud.snapshot import ServerSnapshot
from armvm.provision.accelerate.accelerate import Accelerated
from armvm.provision.access.docker_context import Context
from armvm.provision.access.exec_ import ExecResult
from armvm.provision.access.forward import Addresses, Forward, MachineForward
from armvm.provision.access.ssh_config import Outcome
from armvm.provision.binfmt.explain import ExplainedFile
from armvm.provision.binfmt.explain_image import ExplainedImage
from armvm.provision.binfmt.status import BinfmtStatus
from armvm.provision.binfmt.trial import ArchitectureTrials
from armvm.provision.fleet.apply import AppliedMachine
from armvm.provision.fleet.hosts import HostState
from armvm.provision.fleet.queue import QueuedTask
from armvm.provision.golden.export import Exported
from armvm.provision.golden.goldens import GoldenDetails, VerifiedGolden
from armvm.provision.golden.pool import PoolState
from armvm.provision.golden.push import Pushed
from armvm.provision.image.care import CheckedImage, ExportedImage, ImportedImage, RemovedFile
from armvm.provision.image.find import CachedImage, PulledImage
from armvm.provision.image.list_ import CatalogOffer
from armvm.provision.image.local import BuiltImage
from armvm.provision.image.registry import PushedImage
from armvm.provision.inspect.config import Value
from armvm.provision.inspect.doctor import Check
from armvm.provision.inspect.explain import Explanation
from armvm.provision.machine.plan import PlannedMachine
from armvm.provision.machine.seed import WrittenSeed
from armvm.provision.manage.disk import DiskDetails
from armvm.provision.manage.machines import (
    CreatedMachine,
    GuestIdentity,
    ListedMachine,
    MachineDetails,
)
from armvm.provision.manage.mount import MountedDirectory
from armvm.provision.manage.networks import ListedNetwork, NetworkDetails
from armvm.provision.manage.resize import Change
from armvm.provision.manage.snapshot import SnapshotDetails
from armvm.provision.monitor.boot_report import Report
from armvm.provision.monitor.events import EventDetails
from armvm.provision.monitor.screenshot import Screenshot
from armvm.provision.monitor.top import Usage
from armvm.provision.rootfs.create import RootFileSystem
from armvm.provision.rootfs.to_image import Imaged

RESULTS: dict[str, tuple[str, Any]] = {
    "list": (
        "The machines that armvm made, by host and name; on a cloud, the servers.",
        Annotated[list[ListedMachine], Doc("Machines.")]
        | Annotated[list[ListedServer], Doc("On a cloud.", minItems=1)],
    ),
    "show": (
        "All facts about a machine; with --identity, the guest's own report; a cloud's server.",
        MachineDetails | GuestIdentity | ServerDetails,
    ),
    "create": (
        "The machine; with --count a list; with --dry-run the plans; on a cloud, servers.",
        CreatedMachine
        | PlannedMachine
        | CreatedServer
        | PlannedServer
        | Annotated[list[CreatedServer], Doc("On a cloud with --count.", minItems=1)]
        | Annotated[list[PlannedServer], Doc("On a cloud with --count and --dry-run.", minItems=1)]
        | Annotated[list[CreatedMachine], Doc("With --count: the machines that exist.")]
        | Annotated[list[PlannedMachine], Doc("With --count and --dry-run.", minItems=1)],
    ),
    "apply": (
        "The machines of the fleet file and those no longer in it, with what armvm did.",
        list[AppliedMachine],
    ),
    "network list": ("All libvirt networks of the host.", list[ListedNetwork]),
    "network show": ("All facts about a network.", NetworkDetails),
    "network create": ("The new network.", NetworkDetails),
    "clone": ("The new machine, as `armvm show` prints it.", MachineDetails),
    "golden create": ("The new golden.", GoldenDetails),
    "golden export": ("The file, and its parts.", Exported),
    "golden import": ("The new golden.", GoldenDetails),
    "golden list": ("The goldens, by name.", list[GoldenDetails]),
    "golden pull": ("The new golden.", GoldenDetails),
    "golden push": ("What the registry has now.", Pushed),
    "golden show": ("What a golden was made from and with.", GoldenDetails),
    "pool list": ("The pools, by their goldens' names.", list[PoolState]),
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
    "image push": ("What the registry has now.", PushedImage),
    "image rm": (
        "What was removed.",
        Annotated[
            list[Annotated[str, Doc("Path of a file, or name of a volume.")]],
            Doc("What was removed.", minItems=1),
        ],
    ),
    "image verify": ("The cached images that were read again.", list[CheckedImage]),
    "rootfs create": ("The root file system that was created.", RootFileSystem),
    "rootfs to-image": ("The image that was created from a root file system.", Imaged),
    "binfmt explain": (
        "What a file is, and what happens when it is run; with --docker or --podman, an image.",
        ExplainedFile | ExplainedImage,
    ),
    "binfmt status": ("The host's binfmt handlers.", BinfmtStatus),
    "binfmt test": ("The trials, by architecture.", list[ArchitectureTrials]),
    "boot-report": ("Where the time of a machine's latest boot went.", Report),
    "config path": (
        "Your configuration file; with --all, all files that are read, highest priority first.",
        Annotated[list[ConfigPath], Doc("The files.", minItems=1)],
    ),
    "config show": (
        "Every setting that is in force without flags.",
        Annotated[list[Value], Doc("The settings.", minItems=1)],
    ),
    "docker-context": ("A machine's docker context.", Context),
    "doctor": (
        "The checks; each depends on those before it at most.",
        Annotated[list[Check], Doc("The checks.", minItems=1)],
    ),
    "events": ("What happened to a machine: one such object a line.", EventDetails),
    "accelerate": ("The machine whose compile steps run on this host.", Accelerated),
    "exec": ("How a command that the guest agent ran ended.", ExecResult),
    "hosts": ("The hosts that have a name, and how they answered.", list[HostState]),
    "explain": ("A page about a topic; for a machine, with its values.", Explanation),
    "forward add": ("The forward that was added.", Forward),
    "forward list": (
        "Ports of the host that lead to a machine, or to all; ssh's first for each.",
        list[MachineForward],
    ),
    "ip": ("Where a machine is reached; a cloud's server.", Addresses | ServerAddresses),
    "mount": (
        "Directories of the host in machines: the new one, or with --list all.",
        list[MountedDirectory],
    ),
    "resize": ("What was changed: disk, memory, vCPUs, in this order.", list[Change]),
    "run": (
        "With --count or --each: the commands that ran in a queue.",
        Annotated[list[QueuedTask], Doc("The tasks, by number.", minItems=1)],
    ),
    "screenshot": ("The picture that was written.", Screenshot),
    "seed": ("The seed that was written.", WrittenSeed),
    "disk list": ("The disks of a machine, in libvirt's order.", list[DiskDetails]),
    "disk add": ("The disk that was added.", DiskDetails),
    "disk grow": ("The disk that was grown.", DiskDetails),
    "snapshot create": ("The snapshot that was taken.", SnapshotDetails | ServerSnapshot),
    "snapshot list": (
        "A machine's snapshots, oldest first; on a cloud, a server's.",
        Annotated[list[SnapshotDetails], Doc("Snapshots.")]
        | Annotated[list[ServerSnapshot], Doc("On a cloud.", minItems=1)],
    ),
    "ssh-config": ("Machines in the user's ssh configuration.", Outcome),
    "top": (
        "What each running machine used, busiest first; without --once, such a list a line.",
        list[Usage],
    ),
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
