"""What tests/hosts/apparmor runs in a machine whose kernel enforces AppArmor.

Nothing here boots a guest: that would take an emulated emulator an hour. A golden is saved while
its firmware runs, and its clone is looked at before it goes on. Prints what it sees, and `passed`
at the end.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from armvm.base.errors import ArmvmError
from armvm.base.progress import Quiet
from armvm.host import confinement, facts
from armvm.host.connection import SESSION, SYSTEM, connect
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import build
from armvm.host.domain.golden_domain import definition_of_clone, find_golden
from armvm.host.domain.handle import observed
from armvm.host.memory import route
from armvm.host.storage import pools, volumes
from armvm.host.xml import to_text
from armvm.images.model import Image
from armvm.provision.golden import bake
from armvm.provision.image import find
from armvm.provision.machine import create
from armvm.provision.machine.create import Where
from armvm.provision.machine.delete import delete_domain
from armvm.provision.machine.own_disk import delete_machine_volumes
from armvm.provision.machine.plan import CreatePlan
from armvm.settings.machine import Machine

ARMVM = [".venv/bin/armvm"]
RULES = Path("/etc/apparmor.d/local/abstractions/libvirt-qemu")
IMAGE = Path("/var/tmp/blank.qcow2")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5TrQyXHkeoYCLSgdGUqt2zXOdhA1DYl7aaWXdiTvTr test"
POOLS = Path("/srv/pools of mine")
TESTS: list[Callable[[], None]] = []
BEGUN = time.monotonic()


def test(function: Callable[[], None]) -> Callable[[], None]:
    """Have a function called, in the order of the file."""
    TESTS.append(function)
    return function


def say(*words: object) -> None:
    """Print a line with the time that has passed."""
    print(f"[{time.monotonic() - BEGUN:6.0f} s]", *words, flush=True)


def run(*command: str, code: int | None = 0) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout.strip()


def show(text: str) -> str:
    """Print a program's output, indented."""
    for line in text.splitlines():
        print(f"           {line}", flush=True)
    return text


def check() -> Any:
    """Return doctor's word on the shared memory."""
    found = json.loads(run(*ARMVM, "doctor", "--json", code=None))
    (one,) = [one for one in found if one["name"] == "shared memory"]
    return one


def where(pool: str = pools.DEFAULT_POOL) -> Where:
    """Return where machines are made."""
    connection = connect(SYSTEM)
    return Where(connection=connection, facts=facts.observe(connection), pool=pool)


def plan(name: str, here: Where) -> tuple[CreatePlan, Image]:
    """Plan a machine whose memory is in a file."""
    source = find.locate(str(IMAGE), Quiet())
    machine = Machine(
        name=name, image=str(IMAGE), ssh_keys=(KEY,), cpus=1, memory_mib=256, network="user"
    )
    made = create.make_plan(here, machine, source)
    file = str(Path(made.spec.overlay).with_name(volumes.volume_names(name)["memory"]))
    spec = replace(made.spec, memory_file=file, memory_route=route.COW)
    return replace(made, spec=spec), find.obtain(source, Quiet())


def profile(name: str) -> tuple[int, str]:
    """Return the process of a machine and what confines it."""
    pid = int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())
    return pid, Path(f"/proc/{pid}/attr/current").read_text().strip()


def make_golden(name: str, here: Where) -> None:
    """Make a golden while its firmware runs."""
    planned, image = plan(name, here)
    domain = create.apply(here, planned, image, start=True, progress=Quiet())
    pid, confined = profile(name)
    say(f"{name}: QEMU is process {pid}, AppArmor profile {confined}")
    assert confined == f"libvirt-{domain.UUIDString()} (enforce)"
    bake.save(here, domain, planned, image.digest)


def start_clone(name: str, origin: str, here: Where) -> Any:
    """Start a clone of a golden, paused; return its domain."""
    found = find_golden(here.connection, origin)
    planned, _ = plan(name, here)
    spec = replace(planned.spec, memory_file=None)
    pool = pools.ensure_pool(here.connection, here.pool, here.facts)
    theirs, names = volumes.volume_names(origin), volumes.volume_names(name)
    domain = lifecycle.define(here.connection, to_text(build(spec, planned.record)), name)
    try:
        volumes.write_volume(here.connection, pool, names["seed"], bytes(1 << 20))
        below = volumes.need_volume(pool, theirs["overlay"])
        volumes.create_overlay(pool, names["overlay"], below, planned.machine.disk)
        element = definition_of_clone(found, spec, planned.record)
        route.route(found.mark.route).load(here.connection, pool, origin, element)
    except BaseException:
        delete_domain(observed(here.connection, domain))
        raise
    return domain


def remove(here: Where, *names: str) -> None:
    """Remove machines and goldens."""
    for name in names:
        domain = here.connection.lookupByName(name)
        pool = pools.ensure_pool(here.connection, here.pool, here.facts)
        lifecycle.destroy(domain)
        lifecycle.undefine(domain)
        delete_machine_volumes(pool, name)


