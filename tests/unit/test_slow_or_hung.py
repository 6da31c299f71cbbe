"""A slow guest told from one that hangs: by its console and its vCPUs, and by earlier boots."""

from __future__ import annotations

import io
import json
import multiprocessing
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import NotReady
from armvm.base.progress import Plain
from armvm.guest.boot.failures import Finding, named
from armvm.guest.boot.liveness import Pulse, Vitals
from armvm.guest.boot.ready import GRACE, Probe, wait
from armvm.guest.boot.serial import Stage, clean
from armvm.provision.monitor import boot_history
from armvm.provision.monitor.boot_history import LearntBoot, Outlook

LOGS = Path(__file__).resolve().parents[1] / "data" / "serial"
FIRMWARE = "UEFI firmware (version 2022.11 built at 13:10:49)\n"


@pytest.mark.parametrize(
    ("log", "key"),
    [
        (
            "[    3.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0100\n",
            "panic",
        ),
        ("Synchronous Exception at 0x00000000BC123456\n", "firmware-exception"),
        ("UEFI Interactive Shell v2.2\nShell> ", "uefi-shell"),
        ("FS0:\\> ", "uefi-shell"),
        ("BdsDxe: No bootable option or device was found.\n", "no-boot-device"),
        ("Minimal BASH-like line editing is supported.\n\ngrub> ", "grub"),
        ("error: unknown filesystem.\nEntering rescue mode...\ngrub rescue> ", "grub"),
        ("You are in emergency mode. After logging in, type\n", "emergency"),
        ("Gave up waiting for root device.\nBusyBox v1.35\n\n(initramfs) ", "initramfs"),
        ("[ 99.1] Out of memory: Killed process 812 (dpkg) total-vm:1\n", "memory"),
        ("[ 9.1] blk_update_request: I/O error, dev vda, sector 2048\n", "disk"),
    ],
)
def test_what_the_log_names_is_named(log: str, key: str) -> None:
    found = named("m", FIRMWARE + log)
    assert found is not None
    assert found.key == key
    assert "{" not in found.what + found.advice
    assert found.fatal is (key not in ("memory", "disk"))
    assert named("m", f"{FIRMWARE}{log}{FIRMWARE}EFI stub: Booting\n") is None, "it booted again"


def test_a_prompt_that_was_left_is_no_trouble() -> None:
    assert named("m", FIRMWARE + "Shell> exit\nEFI stub: Booting Linux Kernel...\n") is None
    assert named("m", FIRMWARE + "grub> boot\nLoading Linux\n") is None


@pytest.mark.parametrize("name", ["debian-12.log", "ubuntu-24.04.log"])
def test_a_good_boot_names_no_trouble_at_any_moment(name: str) -> None:
    log = clean((LOGS / name).read_bytes())
    for end in range(0, len(log), 97):
        assert named("m", log[:end]) is None


@given(st.text(max_size=400))
def test_no_guests_words_break_the_look(log: str) -> None:
    named("m", log)
    pulse = Pulse("m", silence=1)
    for second in range(3):
        pulse.feel(second, Stage.KERNEL, log, Vitals(state="running", cpu=0.0))


def feel(
    seconds: int, *, cpus: float | None, log: str = "line\n", stage: Stage = Stage.KERNEL
) -> Finding | None:
    """Return what is felt of a guest whose log stands still while its vCPUs take so much."""
    pulse, found = Pulse("m", silence=30), None
    for second in range(0, seconds + 1, 2):
        cpu = None if cpus is None else second * cpus
        found = pulse.feel(float(second), stage, log, Vitals(state="running", cpu=cpu))
    return found


@pytest.mark.parametrize(
    ("cpus", "key"),
    [(0.002, "idle"), (0.1, "slow"), (0.4, "busy"), (1.8, "busy"), (None, "silent")],
)
def test_silence_and_cpu_time_tell_together(cpus: float | None, key: str) -> None:
    assert feel(28, cpus=cpus) is None
    found = feel(40, cpus=cpus)
    assert found is not None
    assert found.key == key
    assert "40 s" in found.what
    assert not found.fatal


def test_a_little_may_be_slow_and_may_be_stuck() -> None:
    """A bootcmd that sleeps, on a host with another guest: 0.12 CPUs were seen."""
    found = feel(60, cpus=0.12, stage=Stage.CLOUD_INIT)
    assert found is not None
    assert "slow or waiting" in found.what
    assert "a user-data command is waiting" in found.advice


