"""Waiting for a guest: with probes, a clock and a sleep of our own; ssh over real sockets."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from armvm.base.errors import DomainError, NotReady
from armvm.base.progress import Plain, Quiet
from armvm.guest.boot.ready import INTERVAL, Boot, Probe, answers_ssh, read_result, wait
from armvm.guest.boot.serial import Stage


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def at(self, *events: tuple[float, Stage]) -> Callable[[], Stage | None]:
        """Return a check that sees each stage from its second on."""
        start = self.now

        def check() -> Stage | None:
            seen = [stage for second, stage in events if self.now - start >= second]
            return seen[-1] if seen else None

        return check


def probes(serial: Callable[[], Stage | None], ssh: Callable[[], Stage | None]) -> list[Probe]:
    return [
        Probe(name="serial", hint="look at serial", proves=Stage.CLOUD_INIT, check=serial),
        Probe(name="ssh", hint="look at ssh", proves=Stage.SSH, check=ssh),
        Probe(name="end", hint="look at the end", proves=Stage.READY, check=lambda: None),
    ]


def nothing() -> None:
    return None


def wait_for(time: Time, these: list[Probe], timeout: float = 60.0, log: str = "") -> Boot:
    return wait(
        "m",
        these,
        timeout=timeout,
        progress=Quiet(),
        log=lambda: log,
        clock=time.clock,
        sleep=time.sleep,
    )


def test_each_stage_is_noted_when_it_is_first_seen() -> None:
    time = Time()
    serial = time.at((2, Stage.FIRMWARE), (4, Stage.KERNEL), (6, Stage.SYSTEMD))
    ssh = time.at((20, Stage.SSH), (30, Stage.READY))
    boot = wait_for(time, probes(serial, ssh))
    assert boot.seen == {
        Stage.STARTED: 0.0,
        Stage.FIRMWARE: 2.0,
        Stage.KERNEL: 4.0,
        Stage.SYSTEMD: 6.0,
        Stage.CLOUD_INIT: 20.0,
        Stage.SSH: 20.0,
        Stage.READY: 30.0,
    }
    assert boot.seconds == 30.0
    assert set(time.slept) == {INTERVAL}


def test_what_is_ready_already_costs_no_wait() -> None:
    time = Time()
    boot = wait_for(time, probes(nothing, lambda: Stage.READY), timeout=0)
    assert boot.seconds == 0.0
    assert set(boot.seen) == set(Stage)
    assert time.slept == []


def test_a_log_that_goes_back_takes_nothing_back() -> None:
    """A guest that reboots while it is waited for keeps the times of its first boot."""
    time = Time()
    serial = time.at((2, Stage.CLOUD_INIT), (5, Stage.FIRMWARE))
    boot = wait_for(time, probes(serial, time.at((9, Stage.READY))))
    assert boot.seen[Stage.CLOUD_INIT] == 2.0
    assert boot.seen[Stage.FIRMWARE] == 2.0


@pytest.mark.parametrize(
    ("seen", "stage", "hint"),
    [
        ((), "started", "look at serial"),
        (((1, Stage.KERNEL),), "kernel", "look at serial"),
        (((1, Stage.CLOUD_INIT),), "cloud-init", "look at ssh"),
        (((1, Stage.SSH),), "ssh", "look at the end"),
    ],
)
def test_when_time_runs_out_the_account_is_complete(
    seen: tuple[tuple[float, Stage], ...], stage: str, hint: str
) -> None:
    time = Time()
    log = "\n".join(f"line {number}" for number in range(100)) + "\nthe last words\n\n"
    with pytest.raises(NotReady) as caught:
        wait_for(time, probes(time.at(*seen), nothing), timeout=10, log=log)
    error = caught.value
    assert error.exit_code == 11
    assert error.message == f"timed out after 10 s: m is not ready; last stage reached: {stage}"
    assert error.detail is not None
    assert error.detail.endswith("line 99\nthe last words")
    assert "line 80" not in error.detail
    assert error.hint is not None
    assert error.hint.startswith(hint)
    assert "armvm" not in error.hint, "only who waits knows whether the machine stays"
    assert time.now == 1010.0


def test_a_silent_guest_is_said_to_be_silent() -> None:
    with pytest.raises(NotReady) as caught:
        wait_for(Time(), probes(nothing, nothing), timeout=1)
    assert "the log is empty" in str(caught.value.detail)


def test_what_a_probe_raises_ends_the_wait() -> None:
    def stopped() -> Stage | None:
        raise DomainError("m stopped")

    time = Time()
    with pytest.raises(DomainError, match="m stopped"):
        wait_for(time, probes(nothing, stopped))
    assert time.slept == []


def test_stages_are_told_as_they_come() -> None:
    time, out = Time(), io.StringIO()
    wait(
        "m",
        probes(time.at((1, Stage.KERNEL)), time.at((3, Stage.READY))),
        timeout=9,
        progress=Plain(out, clock=time.clock),
        log=str,
        clock=time.clock,
        sleep=time.sleep,
    )
    assert out.getvalue().splitlines() == [
        "m: starting …",
        "m: starting: started (0 s)",
        "m: starting: kernel (1 s)",
        "m: starting: done in 3.0 s",
    ]


@contextmanager
def server(*answers: bytes) -> Iterator[int]:
    """Serve one connection with these pieces, then hold it open; yield the port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in answers:
                    connection.sendall(piece)
                    done.wait(0.02)
                done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join()


