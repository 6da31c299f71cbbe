"""``python -m benchmarks``: run the cases interleaved, and write table, JSON and charts."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from armvm.base.errors import ArmvmError
from armvm.base.process import run
from benchmarks import (
    bases,
    cold,
    compile,
    daily,
    fetch,
    jobs,
    overhead,
    pool,
    reboot,
    scale,
    transfer,
    warm,
    world,
)
from benchmarks.case import Case, select
from benchmarks.facts import gather
from benchmarks.output import write
from benchmarks.results import Results, read
from benchmarks.sweep import sweep_all

ROOT = Path(__file__).resolve().parent.parent
#: Keep this many last characters of a failed program's output: the error is at the end.
_TOLD = 240
#: In the order of a round, and of the table.
CASES: list[Case] = [
    *cold.CASES,
    *bases.CASES,
    *warm.CASES,
    *daily.CASES,
    *pool.CASES,
    *compile.CASES,
    *jobs.CASES,
    *transfer.CASES,
    *overhead.CASES,
    *fetch.CASES,
    *reboot.CASES,
    *scale.CASES,
]


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the command line's values; a wrong one ends the program with exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=5, help="default: 5")
    parser.add_argument("--cases", default="", help="groups or cases, comma-separated: cold,run")
    parser.add_argument("--image", default="local:debian-12", help="the image of all guests")
    parser.add_argument("--clones", type=_positive, default=10, help="running clones of scale")
    parser.add_argument("--held", type=int, default=0, help="all clones of scale; 0: --clones")
    parser.add_argument("--golden", help="use this golden with user networking; default: make one")
    parser.add_argument("--rootfs", type=Path, help="use this root file system for docker run")
    parser.add_argument("--merge", action="store_true", help="keep figures of earlier runs")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="a directory")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--clean", action="store_true", help="remove leftovers and exit")
    values = parser.parse_args(words)
    try:
        values.cases = select(CASES, [one for one in values.cases.split(",") if one])
    except ValueError as error:
        parser.error(str(error))
    return values


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(words: Sequence[str] | None = None) -> int:
    """Run, write, and return the exit code: 0 also where targets are missed, 130 after Ctrl-C."""
    values = parse(sys.argv[1:] if words is None else words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if values.list:
        print("\n".join(f"{case.group:10}{case.key}" for case in values.cases))
        return 0
    if values.clean:
        left = sweep_all()
        print(f"could not remove: {', '.join(left)}" if left else "everything was removed")
        return 1 if left else 0
    # The user's own settings must not affect the results.
    for key in [one for one in os.environ if one.startswith("ARMVM_")]:
        del os.environ[key]
    # Without bytecode caching, Python would compile armvm's modules in each call. The peers are
    # installed compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["LIBVIRT_DEFAULT_URI"] = world.URI if os.geteuid() == 0 else "qemu:///session"
    path = values.output / "benchmarks" / "results.json"
    results = read(path) if values.merge else Results()
    results.retitle(figure for case in CASES for figure in case.figures)
    try:
        with world.opened(
            reference=values.image,
            image=(image := _image(values.image))[0],
            clones=values.clones,
            held=values.held,
            rootfs=values.rootfs,
        ) as here:
            if values.golden:
                here.use_golden("user", values.golden)
            facts = gather(values.image, image[1], values.rounds)
            results.runs[facts["date"]] = facts
            here.warm_up()
            _rounds(here, values.cases, values.rounds, results, facts["date"])
    except KeyboardInterrupt:
        _say("interrupted: no results written")
        return 130
    results.in_order([figure.key for case in CASES for figure in case.figures])
    results.forget_unused_runs()
    print(write(results, values.output))
    return 0


def _image(reference: str) -> tuple[Path, str]:
    """Return the image's file and digest; download or build it first."""
    armvm = str(Path(sys.executable).with_name("armvm"))
    found = json.loads(run([armvm, "image", "list", "--json"]).text)
    known = [one for one in found if one["reference"] == reference]
    if not known:
        verb = "build" if reference.startswith("local:") else "pull"
        _say(f"{reference} is not cached: running armvm image {verb}")
        run([armvm, "image", verb, reference.removeprefix("local:")], timeout=3600)
        return _image(reference)
    return Path(known[0]["path"]), str(known[0]["digest"])


def _rounds(here: world.World, cases: list[Case], rounds: int, results: Results, date: str) -> None:
    """Run every case once in each round, so that a slow minute of the host affects all."""
    left_out: set[str] = set()
    for case in cases:
        for figure in case.figures:
            results.begin(date, case.group, figure)
    for number in range(rounds):
        for case in cases:
            if case.key in left_out or (case.once and number > 0):
                continue
            _say(f"round {number + 1} of {rounds}: {case.key}")
            start = time.monotonic()
            try:
                if reason := case.why_not(here):
                    raise world.LeftOut(reason)
                for reading in case.run(here):
                    results.add(reading)
                    _say(f"  {reading.figure}: {reading.value:.3f}")
            except world.LeftOut as error:
                left_out.add(case.key)
                for figure in case.figures:
                    results.figures[figure.key].left_out = str(error)
                _say(f"  left out: {error}")
            except (ArmvmError, OSError, ValueError) as error:
                told = failure(error)
                for figure in case.figures:
                    results.figures[figure.key].failures.append(told)
                _say(f"  failed: {told}")
            _say(f"  ({time.monotonic() - start:.0f} s in total)")


def failure(error: Exception) -> str:
    """Return a failure on one line: the error, and the end of the program's output."""
    detail = " ".join((getattr(error, "detail", None) or "").split())
    return f"{error}: {detail[-_TOLD:]}" if detail else str(error)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
