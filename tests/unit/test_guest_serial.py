"""Reading serial logs: one of a real boot (Debian 12), one in the words of Ubuntu 24.04."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.guest.boot.serial import (
    Stage,
    clean,
    cloud_init_finished,
    latest_boot,
    stage_of,
    tail,
    trouble,
)

DATA = Path(__file__).resolve().parents[1] / "data" / "serial"
LOGS = ["debian-12.log", "ubuntu-24.04.log"]


def log(name: str) -> str:
    return clean((DATA / name).read_bytes())


def up_to(text: str, sign: str) -> str:
    """Return a log as it is when the line with *sign* has just been written."""
    at = text.index(sign)
    return text[: text.index("\n", at) + 1]


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize(
    ("sign", "stage"),
    [
        ("UEFI firmware", Stage.FIRMWARE),
        ("BdsDxe: starting", Stage.FIRMWARE),
        ("EFI stub: Booting", Stage.KERNEL),
        ("Booting Linux on", Stage.KERNEL),
        ("Linux version", Stage.KERNEL),
        ("running in system mode", Stage.SYSTEMD),
        ("Detected virtualization", Stage.SYSTEMD),
        ("running 'init-local'", Stage.CLOUD_INIT),
        ("running 'modules:config'", Stage.CLOUD_INIT),
        ("finished at", Stage.CLOUD_INIT),
    ],
)
def test_each_sign_shows_its_stage(name: str, sign: str, stage: Stage) -> None:
    assert stage_of(up_to(log(name), sign)) is stage


@pytest.mark.parametrize("name", LOGS)
def test_stages_never_go_back_while_a_log_grows(name: str) -> None:
    text = log(name)
    ends = [match.end() for match in re.finditer("\n", text)]
    orders = [stage_of(text[:end]).order for end in ends]
    assert orders == sorted(orders)
    assert set(orders) == {stage.order for stage in Stage if stage.order <= 4} - {0}


def test_grubs_welcome_is_not_systemds() -> None:
    """Both greet with "Welcome to"; GRUB is firmware's side of the kernel."""
    grub = clean(b"UEFI firmware (version 1)\r\n\x1b[0m\x1b[30m\x1b[47mWelcome to GRUB!\r\n")
    assert stage_of(grub) is Stage.FIRMWARE
    assert stage_of(up_to(log("debian-12.log"), "Welcome to GRUB")) is Stage.FIRMWARE
    assert stage_of("\nWelcome to Debian GNU/Linux 12 (bookworm)!\n") is Stage.SYSTEMD


def test_an_empty_log_shows_a_start() -> None:
    assert stage_of("") is Stage.STARTED
    assert stage_of("\n\n") is Stage.STARTED


@pytest.mark.parametrize("name", LOGS)
def test_a_reboot_in_the_same_log_begins_again(name: str) -> None:
    whole = log(name)
    again = whole + up_to(whole, "EFI stub: Booting")
    assert stage_of(again) is Stage.KERNEL
    assert cloud_init_finished(whole)
    assert not cloud_init_finished(again)
    assert latest_boot(again) == up_to(whole, "EFI stub: Booting")
    assert latest_boot(whole) == whole[whole.index("UEFI firmware") :]


def test_a_reboot_without_firmware_begins_with_the_kernel() -> None:
    whole = log("debian-12.log")
    whole = whole[whole.index("EFI stub:") :].replace("EFI stub: ", "")
    assert "Booting Linux on" in whole and "UEFI firmware" not in whole
    assert cloud_init_finished(whole)
    again = whole + "[    0.000000] Booting Linux on physical CPU 0x0\n"
    assert stage_of(again) is Stage.KERNEL
    assert not cloud_init_finished(again)


def test_stages_are_ordered_as_a_boot_is() -> None:
    assert [stage.value for stage in sorted(Stage, key=lambda stage: stage.order)] == [
        "started",
        "firmware",
        "kernel",
        "systemd",
        "cloud-init",
        "ssh",
        "ready",
    ]


@pytest.mark.parametrize("name", LOGS)
def test_finished_means_the_final_message(name: str) -> None:
    assert not cloud_init_finished(up_to(log(name), "running 'modules:final'"))
    assert cloud_init_finished(log(name))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\r\n", "plain\n"),
        (b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe", "BdsDxe"),
        (b"[\x1b[0;32m  OK  \x1b[0m] Started", "[  OK  ] Started"),
        (b"\x1bM\r\x1b[K[ 1.0]", "[ 1.0]"),
        (b"\x1b]0;title\x07x\x1b]2;t\x1b\\y", "xy"),
        (b"a\tb\nc", "a\tb\nc"),
        (b"a\0\x07\x08\x7fb", "ab"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\u009b31mred\u009b0m é".encode(), "31mred0m é"),
        (b"half \x1b[", "half "),
    ],
)
def test_cleaning_takes_out_what_a_terminal_would_obey(raw: bytes, text: str) -> None:
    assert clean(raw) == text


@given(st.binary())
def test_whatever_a_guest_writes_is_harmless_text(raw: bytes) -> None:
    text = clean(raw)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert stage_of(text) in Stage
    trouble(text)
    tail(text)


def test_cleaning_a_large_hostile_log_takes_no_time() -> None:
    for raw in (b"\x1b]" * 130_000, b"\x1b[" * 130_000, b"\x1b[0;" * 65_000, b"\n" * 260_000):
        stage_of(clean(raw))


def test_the_tail_is_the_last_lines_that_say_anything() -> None:
    text = "\n".join(f"line {number}  \n\n" for number in range(40))
    assert tail(text, 3) == "line 37\nline 38\nline 39"
    assert len(tail(text).splitlines()) == 15
    assert tail("") == ""


def test_trouble_is_what_cloud_init_complains_about() -> None:
    found = trouble(log("ubuntu-24.04.log"))
    assert found.splitlines() == [
        "[   45.002113] cloud-init[512]: 2026-11-24 13:10:12,101 - "
        "cc_package_update_upgrade_install.py[WARNING]: Failed to install packages: "
        "['no-such-package']",
        "[   45.120448] cloud-init[512]: Traceback (most recent call last):",
    ]
    assert trouble(log("debian-12.log")) == ""
    assert len(trouble("cloud-init: error\n" * 50).splitlines()) == 10
