"""Decide everything about a new machine, without changing anything.

``Machine + ImageSource + HostFacts → CreatePlan``; ``--dry-run`` stops here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Annotated

from armvm.base.errors import ConfigError, MissingCapability
from armvm.base.result import (
    AcceleratorName,
    Cpus,
    Doc,
    Fingerprint,
    FirstNetwork,
    MachineName,
    MemoryMib,
    Networks,
)
from armvm.guest.identity import Identity, fingerprint
from armvm.host.connection import bad_value
from armvm.host.domain.domain_xml import DomainSpec, build
from armvm.host.domain.metadata import Record, SourceDigest
from armvm.host.facts import Accelerator, HostFacts, cpu_is_64_bit
from armvm.host.network.card import plan_cards
from armvm.host.network.own_network import OWN_NETWORK
from armvm.host.network.ssh_forward import choose_port
from armvm.host.storage.volumes import volume_names
from armvm.host.xml import to_text
from armvm.images.model import ImageSource, Verified
from armvm.settings.machine import Machine
from armvm.settings.names import check_user_name
from armvm.settings.networks import USER_NETWORK, Attachment, Kind, attachments
from armvm.settings.size import size_label
from armvm.settings.system import FALLBACK_USER

#: The guest's address with user networking, unless it asks QEMU's DHCP server for another.
_USER_ADDRESS = "10.0.2.15/24"


@dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """The image that armvm would use."""

    reference: Annotated[str, Doc("Its reference.")]
    serial: Annotated[str | None, Doc("The catalog's version of the image.")]
    digest: SourceDigest | None
    size: Annotated[int | None, Doc("The file's size in bytes.")]
    provenance: Annotated[str, Doc("How the image was verified, in words.")]


@dataclass(frozen=True, kw_only=True)
class PlannedMachine:
    """What armvm would create (--dry-run)."""

    name: MachineName
    connection: Annotated[str, Doc("The libvirt URI.")]
    accelerator: AcceleratorName
    cpu: Annotated[str, Doc("The CPU's model or mode.")]
    cpus: Cpus
    memory_mib: MemoryMib
    disk: Annotated[int, Doc("Size of the root disk in bytes.")]
    image: PlannedImage
    user: Annotated[str, Doc("The guest's user.")]
    network: FirstNetwork
    networks: Networks
    ip: Annotated[str | None, Doc("The address to reserve for it (--ip).", format="ipv4")]
    fast: Annotated[bool, Doc("Whether --fast was given.")]
    pool: Annotated[str, Doc("The storage pool.")]
    volumes: Annotated[list[str], Doc("Paths of the volumes that armvm would create.")]
    host_key: Fingerprint
    warnings: Annotated[list[str], Doc("Warnings.")]


@dataclass(frozen=True, kw_only=True)
class CreatePlan:
    """All decisions about a new machine. ``warnings`` are for the user."""

    machine: Machine
    identity: Identity
    source: ImageSource
    spec: DomainSpec
    record: Record
    uri: str
    warnings: tuple[str, ...] = field(default=())

    @property
    def xml(self) -> str:
        """The domain XML that will be defined."""
        return to_text(build(self.spec, self.record))

    def summary(self) -> PlannedMachine:
        """Return the plan for ``--dry-run``, without secrets."""
        from armvm.images.trust.provenance import words

        return PlannedMachine(
            name=self.machine.name,
            connection=self.uri,
            accelerator=self.spec.accelerator.name.lower(),
            cpu=self.spec.cpu_model,
            cpus=self.machine.cpus,
            memory_mib=self.machine.memory_mib,
            disk=self.machine.disk,
            image=PlannedImage(
                reference=self.source.reference,
                serial=self.source.serial,
                digest=self.source.digest,
                size=self.source.size,
                provenance=words(self.source.verified.value, self.source.signer),
            ),
            user=self.record.user,
            network=self.spec.network or USER_NETWORK,
            networks=self.spec.networks,
            ip=self.machine.ip,
            fast=self.machine.fast,
            pool=self.record.pool,
            volumes=self._volumes(),
            host_key=fingerprint(self.identity.host_key.public),
            warnings=list(self.warnings),
        )

    def _volumes(self) -> list[str]:
        spec, new = self.spec, {one.name for one in self.machine.disks if one.size is not None}
        disks = [one.file for one in spec.disks if one.name in new]
        paths = [spec.overlay, spec.seed, spec.serial_log, *disks, spec.cdrom, spec.ignition]
        return [path for path in paths if path is not None]


def plan(
    machine: Machine,
    source: ImageSource,
    facts: HostFacts,
    identity: Identity,
    *,
    pool: str,
    pool_path: str,
    version: str,
    now: str,
    taken_ports: Collection[int] = (),
) -> CreatePlan:
    """Return the plan for *machine* on the host that *facts* describe.

    *now* is an ISO 8601 time, *version* the version of armvm. Raises ConfigError for a value that
    this host does not support, and MissingCapability if the host lacks something.
    """
    if not facts.efi:
        raise MissingCapability(
            "UEFI firmware for ARM64 machines not found on the host",
            hint="install it there: apt-get install qemu-efi-aarch64, or dnf install edk2-aarch64",
        )
    if machine.cpus > facts.max_cpus:
        raise ConfigError(
            f"{machine.cpus} vCPUs is out of range (1 to {facts.max_cpus} on this host)",
            hint=f"use --cpus {facts.max_cpus} or less",
        )
    if source.virtual_size is not None:
        check_disk(machine.disk, source.virtual_size)
    networks = _networks(machine.network, facts)
    if networks[0].kind is Kind.USER and machine.address not in (None, _USER_ADDRESS):
        raise ConfigError(
            f"--network-config with the static address {machine.address} cannot be used with user "
            f"networking: QEMU forwards ssh to {_USER_ADDRESS.partition('/')[0]}",
            hint="use dhcp4: true in it, or a libvirt network: --network " + OWN_NETWORK,
        )
    names = volume_names(machine.name)
    spec = DomainSpec(
        name=machine.name,
        uuid=identity.uuid,
        cards=plan_cards(networks, identity.mac),
        cpus=machine.cpus,
        memory_mib=machine.memory_mib,
        accelerator=facts.accelerator,
        cpu_model=_cpu(machine.cpu_model, facts),
        headless=machine.headless,
        libosinfo_id=source.system.libosinfo_id if source.system else None,
        overlay=f"{pool_path}/{names['overlay']}",
        seed=f"{pool_path}/{names['seed']}" if machine.seeded else None,
        serial_log=f"{pool_path}/{names['serial_log']}",
        cache="unsafe" if machine.fast else None,
        tb_cache=facts.tb_cache,
        cdrom=f"{pool_path}/{names['cdrom']}" if machine.cdrom is not None else None,
        ignition=f"{pool_path}/{names['ignition']}" if machine.ignition is not None else None,
    )
    record = Record(
        version=version,
        created=now,
        user=user_of(machine.user, source),
        own_key=machine.own_key and machine.seeded,
        key=" ".join(machine.ssh_keys[0].split()[:2]) if machine.own_key and machine.seeded else "",
        host_key=" ".join(identity.host_key.public.split()[:2]) if machine.seeded else "",
        instance_id=identity.instance_id,
        pool=pool,
        image=_image_record(source),
        settings=dict(machine.summary()),
        forward=choose_port(taken_ports) if networks[0].kind is Kind.USER else None,
        fast={"cache": "unsafe"} if machine.fast else {},
    )
    return CreatePlan(
        machine=machine,
        identity=identity,
        source=source,
        spec=spec,
        record=record,
        uri=facts.uri,
        warnings=tuple(_warnings(machine, source, facts)),
    )


def with_source(plan: CreatePlan, source: ImageSource) -> CreatePlan:
    """Return the plan with another image, in its record too."""
    record = replace(plan.record, image=_image_record(source))
    return replace(plan, source=source, record=record)


def with_mac(plan: CreatePlan, mac: str) -> CreatePlan:
    """Return the plan with another MAC address of the first card."""
    cards = plan_cards([card.to for card in plan.spec.cards], mac)
    return replace(
        plan,
        identity=replace(plan.identity, mac=mac),
        spec=replace(plan.spec, cards=cards),
    )


def user_of(requested: str | None, source: ImageSource) -> str:
    """Return the guest's user: the *requested* one, or the distribution's default."""
    if requested is not None:
        return requested
    return check_user_name(source.system.default_user if source.system else FALLBACK_USER)


def check_disk(disk: int, virtual_size: int) -> None:
    """Raise ConfigError if the image's disk is larger than the machine's (both in bytes)."""
    if disk < virtual_size:
        needed = -(-virtual_size // (1 << 30))
        raise ConfigError(
            f"a disk of {size_label(disk)} is smaller than the image's disk",
            hint=f"use --disk {needed}G or more",
        )


def _networks(requested: str | None, facts: HostFacts) -> tuple[Attachment, ...]:
    """Return the networks to use, the default if none is requested."""
    if requested is None:
        requested = USER_NETWORK if facts.session else OWN_NETWORK
    found = attachments(requested)
    other = next((one for one in found if one.kind is not Kind.USER), None)
    if facts.session and other is not None:
        raise ConfigError(
            f"network {other} cannot be used: qemu:///session supports user networking only",
            hint="leave out --network, or use --connect qemu:///system",
        )
    return found


def _cpu(model: str | None, facts: HostFacts) -> str:
    if model is None:
        return facts.accelerator.default_cpu
    if model in ("max", "maximum"):
        return "maximum"
    if model == "host-passthrough":
        if facts.accelerator is Accelerator.TCG:
            raise ConfigError(
                "host-passthrough needs KVM on an ARM64 host; this guest is emulated",
                hint="leave out --cpu, or use one of the emulator's models, such as cortex-a72",
            )
        return model
    if model not in facts.cpu_models or not cpu_is_64_bit(model):
        known = sorted(name for name in facts.cpu_models if cpu_is_64_bit(name) and name != "max")
        raise bad_value("the CPU model", model, "known --cpu models: " + ", ".join([*known, "max"]))
    return model


def _image_record(source: ImageSource) -> dict[str, str]:
    values = {
        "reference": source.reference,
        "digest": source.digest,
        "serial": source.serial,
        "system": str(source.system) if source.system else None,
        "verified": source.verified.value,
        "signer": source.signer,
        "tuned_from": source.tuned_from,
        "packages": " ".join(source.packages) or None,
    }
    # XML does not allow lone surrogates, which stand for undecodable bytes in a path.
    return {
        key: value.encode(errors="replace").decode()
        for key, value in values.items()
        if value is not None
    }


def _warnings(machine: Machine, source: ImageSource, facts: HostFacts) -> list[str]:
    found = []
    # Missing verification of a catalog was reported when the catalog was read.
    if source.verified is Verified.NOTHING and "://" in source.reference:
        found.append(f"{source.reference} is not verified: add #sha256=HEX to the URL")
    if machine.memory_mib > facts.memory_mib:
        found.append(
            f"{machine.memory_mib} MiB is more than the host's {facts.memory_mib} MiB of memory"
        )
    if machine.cpus > facts.online_cpus:
        found.append(
            f"{machine.cpus} vCPUs is more than the host's {facts.online_cpus} CPUs: the extra "
            "vCPUs do not make the guest faster"
        )
    networks = attachments(machine.network or USER_NETWORK)
    bare = source.system is not None and not source.system.netplan
    if len(networks) > 1 and bare and machine.network_config is None:
        found.append(
            f"{source.system} sets up the first network only, because it has no netplan: set up "
            "the others with --network-config, or in the guest"
        )
    if any(one.kind is Kind.MACVTAP for one in networks):
        found.append(
            "the host cannot reach the machine over macvtap, nor the machine the host: that "
            "network connects it to other computers only"
        )
    if machine.seeded and not machine.ssh_keys and machine.password_hash is None:
        found.append("no ssh key and no password: you can log in only with armvm console")
    return found
