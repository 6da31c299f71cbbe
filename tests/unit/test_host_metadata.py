"""The record in a domain's metadata: it comes back whole, or not at all."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from armvm.host.domain.metadata import (
    NAMESPACE,
    Creator,
    FleetMark,
    Record,
    Snapshot,
    from_domain,
    to_bare_text,
    to_element,
)
from armvm.host.xml import parse
from armvm.settings.ports import parse_forward
from tests.unit.host_tools import RECORD


def domain(record: str) -> etree._Element:
    return parse(f"<domain><metadata>{record}</metadata></domain>")


def round_trip(record: Record) -> Record | None:
    return from_domain(domain(etree.tostring(to_element(record), encoding="unicode")))


FULL = replace(
    RECORD,
    own_key=True,
    forward=20022,
    ports=(parse_forward("8080:80"), parse_forward("0.0.0.0:5353:53/udp")),
    snapshots=(Snapshot(name="one", created="2026-01-02T03:04:05Z", state="off"),),
    fleet=FleetMark(name="lab", machine="job-01", source="golden ci"),
    creator=Creator(host="boot/pid:[1]", pid=42, started=7),
    image={"reference": "a&b", "digest": "sha256:0", "system": "ubuntu 24.04"},
    settings={"cpus": 2, "network": None, "headless": False, "text": "é<"},
)


@pytest.mark.parametrize("record", [RECORD, FULL, replace(RECORD, image={}, settings={})])
def test_a_record_comes_back(record: Record) -> None:
    assert round_trip(record) == record


XML_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
)


@given(
    user=XML_TEXT,
    reference=XML_TEXT,
    settings=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)
def test_any_text_comes_back(user: str, reference: str, settings: dict[str, object]) -> None:
    record = replace(RECORD, user=user, image={"reference": reference}, settings=settings)
    assert round_trip(record) == record


def test_what_libvirt_wants_without_a_namespace_is_the_same_record() -> None:
    bare = to_bare_text(FULL)
    assert NAMESPACE not in bare
    assert ":" not in re.sub(r'"[^"]*"|>[^<]*<', "", bare)
    qualified = bare.replace("<machine ", f'<machine xmlns="{NAMESPACE}" ', 1)
    assert from_domain(domain(qualified)) == FULL


def test_a_domain_without_a_record_is_not_ours() -> None:
    assert from_domain(parse("<domain/>")) is None
    assert from_domain(domain("")) is None
    assert from_domain(domain('<machine version="1"><user name="x"/></machine>')) is None
    other = '<machine xmlns="urn:armvm:machine:99"><user name="x"/></machine>'
    assert from_domain(domain(other)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"<armvm:user [^>]*/>", ""),
        (r"<armvm:settings>[^<]*", "<armvm:settings>{"),
        (r"<armvm:settings>[^<]*", "<armvm:settings>[]"),
        (r"<armvm:settings>[^<]*", "<armvm:settings>" + "[" * 100_000),
        (r'host-port="\d+"', 'host-port="ssh"'),
        (r'host-port="\d+"', 'host-port="70000"'),
        (r'host-port="\d+"', 'host-port="0"'),
        (r'host-port="\d+"', ""),
        (r'guest-port="80"', 'guest-port="80 -:22"'),
        (r'listen="[^"]*"', 'listen="::"'),
        (r'protocol="udp"', 'protocol="icmp"'),
        (r'<armvm:snapshot name="one"', '<armvm:snapshot name="../one"'),
        (r'pid="\d+"', 'pid="x"'),
        (r'started="\d+"', 'started=""'),
        (r"<armvm:host-key>[^<]*", "<armvm:host-key>nonsense"),
        (r"<armvm:host-key>[^<]*", "<armvm:host-key>ssh-ed25519 *** x"),
        (r"<armvm:host-key>[^<]*", "<armvm:host-key>ssh-ed25519 AAAA\n* ssh-rsa AAAA"),
    ],
)
def test_a_record_that_was_broken_by_hand_is_none(old: str, new: str) -> None:
    text = etree.tostring(to_element(FULL), encoding="unicode")
    broken, count = re.subn(old, new, text, count=1)
    assert count == 1
    assert from_domain(domain(broken)) is None


def test_what_other_tools_add_is_ignored() -> None:
    text = etree.tostring(to_element(RECORD), encoding="unicode")
    text = text.replace("</armvm:machine>", '<armvm:later x="1"/>text</armvm:machine>')
    assert from_domain(domain(f'<other xmlns="urn:x"/>{text}')) == RECORD


def test_nothing_secret_is_in_it() -> None:
    assert "PRIVATE" not in to_bare_text(FULL)
