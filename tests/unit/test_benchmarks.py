"""The benchmarks' own logic: statistics, verdicts, table, charts, arguments; nothing is timed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from armvm.base.errors import CommandFailed
from benchmarks import chart, jobs, table
from benchmarks.__main__ import CASES, failure, parse
from benchmarks.case import Case, Figure, Reading, select
from benchmarks.memory import disk_of, parts_of
from benchmarks.output import PAGES, files, write
from benchmarks.recipe import domain_xml
from benchmarks.results import Results, from_json, read, to_json
from benchmarks.summary import number, summarize
from benchmarks.targets import TARGETS, Target, judge
from tests.support import ROOT

FACTS = {
    "date": "2026-01-02T03:04:05Z",
    "machine": "x86_64, some CPU, 2 CPUs, 8 GiB",
    "QEMU": "7.2",
    "libvirt": "9.0.0",
    "kernel": "6.1",
    "guest": "local:debian-12 0123456789ab",
}
FIGURES = {figure.key: (case, figure) for case in CASES for figure in case.figures}


def results(**samples: list[float]) -> Results:
    """Results of one run in which every figure of every case has its place."""
    made = Results(runs={"r": FACTS})
    for key, (case, figure) in FIGURES.items():
        made.begin("r", case.group, figure)
        for count, value in enumerate(samples.get(key.replace("-", "_"), [])):
            at = {"clones": count + 1.0, "held": float(count > 2), "total": value * 2}
            made.add(Reading(figure=key, value=value, parts=at))
    return made


def test_every_figure_is_measured_by_one_case_and_every_target_is_of_figures() -> None:
    assert len(FIGURES) == sum(len(case.figures) for case in CASES)
    for target in TARGETS:
        assert target.figure in FIGURES
        assert target.over is None or target.over in FIGURES
        assert FIGURES[target.figure][1].unit == target.unit


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_a_summary_lies_within_its_samples(samples: list[float]) -> None:
    summary = summarize(samples)
    assert summary is not None
    assert summary.low == min(samples)
    assert summary.high == max(samples)
    assert summary.count == len(samples)
    assert sum(one <= summary.median for one in samples) * 2 >= len(samples)
    assert sum(one >= summary.median for one in samples) * 2 >= len(samples)


def test_medians_and_numbers() -> None:
    summary = summarize([3.0, 1.0, 2.0, 10.0])
    assert summary is not None
    assert summary.median == 2.5
    assert summarize([]) is None
    assert [number(one) for one in (0.1234, 1.7, 59.96, 123.4)] == ["0.12", "1.70", "60.0", "123"]


def test_a_target_is_met_missed_or_not_measured() -> None:
    found = results(run=[2.4, 2.6, 2.5], warm_user=[1.5], cold_recipe=[60.0])
    over = Target(title="t", figure="warm-user", over="cold-recipe", limit=1 / 25)
    assert judge(found, Target(title="t", figure="run", limit=2.5)).met is True
    assert judge(found, Target(title="t", figure="run", limit=2.4)).met is False
    assert judge(found, over).met is True
    assert judge(found, over).limit == "≤ 1/25"
    assert "1.50 of 60.0 s" in judge(found, over).measured
    absent = Target(title="t", figure="run", over="typer", limit=1)
    assert judge(found, absent).met is None
    assert judge(found, absent).measured == "not measured: typer left out: not reached"
    assert judge(Results(), absent).measured == "not measured: run is not in this run"


def test_a_ratio_of_two_runs_says_so() -> None:
    found = results(warm_user=[1.5], cold_recipe=[60.0])
    found.figures["warm-user"].run = "later"
    over = Target(title="t", figure="warm-user", over="cold-recipe", limit=1 / 25)
    assert judge(found, over).measured.endswith("from two runs")


def test_the_table_shows_what_is_missed_and_what_is_left_out() -> None:
    found = results(run=[9.0], golden=[12.0])
    found.figures["cold-fast"].left_out = "armvm create has no --fast | yet\nreally"
    found.figures["golden"].failures.append("a boot that failed")
    text = table.render(found)
    title = "armvm run -- true, including removal of the machine"
    assert f"| {title} | ≤ 1.3 s | 9.00 s | **missed** |" in text
    assert r"left out: armvm create has no --fast \| yet really" in text
    assert "failed 1 times: a boot that failed" in text
    for key in FIGURES:
        assert f"| `{key}` |" in text
    for fact in FACTS.values():
        assert fact in text


def test_the_table_goes_between_its_marks_again_and_again() -> None:
    page = f"above\n{table.BEGIN}\nstale text\n{table.END}\nbelow\n"
    once = table.insert(page, table.render(results(run=[9.0])))
    assert once.startswith("above\n")
    assert once.endswith("\nbelow\n")
    assert "stale text" not in once
    assert table.insert(once, table.render(results(run=[9.0]))) == once
    with pytest.raises(ValueError, match="not found"):
        table.insert("a page without marks", "")


def test_results_come_back_from_json() -> None:
    found = results(run=[1.0, 2.0], scale_pss=[300.0, 200.0])
    found.figures["list"].left_out = "no root"
    assert from_json(to_json(found)) == found
    with pytest.raises(ValueError, match="format"):
        from_json('{"format": 0}')


def test_merged_results_keep_what_was_not_measured_again() -> None:
    found = results(run=[1.0], list=[0.5])
    found.runs["later"] = FACTS
    found.begin("later", "warm", Figure(key="run", title="again"))
    assert found.figures["run"].samples == []
    assert found.median("list") == 0.5
    found.in_order(["list", "run", "no-such"])
    assert list(found.figures) == ["list", "run"]
    found.forget_unused_runs()
    assert set(found.runs) == {"r", "later"}
    found.in_order(["run"])
    found.forget_unused_runs()
    assert set(found.runs) == {"later"}


@pytest.mark.parametrize("measured", [True, False])
def test_charts_are_xml_with_every_case(measured: bool) -> None:
    samples = {key.replace("-", "_"): [1.0, 3.0, 2.0, 5.0] for key in FIGURES}
    found = results(**(samples if measured else {}))
    found.figures["run"].left_out = 'because <of> & "that"'
    found.figures["run"].samples.clear()
    found.figures["run"].parts.clear()
    bars = etree.fromstring(chart.bars(found))
    words = [one.text or "" for one in bars.iter("{http://www.w3.org/2000/svg}text")]
    for _, figure in FIGURES.values():
        assert figure.title in words
    assert any('left out: because <of> & "that"' in word for word in words)
    drawn = len(list(bars.iter("{http://www.w3.org/2000/svg}rect")))
    assert drawn == (len(FIGURES) - 1 if measured else 0)
    curves = chart.curves(found)
    assert etree.fromstring(curves) is not None
    assert ("suspended from here on" in curves) is measured
    for drawing in (chart.bars(found), curves):
        assert "prefers-color-scheme: dark" in drawing
        assert "2026-01-02" in drawing


def test_cases_are_chosen_by_group_or_name() -> None:
    assert [one.group for one in select(CASES, ["warm"])] == ["warm"] * 4
    assert [one.key for one in select(CASES, ["run", "cold-recipe"])] == ["cold-recipe", "run"]
    assert select(CASES, []) == CASES
    with pytest.raises(ValueError, match="unknown case nothing"):
        select(CASES, ["nothing"])


def test_the_command_line() -> None:
    values = parse(["--rounds", "2", "--cases", "warm,list", "--held", "50", "--merge"])
    assert (values.rounds, values.held, values.merge, values.clones) == (2, 50, True, 10)
    assert {case.group for case in values.cases} == {"warm", "overhead"}
    assert parse([]).cases == CASES
    assert parse(["--cases", ""]).rounds == 5
    for wrong in (["--rounds", "0"], ["--cases", "nothing"], ["--clones", "x"]):
        with pytest.raises(SystemExit) as ended:
            parse(wrong)
        assert ended.value.code == 2


def test_a_case_has_the_name_of_its_first_figure() -> None:
    figures = (Figure(key="a", title="A"), Figure(key="b", title="B"))
    assert Case(group="g", figures=figures, run=lambda _: []).key == "a"


def test_a_failure_is_one_line_with_the_end_of_what_was_said() -> None:
    error = CommandFailed("it failed", detail="Traceback\n" + "x" * 500 + "\nthe reason")
    assert failure(error).startswith("it failed: x")
    assert failure(error).endswith("x the reason")
    assert len(failure(error)) < 300
    assert failure(OSError("gone")) == "gone"


def test_disk_is_what_files_have_allocated(tmp_path: Path) -> None:
    overlay, seed, nvram = (tmp_path / name for name in ("o", "s", "n"))
    overlay.write_bytes(b"x" * 3 * 1024 * 1024)
    with seed.open("wb") as file:
        file.truncate(50 * 1024 * 1024)  # a hole, which takes nothing
    nvram.write_bytes(b"x")
    root = etree.fromstring(domain_xml("m", overlay, seed))
    place = root.find("os")
    assert place is not None
    etree.SubElement(place, "nvram").text = str(nvram)
    found = disk_of(etree.tostring(root, encoding="unicode"))
    assert 3 <= found.overlay < 4
    assert found.seed < 1
    assert 0 < found.nvram < 1


SMAPS = """\
7f5b00000000-7f5b40000000 rw-p 00000000 00:00 0
Size:            1048576 kB
Pss:              331776 kB
VmFlags: rd wr mr mw me ac sd hg
7f5b40000000-7f5b44000000 rw-p 00000000 00:00 0
Size:              65536 kB
Pss:               65536 kB
VmFlags: rd wr mr mw me ac sd hg
7f5b44000000-7f5b48000000 rw-p 00000000 00:00 0
Size:              65536 kB
Pss:                1024 kB
VmFlags: rd wr mr mw me ac sd
7f5b50000000-7f5b60000000 rwxp 00000000 00:00 0
Size:             262144 kB
Pss:              131072 kB
VmFlags: rd wr ex mr mw me ac sd hg
55cf86dbc000-55cf876cd000 r-xp 0046d000 fe:00 1234    /usr/bin/qemu-system-aarch64
Size:               8192 kB
Pss:                2048 kB
VmFlags: rd ex mr mw me sd
"""


def test_a_machines_memory_has_four_parts() -> None:
    assert parts_of(SMAPS) == {"guest": 324.0, "code": 128.0, "firmware": 64.0, "rest": 3.0}
    assert set(parts_of("").values()) == {0.0}


def test_what_is_written_is_what_the_results_say(tmp_path: Path) -> None:
    for path, (mark, _) in PAGES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(f"{mark}\n{table.END}\n")
    found = results(run=[1.0])
    assert write(found, tmp_path) in (tmp_path / "benchmarks.md").read_text()
    assert jobs.table(found) in (tmp_path / "howto/docker.md").read_text()
    assert read(tmp_path / "benchmarks" / "results.json") == found
    assert read(tmp_path / "nothing.json") == Results()


def test_the_docs_are_made_of_the_results() -> None:
    """The tables and charts in docs match results.json; do not edit them by hand."""
    docs = ROOT / "docs"
    found = read(docs / "benchmarks" / "results.json")
    assert found.figures
    for path, text in files(found).items():
        assert (docs / path).read_text() == text, f"{path}: make bench writes it"
    for path, (mark, render) in PAGES.items():
        page = (docs / path).read_text()
        assert table.insert(page, render(found), mark) == page, f"{path}: make bench writes it"


def test_the_jobs_have_a_table_of_their_own() -> None:
    found = results(apt_container=[10.0], apt_machine=[25.0], compile_container=[40.0])
    lines = jobs.table(found).splitlines()
    assert any(line.endswith("(downloaded before) | 10.0 | 25.0 | 2.5 |") for line in lines)
    assert any("40.0 | left out: not reached | –" in line for line in lines)
    assert "2 CPUs" in lines[-1]
    assert "not measured" in jobs.table(Results())


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.name)
def test_a_module_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
