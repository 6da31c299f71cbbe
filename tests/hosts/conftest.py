"""The hosts, made once for all tests, and what worked on them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.other import IMAGES, USERS, WHERE, OtherHost, Place

_SEEN = pytest.StashKey[list[dict[str, Any]]]()
_VERSIONS = pytest.StashKey[dict[str, dict[str, str]]]()


class Hosts:
    """The hosts that were asked for so far, and who is ready to work on them."""

    def __init__(self, *, keep: bool, image: Path, versions: dict[str, dict[str, str]]) -> None:
        self.keep = keep
        self.image = image
        self.versions = versions
        self.hosts: dict[str, OtherHost] = {}
        self.ready: set[Place] = set()

    def get(self, suite: str) -> OtherHost:
        """Return a host that runs, made from its beginning unless hosts are kept."""
        if suite not in self.hosts:
            host = OtherHost(suite=suite)
            if not self.keep:
                host.do("remove").ok()
            host.prepare()
            host.send(self.image, f"{IMAGES}/blank.qcow2")
            self.hosts[suite] = host
        return self.hosts[suite]

    def place(self, suite: str, role: str) -> Place:
        """Return a user of a host for whom scripts/setup has run; root's runs first."""
        place = Place(host=self.get(suite), user=USERS[role])
        if place not in self.ready:
            if not place.user.is_root:
                self.place(suite, "root")
            if role == "libvirt group":
                place.host.run("usermod", "--append", "--groups", "libvirt", place.user.name).ok()
            place.bring_checkout()
            place.setup().ok()
            self.versions[suite] = place.host.versions()
            self.ready.add(place)
        return place


@pytest.fixture(scope="session")
def hosts(
    pytestconfig: pytest.Config, blank_image: Path, request: pytest.FixtureRequest
) -> Iterator[Hosts]:
    """Hosts by their suites. One run of the tests at a time has them."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot another host")
    for program in ("mmdebstrap", "slirp4netns"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: scripts/setup --dev installs it")
    directory = Path(WHERE["ARMVM_HOSTS"])
    directory.mkdir(parents=True, exist_ok=True)
    keep = pytestconfig.getoption("keep_hosts")
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        versions = pytestconfig.stash.setdefault(_VERSIONS, {})
        made = Hosts(keep=keep, image=blank_image, versions=versions)
        try:
            yield made
        finally:
            for host in made.hosts.values():
                if not keep:
                    host.do("remove").ok()


def cases(*wanted: tuple[str, str]) -> pytest.MarkDecorator:
    """Have the fixture `place` be each of these: a suite, and a role of tests.hosts.other."""
    names = [f"{suite}-{role.replace(' ', '-')}" for suite, role in wanted]
    return pytest.mark.parametrize("place", wanted, ids=names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def place(hosts: Hosts, request: pytest.FixtureRequest) -> Place:
    """A user of a host, with a checkout in which scripts/setup has run."""
    return hosts.place(*request.param)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what became of each test that is a row of the table."""
    report = yield
    mark = item.get_closest_marker("feature")
    case = getattr(item, "callspec", None)
    if mark is None or case is None or "place" not in case.params:
        return report
    if report.when == "call" or (report.when == "setup" and not report.passed):
        suite, role = case.params["place"]
        reason = ""
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        row = {
            "feature": mark.args[0],
            "suite": suite,
            "role": role,
            "outcome": report.outcome,
            "reason": reason,
            "seconds": round(report.duration, 1),
            "date": time.strftime("%Y-%m-%d"),
        }
        item.config.stash.setdefault(_SEEN, []).append(row)
        _write(item.config)
    return report


def _write(config: pytest.Config) -> None:
    """Write the results, beside those of earlier runs; after each test, for runs take hours."""
    path: Path | None = config.getoption("record_hosts")
    if path is None:
        return
    known = json.loads(path.read_text()) if path.exists() else {"hosts": {}, "results": []}
    merge(known, config.stash.get(_VERSIONS, {}), config.stash.get(_SEEN, []))
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def merge(known: dict[str, Any], versions: dict[str, Any], seen: list[dict[str, Any]]) -> None:
    """Add what was seen in this run to what is known; of several tests, one that failed decides."""
    known["hosts"].update(versions)
    rows = {_key(row): row for row in known["results"]}
    rows.update({_key(row): row for row in seen})
    rows.update({_key(row): row for row in seen if row["outcome"] == "failed"})
    known["results"] = [rows[key] for key in sorted(rows)]


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["suite"], row["role"], row["feature"]
