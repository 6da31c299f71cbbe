"""Reading a guest's account of its boot, joining it with the host's, drawing it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from armvm.base.result import as_json
from armvm.guest.boot.report import Span, read_account
from armvm.guest.boot.serial import Stage, clean
from armvm.guest.boot.serial_report import read_serial
from armvm.host.domain.instance import Instance
from armvm.host.domain.metadata import Record
from armvm.provision.monitor.boot_history import LearntBoot, seconds_of
from armvm.provision.monitor.boot_report import Report, make_report, shown_spans
from armvm.provision.monitor.boot_svg import picture
from tests.schemas import check
from tests.unit.host_tools import INSTANCE

LOGS = Path(__file__).resolve().parents[1] / "data" / "serial"
CREATED = "2026-11-28T12:00:00Z"
MADE = seconds_of(CREATED) or 0.0


def event(name: str, kind: str, at: float) -> dict[str, Any]:
    return {"name": name, "event_type": kind, "timestamp": at, "description": "x"}


def told(kernel_at: float = MADE + 7, finish: int = 40_000_000) -> str:
    """Return what a guest answers whose kernel began at a second of Unix time, and is up 100 s."""
    cloud = [
        event("init-local", "start", kernel_at - 5000),  # an earlier boot
        event("init-local", "finish", kernel_at - 4990),
        event("init-local", "start", kernel_at + 10),
        event("init-local/search-NoCloud", "start", kernel_at + 11),
        event("init-local/search-NoCloud", "finish", kernel_at + 14),
        event("init-local", "finish", kernel_at + 15),
        event("modules-final", "start", kernel_at + 41),
        event("modules-final", "finish", kernel_at + 50),
    ]
    units = [
        ("ssh.service", 30_000_000, 33_500_000, 0),
        ("once.service", 20_000_000, 0, 21_000_000),
        ("late.service", 90_000_000, 91_000_000, 0),
        ("never.service", 0, 0, 0),
    ]
    blocks = [
        f"Id={name}\nInactiveExitTimestampMonotonic={start}\n"
        f"ActiveEnterTimestampMonotonic={active}\nInactiveEnterTimestampMonotonic={inactive}\n"
        for name, start, active, inactive in units
    ]
    return (
        f"== clock\n100.0\n{kernel_at + 100}\n== manager\nKernelTimestampMonotonic=0\n"
        "InitRDTimestampMonotonic=2000000\nUserspaceTimestampMonotonic=5000000\n"
        f"FinishTimestampMonotonic={finish}\n== units\n" + "\n".join(blocks) + "== chain\n"
        "multi-user.target @39.1s\n`-ssh.service @30.0s +3.500s\n  `--.mount\n"
        f"== cloud\n{json.dumps(cloud)}\n== end\n"
    )


def by_name(spans: tuple[Span, ...]) -> dict[str, tuple[float, float]]:
    return {span.name: (round(span.start, 3), round(span.seconds, 3)) for span in spans}


def test_a_guests_account_is_read() -> None:
    account = read_account(told())
    assert account.kernel_at == pytest.approx(MADE + 7)
    assert by_name(account.spans) == {
        "kernel": (0.0, 2.0),
        "initramfs": (2.0, 3.0),
        "systemd": (5.0, 35.0),
        "cloud-init local": (10.0, 5.0),
        "init-local/search-NoCloud": (11.0, 3.0),
        "cloud-init final": (41.0, 9.0),
        "ssh.service": (30.0, 3.5),
        "once.service": (20.0, 1.0),
    }
    assert [span.name for span in account.spans if span.critical] == ["ssh.service"]
    assert account.notes == ()


def test_firmware_that_tells_counts_back_from_the_kernel() -> None:
    text = told().replace(
        "KernelTimestampMonotonic=0",
        "FirmwareTimestampMonotonic=6000000\nLoaderTimestampMonotonic=1500000",
    )
    spans = by_name(read_account(text).spans)
    assert spans["firmware"] == (-6.0, 4.5)
    assert spans["boot loader"] == (-1.5, 1.5)


def test_a_boot_under_way_and_a_guest_without_cloud_init_say_so() -> None:
    account = read_account(told(finish=0).split("== cloud")[0])
    assert len(account.notes) == 2
    assert "late.service" in by_name(account.spans)


@given(st.text(max_size=600), st.integers(0, 2000), st.integers(0, 200))
def test_no_guests_words_break_the_reading(noise: str, at: int, length: int) -> None:
    text = told()
    account = read_account(text[:at] + noise + text[at + length :])
    for span in account.spans:
        assert clean(span.name.encode()) == span.name
        assert span.seconds >= 0


@pytest.mark.parametrize("name", ["debian-12.log", "ubuntu-24.04.log"])
def test_without_an_agent_the_serial_log_tells_the_stages(name: str) -> None:
    account = read_serial(clean((LOGS / name).read_bytes()))
    names = [span.name for span in account.spans]
    assert names[:2] == ["kernel", "systemd"]
    assert "cloud-init local" in names
    assert "cloud-init final" in names
    for span in account.spans:
        assert 0 < span.seconds < 300
    assert "serial log" in account.notes[0]
    assert read_serial("").spans == ()


def machine(golden: str | None = None) -> Instance:
    record = Record(
        version="1", created=CREATED, user="u", host_key="", instance_id="", pool="p", golden=golden
    )
    return replace(INSTANCE, record=record)


def learnt(**stages: float) -> LearntBoot:
    return LearntBoot(
        at=MADE + 1, uuid="u", stages={Stage[name.upper()]: at for name, at in stages.items()}
    )


def report(golden: str | None = None, boot: LearntBoot | None = None, **options: Any) -> Report:
    made = make_report(machine(golden), read_account(told(**options)), "guest agent", boot)
    check("boot-report", as_json(made.rounded()))
    return made


def test_a_boot_that_the_host_has_seen_begins_with_qemu() -> None:
    found = report(boot=learnt(started=0, kernel=6, ssh=40, ready=60))
    assert found.origin == "start"
    assert found.sources == ("guest agent", "this host")
    spans = by_name(found.spans)
    assert spans["firmware"] == (0.0, 6.0)
    assert spans["kernel"] == (6.0, 2.0)
    assert spans["ssh answers"] == (40.0, 0.0)
    assert spans["ready"] == (60.0, 0.0)
    assert found.seconds == 60.0
    assert found.notes == ()


def test_another_boot_that_the_host_has_seen_is_left_out() -> None:
    found = report(boot=learnt(started=0, kernel=6, ssh=40, ready=60), kernel_at=MADE + 900)
    assert found.origin == "kernel"
    assert found.sources == ("guest agent",)
    assert "is unknown" in found.notes[0]


def test_a_clone_that_has_not_booted_tells_of_its_golden() -> None:
    boot = learnt(started=0, ssh=2.0, ready=2.0)
    found = report("gold", boot, kernel_at=MADE - 3000)
    assert found.golden == "gold"
    assert found.clone_seconds == 2.0
    assert found.title.startswith("boot of gold, golden of m: ")
    booted = report("gold", boot, kernel_at=MADE + 300)
    assert booted.golden is None
    assert booted.clone_seconds is None


def test_only_the_longest_units_are_shown() -> None:
    found = report()
    names = [span.name for span in shown_spans(found, 1)]
    assert "ssh.service" in names
    assert "once.service" not in names
    assert "kernel" in names
    assert [span.kind for span in shown_spans(found, 0)].count("unit") == 0


def test_the_picture_is_svg_and_takes_any_name() -> None:
    spans = report(boot=learnt(started=0, kernel=6, ssh=40, ready=60)).spans
    hostile = replace(spans[-1], name="<script>&\x00\x1b[2J\ud800", kind="unit")
    before = Span(kind="stage", name="firmware", start=-3, seconds=3)
    root = etree.fromstring(picture("t", [before, *spans, hostile], 60.0))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find(".//{*}script") is None
    width = float(root.get("viewBox", "").split()[2])
    bars = root.findall(".//{*}rect")
    assert len(bars) == 1 + len([one for one in [before, *spans, hostile] if one.kind != "mark"])
    for bar in bars[1:]:
        assert float(bar.get("x", "-1")) >= 0
        assert float(bar.get("x", "0")) + float(bar.get("width", "0")) < width
