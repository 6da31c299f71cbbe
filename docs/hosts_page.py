"""Render docs/hosts.md, the features tested on each host, from docs/hosts/results.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The rows in order: the names that the tests in tests/hosts give to features.
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
    "`golden export`, `golden import`",
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

`docs/generate.py` generates this page from [hosts/results.json](hosts/results.json); do not edit
it. The tests in `tests/hosts` write the results.

## Where the tests run

`make test` runs all layers on the current host; the project uses Debian 12 on x86-64, as root and
without systemd (libvirt 9.0, QEMU 7.2, Python 3.11). `make test` also boots Debian sid as another
host, without booting a guest in it. `make test-all` boots Debian 13 and sid, with guests.

Each of these other hosts is a Debian release in namespaces of this machine. It has its own systemd
as process 1, libvirt, QEMU, Python and network, and shares this machine's kernel. You can make and
boot one yourself with `tests/hosts/other-host`:

```sh
sudo tests/hosts/other-host make sid        # create its root file system, once: minutes
sudo tests/hosts/other-host boot sid        # seconds
sudo tests/hosts/other-host run sid bash
sudo tests/hosts/other-host remove sid
```

To run the slow tests and write the table again (hours):

```sh
make test-all LAYERS=hosts PYTEST_ARGS="--record-hosts docs/hosts/results.json"
.venv/bin/python docs/generate.py
```

## Results

The tests run as three users on each host. *root* and a member of the group `libvirt` use
`qemu:///system`; *sudo* is an ordinary user with sudo, who uses `qemu:///session`. *yes*: the test
passed. *no*: it failed. *not run*: it was not run, or an earlier step failed.
"""

_TAIL = """## Other systems

- Ubuntu, Fedora, SELinux: not tested. `scripts/setup` has Fedora's package names.
- arm64 with KVM: not tested on hardware. The unit tests compare the domain with recorded
  capabilities of such a host.
- AppArmor: tested by hand, see below.
- Modular daemons (virtqemud, virtnetworkd, virtstoraged): Debian does not ship them. Tested once,
  with libvirt 11.3 built from source.

## AppArmor and SELinux

libvirt confines QEMU to the files in a machine's XML, which do not include the memory that clones
share. On Debian and Ubuntu, AppArmor denies access to it until
`/etc/apparmor.d/local/abstractions/libvirt-qemu` contains the line
`/var/lib/libvirt/images/armvm/*.memory rwk,`. `scripts/setup` adds that line, also for
`ARMVM_POOL`. It applies to the next machine that starts. `armvm doctor` checks it (`shared
memory`). Without it, `golden create` prints a warning and makes a save image. Run the command in
the warning, delete the golden and create it again. With the line, any confined QEMU can open the
memory of any golden. Session mode is not confined.

`tests/hosts/apparmor` tests this by hand in an emulated Debian 13, in about 20 minutes. Last run on
2026-11-29: Linux 6.12.117, libvirt 11.3.0, QEMU 10.0.13.

SELinux (Fedora) is not tested. The memory file needs the type `svirt_image_t`. armvm sets it as
root and in session mode. As an ordinary user of the system daemon, run the command that `armvm
doctor` prints. Other confined machines can then open this pool's disks of machines that are off.
"""


def render(results: Path) -> str:
    """Return the whole page."""
    known = json.loads(results.read_text())
    rows = {(row["suite"], row["role"], row["feature"]): row for row in known["results"]}
    strange = {row["feature"] for row in known["results"]} - set(FEATURES)
    if strange:
        raise ValueError(f"unknown features in the results: {strange}")
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
