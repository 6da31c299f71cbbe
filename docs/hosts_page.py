"""The page docs/hosts.md: what was seen to work on which host, from docs/hosts/results.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The rows, in their order: the names that the tests in tests/hosts give to features.
FEATURES = (
    "`scripts/setup`; run again, it changes nothing",
    "`doctor`",
    "`create`, with a boot",
    "`ssh`, `cp`",
    "`exec`",
    "`console`",
    "`forward add`",
    "`resize --disk` while it runs",
    "`snapshot create`, `revert`",
    "`mount --restart` of a clone, which boots from its own disk",
    "`golden create`, memory shared",
    "`create --from`, memory shared",
    "`run --from`, memory shared",
    "`golden create --save-image`",
    "`create --from`, `run --from`, save image",
    "`delete`, `golden delete`",
    "libvirt restarts while a machine runs",
    "libvirt restarts while a clone is made",
    "libvirt restarts while a golden is saved",
    "the host reboots: `autostart`, forwards, the network",
    "the host reboots: a clone in its first run, goldens",
    "the power fails: a clone in its first run, goldens",
)
SUITES = {"trixie": "Debian 13", "sid": "Debian sid"}
ROLES = ("root", "sudo", "libvirt group")
_WORDS = {"passed": "yes", "failed": "**no**"}

_HEAD = """# Hosts

This page is made from [hosts/results.json](hosts/results.json) by `docs/generate.py`; do not edit
it. The results are written by the tests in `tests/hosts`.

## Where the tests run

`make test` runs everything on the host that it is started on; the project's own is Debian 12, root,
x86-64, without systemd (libvirt 9.0, QEMU 7.2, Python 3.11). `make test` also boots Debian sid as
another host, without a guest that boots. `make test-all` boots Debian 13 and sid, with guests.

Such a host is a Debian release in namespaces of this machine: its own systemd as process 1, its own
libvirt, QEMU, Python and network. The kernel is this machine's. `tests/hosts/other-host` makes and
boots one, for your own experiments too:

```sh
sudo tests/hosts/other-host make sid        # its root file system, once: minutes
sudo tests/hosts/other-host boot sid        # seconds
sudo tests/hosts/other-host run sid bash
sudo tests/hosts/other-host remove sid
```

To run the slow tests and write the table again (hours):

```sh
make test-all LAYERS=hosts PYTEST_ARGS="--record-hosts docs/hosts/results.json"
.venv/bin/python docs/generate.py
```

## What was seen to work

Each host has three kinds of users. *root* and a member of the group `libvirt` use
`qemu:///system`; *sudo* is an ordinary user with sudo, who uses `qemu:///session`. *yes*: the test
passed; *no*: it failed; *not run*: it has not been run, or an earlier step failed.
"""

_TAIL = """## How the rest is known

- Ubuntu, Fedora, SELinux: not tested. `scripts/setup` has Fedora's package names.
- arm64 with KVM: not tested. The domain that armvm writes there is held against recorded
  capabilities of such a host.
- AppArmor: tried by hand, see below.
- Modular daemons (virtqemud, virtnetworkd, virtstoraged): Debian ships none. The whole was seen
  once, with libvirt 11.3 built from source.

## AppArmor and SELinux

libvirt confines QEMU to the files in a machine's XML. The memory that clones share is not among
them. On Debian and Ubuntu, AppArmor denies it until
`/etc/apparmor.d/local/abstractions/libvirt-qemu` has the line
`/var/lib/libvirt/images/armvm/*.memory rwk,`. `scripts/setup` writes that line, for `ARMVM_POOL`
too. It holds for the next machine that starts, and `armvm doctor` checks it (`shared memory`).
Without it `golden create` says so and makes a save image: run the command it prints, delete the
golden and make it again. With it, any confined QEMU may open any golden's memory. Session mode is
not confined.

`tests/hosts/apparmor` shows this in an emulated Debian 13, by hand, in about 20 minutes. Last
seen on 2026-11-29: Linux 6.12.117, libvirt 11.3.0, QEMU 10.0.13.

SELinux (Fedora) is not tested. The memory needs the type `svirt_image_t`. armvm sets it as root
and in session mode; as an ordinary user of the system daemon, run the command that doctor prints.
Other confined machines may then open this pool's disks while their machines are off.
"""


def render(results: Path) -> str:
    """Return the whole page."""
    known = json.loads(results.read_text())
    rows = {(row["suite"], row["role"], row["feature"]): row for row in known["results"]}
    strange = {row["feature"] for row in known["results"]} - set(FEATURES)
    if strange:
        raise ValueError(f"features that are no rows of the page: {strange}")
    parts = [_HEAD.strip(), _versions(known, rows), _table(rows), _TAIL.strip()]
    return "\n\n".join(parts) + "\n"


def _versions(known: dict[str, Any], rows: dict[tuple[str, str, str], Any]) -> str:
    lines = ["| host | libvirt | QEMU | Python | systemd | tested |", "|---|---|---|---|---|---|"]
    for suite, title in SUITES.items():
        host = known["hosts"].get(suite)
        if host is None:
            continue
        dates = sorted(row["date"] for key, row in rows.items() if key[0] == suite)
        when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        told = (host[key] for key in ("libvirt", "qemu", "python", "systemd"))
        lines.append(f"| {title} | {' | '.join(told)} | {when} |")
    return "\n".join(lines)


def _table(rows: dict[tuple[str, str, str], Any]) -> str:
    columns = [(suite, role) for suite in SUITES for role in ROLES]
    heads = [f"{SUITES[suite]}, {role}" for suite, role in columns]
    lines = [f"| feature | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for feature in FEATURES:
        cells = [_cell(rows.get((suite, role, feature))) for suite, role in columns]
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    return "not run" if row is None else _WORDS.get(row["outcome"], "not run")
