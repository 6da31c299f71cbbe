"""The time to the guest's kernel: from a cold start, and after a reboot of a guest that worked."""

from __future__ import annotations

import time
from pathlib import Path

from lxml import etree

from armvm.base.errors import DomainError, NotReady
from benchmarks.case import Case, Figure, Reading
from benchmarks.world import URI, World, need_root

#: The kernel's first line on the serial console.
KERNEL = b"Booting Linux on physical CPU"
#: Seconds of work before the reboot: ten minutes.
WORK = 600
#: Seconds for the command that reboots to end, so that its reset is not missed.
DELAY = 5
#: Seconds to wait for the kernel.
TIMEOUT = 900.0
_POLL = 0.05
#: Short processes, Python's modules and its compiler: like a build, much code in many pages.
_SCRIPT = f"""end=$(($(date +%s) + {WORK}))
while [ $(date +%s) -lt $end ]; do
  for one in 1 2 3 4 5 6 7 8 9 10; do sh -c 'ls -lR /etc | sort | md5sum' >/dev/null; done
  python3 -c 'import asyncio, email.message, http.client, json, unittest, xml.dom.minidom'
  cp -r /usr/lib/python3/dist-packages/yaml /tmp/work
  python3 -m compileall -q -f /tmp/work
  rm -r /tmp/work
done"""


def _reboot(world: World) -> list[Reading]:
    """Start a machine that was off, let it work, and reboot it from inside."""
    with world.removed(world.name("reboot")) as name:
        words = (world.armvm, "create", "--cold", "--preset", "minimal", "--network", "user")
        world.run(*words, "--image", world.reference, "--name", name)
        world.run(world.armvm, "stop", name)
        world.virsh("start", name)
        start = _kernel_after(world, name, 1)
        world.run(world.armvm, "wait", name)
        world.run(world.armvm, "ssh", name, "--", _SCRIPT, timeout=2 * WORK)
        later = ("sudo", "systemd-run", f"--on-active={DELAY}", "systemctl", "reboot")
        world.run(world.armvm, "ssh", name, "--", *later)
        _until_reset(world, name)
        reboot = _kernel_after(world, name, 2)
    return [
        Reading(figure="start-kernel", value=start),
        Reading(figure="reboot-warm", value=reboot),
    ]


def _until_reset(world: World, name: str) -> None:
    """Return as soon as QEMU has reset the machine."""
    words = ("event", "--domain", name, "--event", "reboot", "--timeout", f"{TIMEOUT:.0f}")
    world.run("virsh", "-q", "-c", URI, *words, timeout=TIMEOUT + 60)


def _kernel_after(world: World, name: str, count: int) -> float:
    """Return the seconds until the serial log has *count* kernels' first lines."""
    begun = time.perf_counter()
    log = _serial_log(world.virsh("dumpxml", name))
    while log.read_bytes().count(KERNEL) < count:
        if time.perf_counter() - begun > TIMEOUT:
            raise NotReady(f"{name}: no kernel after {TIMEOUT:g} s")
        time.sleep(_POLL)
    return time.perf_counter() - begun


def _serial_log(xml: str) -> Path:
    log = etree.fromstring(xml).find("devices/serial/log")
    if log is None:
        raise DomainError("the domain has no serial log")
    return Path(str(log.get("file")))


CASES = [
    Case(
        group="reboot",
        figures=(
            Figure(key="start-kernel", title="start of a machine → its kernel"),
            Figure(key="reboot-warm", title="reset of a machine that worked 10 min → its kernel"),
        ),
        run=_reboot,
        why_not=need_root,
        once=True,
    ),
]
