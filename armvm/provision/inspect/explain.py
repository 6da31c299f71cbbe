"""Explain what armvm writes and why, in general or with the values of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from armvm.base.errors import NotFound
from armvm.base.result import Doc
from armvm.guest.cloudinit.explained import keys
from armvm.guest.cloudinit.seed import read_seed
from armvm.host.connection import Connection
from armvm.host.domain import explained_xml
from armvm.host.domain.explained_xml import Fact
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.host.facts import Accelerator
from armvm.host.storage import pools, transfer, volumes
from armvm.provision.access.ssh import endpoint
from armvm.provision.inspect.pages import Page, Section, Source, read_page
from armvm.provision.manage.machines import portable_xml

NOT_OURS = "Not from armvm: libvirt or another tool added it."
THEIRS = "Not from armvm: it is in your user-data."
SCRIPT = "Your user-data, unchanged. armvm's own follows it or is in vendor-data."


@dataclass(frozen=True, kw_only=True)
class Part:
    """An explained part."""

    heading: Annotated[
        str,
        Doc("Heading of its section: an XPath, a key or a title. Empty: not written by armvm."),
    ]
    line: Annotated[str | None, Doc("The machine's line; null in a general page.")]
    depth: Annotated[int, Doc("Depth of nesting.", minimum=0)]
    times: Annotated[int, Doc("Number of consecutive equal lines.", minimum=1)]
    text: Annotated[list[str], Doc("The explanation, in paragraphs.")]
    items: Annotated[
        dict[str, Annotated[str, Doc("An explanation.")]], Doc("Its attributes, explained.")
    ]
    source: Annotated[Source | None, Doc("Its documentation; null: none.")]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A page about a topic, in general or for one machine."""

    topic: Annotated[str, Doc("The topic.", enum=["cpu", "firmware", "network", "seed", "xml"])]
    machine: Annotated[str | None, Doc("The machine; null: the general page.")]
    title: Annotated[str, Doc("The page's title.")]
    text: Annotated[list[str], Doc("The introduction, in paragraphs.")]
    values: Annotated[
        dict[str, Annotated[Fact, Doc("A fact.")]],
        Doc("Facts about the machine, by name: for firmware, cpu and network."),
    ]
    parts: Annotated[list[Part], Doc("The explained parts, in order.")]


def explain(topic: str) -> Explanation:
    """Return a topic's general page. Raises NotFound."""
    page = read_page(topic)
    return _told(page, None, {}, [_part(section) for section in page.sections])


def explain_machine(topic: str, machine: Handle) -> Explanation:
    """Return a topic's page for one machine, with its values and only the sections that apply.

    Raises NotFound for an unknown topic, or if the machine's seed is missing.
    """
    page = read_page(topic)
    if topic == "xml":
        text = portable_xml(machine.connection, machine.name)
        return _told(page, machine.instance, {}, list(xml_parts(page, text)))
    if topic == "seed":
        files = _seed(machine.connection, machine.instance)
        return _told(page, machine.instance, {}, list(seed_parts(page, files)))
    values = _values(topic, machine)
    kinds = _kinds(values, machine.instance)
    parts = [_part(one) for one in page.sections if one.when is None or one.when in kinds]
    return _told(page, machine.instance, values, parts)


def xml_parts(page: Page, text: str) -> Iterator[Part]:
    """Yield the lines of a domain XML with explanations."""
    sections = {section.heading: section for section in page.sections}
    for line in explained_xml.lines(text, list(sections)):
        section = sections[line.path] if line.path is not None else None
        yield _part(section, line.text, line.depth, line.times, line.names, NOT_OURS)


def seed_parts(page: Page, files: dict[str, bytes]) -> Iterator[Part]:
    """Yield the keys of a seed's documents with explanations; a document starts with its name."""
    sections = {section.heading: section for section in page.sections}
    file = None
    for key in keys(files):
        if key.file != file:
            file = key.file
            yield _part(None, f"{file}:", 0, 1, (), "")
        document = "user-data" if key.file == "vendor-data" else key.file
        section = sections.get(f"{document}: {key.path}")
        otherwise = THEIRS if key.path else SCRIPT
        yield _part(section, key.line, key.depth + 1, 1, (), otherwise)


def _part(
    section: Section | None,
    line: str | None = None,
    depth: int = 0,
    times: int = 1,
    names: Sequence[str] | None = None,
    otherwise: str = "",
) -> Part:
    """Return a section as a part; *names* are the attributes to explain, None for all."""
    if section is None:
        text = [otherwise] if otherwise else []
        return Part(
            heading="", line=line, depth=depth, times=times, text=text, items={}, source=None
        )
    items = {name: words for name, words in section.items.items() if names is None or name in names}
    return Part(
        heading=section.heading,
        line=line,
        depth=depth,
        times=times,
        text=list(section.paragraphs),
        items=items,
        source=section.source,
    )


def _told(
    page: Page, instance: Instance | None, values: dict[str, Fact], parts: list[Part]
) -> Explanation:
    return Explanation(
        topic=page.topic,
        machine=instance.name if instance else None,
        title=page.title,
        text=list(page.paragraphs),
        values=values,
        parts=parts,
    )


def _seed(connection: Connection, instance: Instance) -> dict[str, bytes]:
    pool = pools.find_pool(connection, instance.record.pool)
    name = PurePosixPath(instance.seed or "").name
    volume = volumes.find_volume(pool, name) if pool is not None and name else None
    if volume is None:
        raise NotFound(
            f"seed of {instance.name} not found",
            hint="explain seeds in general: armvm explain seed",
        )
    return dict(read_seed(transfer.read(connection, volume)))


def _values(topic: str, machine: Handle) -> dict[str, Fact]:
    if topic == "firmware":
        return explained_xml.boot_facts(machine.domain)
    if topic == "cpu":
        accelerator = Accelerator(machine.instance.accelerator).name.lower()
        return {"accelerator": accelerator, **explained_xml.cpu_facts(machine.domain)}
    where = endpoint(machine) if machine.running else None
    return {
        "mac": machine.instance.mac,
        **explained_xml.network_facts(machine.connection, machine.domain, machine.instance.network),
        "ssh": None if where is None else str(where),
    }


def _kinds(values: dict[str, Fact], instance: Instance) -> set[str]:
    """Return the ``when:`` words that apply to a machine."""
    return {
        "kernel" if values.get("kernel") else "efi",
        Accelerator(instance.accelerator).name.lower(),
        "user" if instance.network is None else "network",
    }