def test_a_guest_that_writes_is_only_slow() -> None:
    pulse = Pulse("m", silence=30)
    log = ""
    for second in range(0, 600, 20):
        log += f"line {second}\n"
        seen = Vitals(state="running", cpu=0.0)
        assert pulse.feel(float(second), Stage.SYSTEMD, log, seen) is None


def test_what_it_did_before_does_not_count() -> None:
    """Busy for a minute, then idle: it is idle."""
    pulse, cpu, found = Pulse("m", silence=30), 0.0, None
    for second in range(0, 122, 2):
        cpu += 2.0 if second < 60 else 0.0
        found = pulse.feel(float(second), Stage.KERNEL, "x", Vitals(state="running", cpu=cpu))
    assert found is not None
    assert found.key == "idle"


@pytest.mark.parametrize(
    "line",
    [
        "[ ***  ] A start job is running for Initial cl… (crawler) ({since} / no limit)",
        "[    **] (2 of 3) A start job is running for Initial cl… (crawler) ({since} / 1min 30s)",
        "[*     ] Job Initial cl… (crawler)/start running ({since} / no limit)",
    ],
)
def test_systemd_counting_seconds_is_no_sign_of_life(line: str) -> None:
    pulse, log, found = Pulse("m", silence=30), "Welcome to Debian\n", None
    for second in range(0, 60, 2):
        log += clean(f"\r\x1b[K{line.format(since=f'{second}s')}".encode())
        seen = Vitals(state="running", cpu=0.0)
        found = pulse.feel(float(second), Stage.SYSTEMD, log, seen)
    assert found is not None
    assert "Initial cl… (crawler)" in found.what
    assert "58s" in found.what


def test_a_suspended_machine_is_told_at_once() -> None:
    pulse = Pulse("m", silence=30)
    found = pulse.feel(0.0, Stage.KERNEL, "", Vitals(state="paused", cpu=0.0))
    assert found is not None
    assert "armvm resume m" in found.advice
    full = pulse.feel(1.0, Stage.KERNEL, "", Vitals(state="paused", reason="ioerror"))
    assert full is not None
    assert "df -h" in full.advice
    # The time it stood still is not held against it.
    assert pulse.feel(90.0, Stage.KERNEL, "", Vitals(state="paused", cpu=0.0)) is not None
    assert pulse.feel(91.0, Stage.KERNEL, "", Vitals(state="running", cpu=0.0)) is None


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait_with(findings: dict[float, Finding | None], timeout: float) -> tuple[str, NotReady]:
    """Wait in vain for a guest of which these things are found from these seconds on."""
    clock, out = Clock(), io.StringIO()
    probe = Probe(name="p", hint="look at p", proves=Stage.SSH, check=lambda: Stage.KERNEL)

    def suspect(now: float, _stage: Stage) -> Finding | None:
        return [found for second, found in findings.items() if second <= now][-1]

    with pytest.raises(NotReady) as caught:
        wait(
            "m",
            [probe],
            timeout=timeout,
            progress=Plain(out, clock),
            log=str,
            suspect=suspect,
            outlook=lambda _seen, now: f"about {60 - now:.0f} s left",
            clock=clock,
            sleep=clock.sleep,
        )
    return out.getvalue(), caught.value


PANIC = Finding(key="panic", what="kernel panic", advice="see why", fatal=True)
IDLE = Finding(key="idle", what="it is silent and idle", advice="look at it")


def test_what_seems_wrong_is_told_once_and_at_the_end() -> None:
    told, error = wait_with({0: None, 5: IDLE, 8: replace(IDLE, what="other"), 20: IDLE}, 30)
    assert told.count("warning: m: ") == 1
    assert "m: starting: kernel (5 s, about 55 s left)" in told
    assert error.message.startswith("timed out after 30 s: m is not ready")
    assert error.message.endswith("; it is silent and idle")
    assert error.hint == "look at it"


def test_what_has_passed_is_not_held_against_it() -> None:
    _, error = wait_with({0: None, 5: IDLE, 8: None}, 30)
    assert error.message == "timed out after 30 s: m is not ready; last stage reached: kernel"
    assert str(error.hint).startswith("look at p")


def test_what_is_fatal_ends_the_wait_before_its_time() -> None:
    told, error = wait_with({0: None, 5: PANIC}, 1200)
    assert "m stopped booting" in error.message
    assert "kernel panic" in error.message
    assert max(map(int, re.findall(r"\((\d+) s", told))) <= 5 + GRACE
    assert "1200" not in error.message


def test_a_panic_that_boots_again_is_given_its_time() -> None:
    told, error = wait_with({0: None, 5: PANIC, 15: None, 30: PANIC, 45: None}, 60)
    assert error.message.startswith("timed out after 60 s: m is not ready")
    assert told.count("warning") == 1