@test
def apparmor_confines_the_system_daemons_machines() -> None:
    say("Linux", platform.release(), "Python", platform.python_version())
    say(run("libvirtd", "--version"))
    say(run("qemu-system-aarch64", "--version").splitlines()[0])
    show("\n".join(run("aa-status").splitlines()[:4]))
    assert confinement.apparmor_confines()
    assert confinement.APPARMOR in where().facts.security
    say("system daemon:", sorted(where().facts.security))


@test
def doctor_names_the_cure() -> None:
    assert not RULES.exists()
    found = check()
    say(found["found"])
    show(found["fix"])
    assert not found["ok"]
    assert not found["needed"]
    assert "AppArmor" in found["found"]


@test
def without_the_rule_a_golden_falls_back_and_says_why() -> None:
    told = run(
        *ARMVM, "golden", "create", "denied", "--image", str(IMAGE), "--mem", "256M", "--cpus", "1",
        "--network", "user", "--timeout", "5", code=None,
    )  # fmt: skip
    show(told)
    assert "AppArmor denies QEMU access to its memory file" in told
    assert "falling back to a save image" in told
    assert confinement.allowing(pools.SYSTEM_POOL_PATH) in " ".join(told.split())
    assert "denied" not in run("virsh", "list", "--all", "--name").split()
    show(run("journalctl", "-k", "-g", r"DENIED.*\.memory", "-o", "cat", "-n", "2"))


@test
def setup_writes_the_rule_once() -> None:
    said = run("scripts/setup")
    show(said)
    assert "AppArmor" in said
    before = RULES.read_text()
    show(before)
    assert before == "/var/lib/libvirt/images/armvm/*.memory rwk,\n"
    again = run("scripts/setup")
    show(again or "(the second time it says nothing)")
    assert "AppArmor" not in again
    assert RULES.read_text() == before
    assert check()["ok"], check()


@test
def with_the_rule_memory_is_shared() -> None:
    here = where()
    make_golden("origin", here)
    clone = start_clone("clone", "origin", here)
    pid, confined = profile("clone")
    maps = [one for one in Path(f"/proc/{pid}/maps").read_text().splitlines() if ".memory" in one]
    say(f"clone: QEMU is process {pid}, AppArmor profile {confined}")
    show("\n".join(maps))
    assert confined.endswith("(enforce)")
    assert maps
    assert maps[0].split()[1] == "rw-p", "it is mapped privately"
    show("\n".join(run("aa-status").splitlines()[-8:]))
    lifecycle.destroy(clone)
    remove(here, "clone")


@test
def a_clone_that_is_denied_names_the_cure() -> None:
    here = where()
    RULES.write_text("")
    try:
        start_clone("clone", "origin", here)
    except ArmvmError as error:
        show(error.message)
        cause, cure = confinement.explain(error, pools.SYSTEM_POOL_PATH, here.facts)
        say(cause)
        assert cause == "AppArmor denies QEMU access to its memory file"
        assert cure == confinement.allowing(pools.SYSTEM_POOL_PATH)
    else:
        raise AssertionError("it was not denied")
    remove(here, "origin")


@test
def the_command_that_is_named_helps_another_pool() -> None:
    POOLS.mkdir()
    (POOLS / "real").mkdir(mode=0o711)
    Path("/srv/pool").symlink_to(POOLS / "real")
    run("virsh", "pool-define-as", "mine", "dir", "--target", "/srv/pool")
    run("virsh", "pool-start", "mine")
    here = where("mine")
    found = confinement.obstacle("/srv/pool", here.facts)
    assert found is not None
    show(found[1])
    run("sh", "-c", found[1].replace("sudo ", ""))
    show(RULES.read_text())
    assert confinement.obstacle("/srv/pool", here.facts) is None
    make_golden("other", here)
    remove(here, "other")


@test
def a_users_own_daemon_confines_nothing() -> None:
    told = run("runuser", "-u", "tester", "--", "virsh", "-c", SESSION, "capabilities", code=None)
    models = re.findall(r"<model>(apparmor|selinux|dac|none)</model>", told)
    say("a user's own daemon:", models)
    assert "</capabilities>" in told, told
    assert "apparmor" not in models


def main() -> int:
    """Run all, whatever becomes of one; return the exit code."""
    run("qemu-img", "create", "-q", "-f", "qcow2", str(IMAGE), "64M")
    failed = []
    for one in TESTS:
        say(f"---- {one.__name__}")
        try:
            one()
        except Exception:
            failed.append(one.__name__)
            traceback.print_exc(file=sys.stdout)
    for path in Path("/var/log/libvirt/qemu").glob("*.log") if failed else ():
        say(path)
        show(path.read_text()[-2000:])
    print("failed: " + " ".join(failed) if failed else "passed", flush=True)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