def test_an_ssh_server_is_known_by_its_banner() -> None:
    with server(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n") as port:
        assert answers_ssh("127.0.0.1", port)


def test_a_banner_may_come_in_pieces() -> None:
    with server(b"SS", b"H-2.", b"0-OpenSSH\r\n") as port:
        assert answers_ssh("127.0.0.1", port)


@pytest.mark.parametrize("banner", [b"HTTP/1.1 400 Bad\r\n", b"SSH-1.5-old\r\n", b"\0" * 99])
def test_another_server_is_no_ssh_server(banner: bytes) -> None:
    with server(banner) as port:
        assert not answers_ssh("127.0.0.1", port)


def test_a_server_that_accepts_and_says_nothing_does_not_count() -> None:
    """QEMU's user networking accepts before the guest does."""
    with server() as port:
        assert not answers_ssh("127.0.0.1", port, timeout=0.2)


def test_a_server_that_hangs_up_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert not answers_ssh("127.0.0.1", listener.getsockname()[1])
        thread.join()


def test_a_closed_port_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not answers_ssh("127.0.0.1", port, timeout=1)


def test_cloud_inits_result_is_read() -> None:
    good = {"v1": {"datasource": "DataSourceNoCloud [seed=/dev/vdb]", "errors": []}}
    assert read_result(json.dumps(good)).errors == ()
    bad = {"v1": {"datasource": None, "errors": ["('scripts_user', RuntimeError())", "two"]}}
    assert read_result(json.dumps(bad)).errors == ("('scripts_user', RuntimeError())", "two")


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "null", "[]", "{}", '{"v1": {}}', '{"v1": []}', '{"v1": {"errors": null}}'],
        *["[" * 100_000, "\x1b[2J"],
    ],
    ids=lambda text: text[:20],
)
def test_a_result_that_cannot_be_read_is_an_error_of_its_own(text: str) -> None:
    (error,) = read_result(text).errors
    assert error.startswith("result.json cannot be parsed")
    assert error.isprintable()
    assert len(error) < 300


def test_a_guests_words_cannot_steer_the_terminal() -> None:
    result = read_result(json.dumps({"v1": {"errors": ["\x1b[2J\x1b]0;x\x07gone\u009b2J", 7]}}))
    assert result.errors == ("gone2J", "7")
