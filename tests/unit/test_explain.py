"""``explain`` covers each element, attribute and key that armvm writes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.guest.cloudinit.explained import HIDDEN
from armvm.host.domain.explained_xml import lines
from armvm.provision.inspect.explain import NOT_OURS, SCRIPT, THEIRS, Part, seed_parts, xml_parts
from armvm.provision.inspect.pages import read_page, topics
from tests.expected.test_seed import SAMPLE
from tests.support import ROOT, armvm

FILES = ROOT / "tests" / "expected" / "files"
DOMAINS = sorted((FILES / "domain").glob("*.xml"))
SEEDS = sorted((FILES / "seed").glob("*.txt"))
#: Sections of what only clones, or libvirt, have.
ELSEWHERE = {
    "domain/os/nvram",
    "domain/metadata/armvm:machine/armvm:golden",
}
WHEN = {"efi", "kernel", "tcg", "kvm", "user", "network"}


def documents(path: Path) -> dict[str, bytes]:
    """Return the documents in a recorded seed, by name."""
    parts = path.read_text().split("=== ")[1:]
    return {name: text.encode() for name, _, text in (part.partition("\n") for part in parts)}


def of_domain(path: Path) -> list[Part]:
    return list(xml_parts(read_page("xml"), path.read_text()))


def of_seed(path: Path) -> list[Part]:
    return list(seed_parts(read_page("seed"), documents(path)))


@pytest.mark.parametrize("path", DOMAINS, ids=lambda path: path.stem)
def test_every_element_and_attribute_is_explained(path: Path) -> None:
    page = {one.heading: one for one in read_page("xml").sections}
    for found in lines(path.read_text(), list(page)):
        assert found.path is not None, f"docs/explain/xml.md says nothing of {found.text}"
        missing = set(found.names) - page[found.path].items.keys()
        assert not missing, f"docs/explain/xml.md does not explain {missing} of {found.text}"


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
def test_every_key_is_explained(path: Path) -> None:
    theirs = {"packages", "locale", "power_state", "mode", "condition", "ecdsa_public"}
    for part in of_seed(path):
        key = (part.line or "").partition(":")[0]
        if part.text == [THEIRS]:
            assert path.stem == "cloud-config"
            assert key in theirs
            assert key in SAMPLE
        elif part.text == [SCRIPT]:
            assert path.stem in ("script", "template")
        elif part.depth:
            assert part.heading, f"docs/explain/seed.md says nothing of {part.line}"


def test_nothing_is_explained_that_armvm_does_not_write() -> None:
    written = {part.heading for path in DOMAINS for part in of_domain(path)}
    for section in read_page("xml").sections:
        by_libvirt = section.paragraphs and section.paragraphs[0].startswith("By libvirt: ")
        assert by_libvirt or section.heading in written | ELSEWHERE, section.heading
    written = {part.heading for path in SEEDS for part in of_seed(path)}
    assert {one.heading for one in read_page("seed").sections} <= written


@pytest.mark.parametrize("topic", topics())
def test_every_section_has_words_and_a_source(topic: str) -> None:
    page = read_page(topic)
    assert page.title
    assert page.paragraphs
    headings = [one.heading for one in page.sections]
    assert len(headings) == len(set(headings)) > 0
    for section in page.sections:
        assert section.paragraphs or section.items, section.heading
        assert section.when is None or section.when in WHEN
        assert section.source is not None, f"{section.heading} has no source"
        address = section.source.address
        assert address.startswith("https://") or (ROOT / address).is_file()


def test_secrets_are_not_shown() -> None:
    lines = [part.line for part in of_seed(FILES / "seed" / "password.txt")]
    assert f"ed25519_private: {HIDDEN}" in lines
    assert f"hashed_passwd: {HIDDEN}" in lines
    assert "lock_passwd: false" in lines
    assert not any("PRIVATE KEY" in str(line) or "$2b$" in str(line) for line in lines)


def test_what_is_alike_is_told_once() -> None:
    ports = [part for part in of_domain(FILES / "domain" / "default.xml") if part.times > 1]
    assert [(part.line, part.times) for part in ports] == [
        ('<controller type="pci" model="pcie-root-port"/>', 14)
    ]


def test_what_another_tool_added_is_said_to_be_no_work_of_ours() -> None:
    text = (FILES / "domain" / "headless.xml").read_text()
    odd = text.replace("</devices>", '<tpm model="&lt;x&gt;"><backend/></tpm></devices>')
    found = {part.line: part for part in xml_parts(read_page("xml"), odd)}
    tpm = found['<tpm model="&lt;x&gt;">']
    assert (tpm.heading, tpm.text) == ("", [NOT_OURS])


@pytest.mark.parametrize("topic", topics())
def test_the_general_page_needs_no_libvirt(topic: str, tmp_path: Path) -> None:
    env = {"ARMVM_CONNECT": f"qemu+unix:///system?socket={tmp_path}/none"}
    told = armvm("explain", topic, "--json", env=env).ok().json
    assert told["machine"] is None
    assert len(told["parts"]) == len(read_page(topic).sections)
    out = armvm("explain", topic, env=env).ok().out
    assert all(section.heading in out for section in read_page(topic).sections)


def test_an_unknown_topic_names_the_known() -> None:
    assert "firmware" in armvm("explain", "love").failed(4).err
