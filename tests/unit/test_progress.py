"""The three faces of progress, with clock and stream handed in."""

from __future__ import annotations

import io
import re

import pytest

from armvm.base.progress import Live, Plain, Quiet, duration_text, size_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (10 << 30, "10.0 GiB"),
        (5 << 40, "5120.0 GiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_are_in_binary_units(count: int, text: str) -> None:
    assert size_text(count) == text


def test_plain_tells_begin_and_end() -> None:
    out, clock = io.StringIO(), Clock()
    plain = Plain(out, clock)
    plain.say("a fact")
    plain.warn("odd")
    with plain.task("copying"):
        clock.now += 1.24
    assert out.getvalue().splitlines() == [
        "a fact",
        "warning: odd",
        "copying …",
        "copying: done in 1.2 s",
    ]


def test_plain_tells_how_far_it_is_every_few_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("copying", total=100 << 20) as task:
        for done in range(13):
            task.update(done << 20)
            clock.now += 1.0
    assert out.getvalue().splitlines()[1:-1] == [
        "copying: 5% of 100.0 MiB, 1.0 MiB/s, 1 min 35 s left (5 s)",
        "copying: 10% of 100.0 MiB, 1.0 MiB/s, 1 min 30 s left (10 s)",
    ]


def test_plain_tells_less_the_longer_it_takes() -> None:
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("booting") as task:
        for second in range(301):
            task.update(text="cloud-init" if second == 100 else None)
            clock.now += 1.0
    told = [int(seconds) for seconds in re.findall(r"\((\d+) s\)", out.getvalue())]
    assert told == [5, 10, 20, 40, 80, 100, 160, 220, 280]


def test_plain_counts_the_rate_of_what_came_now() -> None:
    """A resumed download starts with the bytes that exist already."""
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("copying", total=100 << 20) as task:
        task.update(50 << 20)
        clock.now += 10
        task.update(60 << 20)
    assert "copying: 60% of 100.0 MiB, 1.0 MiB/s, 40 s left (10 s)" in out.getvalue()


def test_plain_promises_no_end_where_nothing_comes() -> None:
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("copying", total=100) as task:
        task.update(0)
        clock.now += 10
        task.update(0)
    assert "copying: 0% of 100 B, 0 B/s (10 s)" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize("total", [None, 0])
def test_plain_without_a_known_size_tells_the_amount(total: int | None) -> None:
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("copying", total=total) as task:
        clock.now += 10
        task.update(20 << 20)
    assert "copying: 20.0 MiB, 2.0 MiB/s (10 s)" in out.getvalue()


def test_plain_tells_a_new_state_at_once_and_an_old_one_seldom() -> None:
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("m") as task:
        for second in range(8):
            task.update(text="kernel" if second < 7 else "systemd")
            clock.now += 1
    assert out.getvalue().splitlines()[1:-1] == [
        "m: kernel (0 s)",
        "m: kernel (5 s)",
        "m: systemd (7 s)",
    ]


def test_plain_without_any_news_says_that_it_is_still_at_it() -> None:
    out, clock = io.StringIO(), Clock()
    with Plain(out, clock).task("m") as task:
        clock.now += 6
        task.update()
    assert "m: still running (6 s)" in out.getvalue()


def test_a_task_that_fails_is_not_called_done() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), Plain(out).task("m"):
        raise ZeroDivisionError
    assert "done" not in out.getvalue()


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    quiet = Quiet()
    quiet.say("x")
    quiet.warn("x")
    with quiet.task("x", total=1) as task:
        task.update(1, text="x")
    assert capfd.readouterr() == ("", "")


def test_live_prints_facts_as_they_are() -> None:
    out = io.StringIO()
    live = Live(out)
    live.say("[bold]no markup[/bold] " + "x" * 200)
    live.warn("odd [red]")
    assert out.getvalue() == "[bold]no markup[/bold] " + "x" * 200 + "\nwarning: odd [red]\n"


def test_live_shows_a_moving_line_and_takes_it_away() -> None:
    out = Terminal()
    with Live(out).task("fetch [x]", total=10 << 20) as task:
        task.update(5 << 20)
        task.update(text="half [y]")
    drawn = out.getvalue()
    assert re.search(r"\d:\d\d:\d\d|-:--:--", drawn), "the time that is left"
    assert "fetch [x]" in drawn
    assert "fetch [x]: half [y]" in drawn
    assert "5.0/10.0" in drawn
    assert drawn.endswith("\x1b[2K") or drawn.rstrip().endswith("\x1b[2K"), "the line is erased"


def test_live_without_a_known_size_shows_the_state() -> None:
    out = Terminal()
    with Live(out).task("m") as task:
        task.update(text="kernel")
    assert "m: kernel" in out.getvalue()