def boot(ready: float, at: float = 1.0, uuid: str = "u") -> LearntBoot:
    """Return a boot whose stages come at fixed shares of it."""
    shares = {Stage.STARTED: 0.0, Stage.KERNEL: 0.1, Stage.SYSTEMD: 0.2, Stage.SSH: 0.8}
    stages = {stage: share * ready for stage, share in shares.items()}
    return LearntBoot(at=at, uuid=uuid, stages={**stages, Stage.READY: ready})


def test_the_outlook_is_the_median_of_what_was() -> None:
    outlook = Outlook([boot(50), boot(100), boot(1000)])
    assert Outlook([]).text({Stage.STARTED: 0.0}, 0) is None
    assert outlook.text({Stage.STARTED: 0.0}, 0.2) == "about 1 min 40 s left"
    assert outlook.text({Stage.STARTED: 0.0, Stage.KERNEL: 10.0}, 12.0) == "about 1 min 30 s left"
    slow = {Stage.STARTED: 0.0, Stage.KERNEL: 20.0}
    assert outlook.text(slow, 20.0) == "about 3 min 0 s left", "twice as slow until here"
    assert outlook.text({Stage.STARTED: 0.0, Stage.SSH: 80.0}, 90.0) == "about 10 s left"
    assert outlook.text({Stage.STARTED: 0.0, Stage.SSH: 80.0}, 101.0) == (
        "longer than the usual 1 min 40 s"
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path / "armvm" / "boots.json"


def test_what_was_learnt_is_remembered_and_bounded(state: Path) -> None:
    for number in range(boot_history.BOOTS + 3):
        boot_history.learn("a", boot(100 + number, at=1000 + number, uuid=f"u{number}"))
    assert [one.stages[Stage.READY] for one in boot_history.recall("a")] == [
        103,
        104,
        105,
        106,
        107,
    ]
    assert boot_history.recall("b") == []
    found = boot_history.boot_of("u7")
    assert found is not None
    assert found.at == 1007
    assert boot_history.boot_of("u0") is None
    for number in range(boot_history.KINDS):
        boot_history.learn(f"kind {number}", boot(9))
    assert boot_history.recall("a") == []
    assert len(json.loads(state.read_text())["boots"]) == boot_history.KINDS
    assert state.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "null", "[]", '{"boots": 3}', '{"boots": {"a": 3}}', '{"boots": {"a": [3]}}'],
        '{"boots": {"a": [{"at": 1, "uuid": "u", "stages": {"ready": -5}}]}}',
        '{"boots": {"a": [{"at": 1, "uuid": "u", "stages": {"ready": NaN}}]}}',
        '{"boots": {"a": [{"at": 1, "uuid": "u", "stages": {"ready": 1e99}}]}}',
        '{"boots": {"a": [{"at": 1, "uuid": "u", "stages": {"ssh": 9, "ready": 5}}]}}',
        '{"boots": {"a": [{"at": 1, "uuid": "u", "stages": {"nonsense": 9, "ready": 5}}]}}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:70],
)
def test_a_broken_file_is_nothing_and_is_mended(state: Path, text: str) -> None:
    state.parent.mkdir()
    state.write_text(text)
    assert boot_history.recall("a") == []
    assert boot_history.boot_of("u") is None
    boot_history.learn("a", boot(7, uuid="mine"))
    assert boot_history.recall("a")[-1].uuid == "mine"


def test_where_nothing_can_be_written_nothing_is_learnt(state: Path) -> None:
    state.parent.write_text("a file where the directory should be")
    boot_history.learn("a", boot(7))
    assert boot_history.recall("a") == []


def _teach(number: int) -> None:
    for turn in range(10):
        boot_history.learn(f"kind {number} {turn % 2}", boot(5 + turn))


def test_writers_at_once_lose_nothing(state: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_teach, args=(number,)) for number in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    kinds = json.loads(state.read_text())["boots"]
    assert {kind: len(boots) for kind, boots in kinds.items()} == {
        f"kind {number} {turn}": boot_history.BOOTS for number in range(4) for turn in range(2)
    }
    assert sorted(one.name for one in state.parent.iterdir()) == ["boots.json", "boots.lock"]


def test_a_lock_that_is_kept_is_not_waited_for_long(state: Path) -> None:
    import fcntl

    state.parent.mkdir()
    with state.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun = time.monotonic()
        boot_history.learn("a", boot(7))
        assert time.monotonic() - begun < 10
    assert boot_history.recall("a") == []
