"""Measure single changes to a cold boot: the same guest, started in several ways, interleaved.

Run by hand, on an idle machine, from a source tree with its virtual environment:

    .venv/bin/python -m benchmarks.levers --list
    .venv/bin/python -m benchmarks.levers --rounds 2 --output levers.json today fast
    .venv/bin/python -m benchmarks.levers --table docs/benchmarks/levers.json

Each run creates a domain ``levers-PID`` with armvm's own modules (template, seed, storage), applies
the arm's changes and starts it. Five times a second it checks the serial log, whether ssh answers,
and whether cloud-init has finished. Seconds count from the start of the domain. Then the domain is
removed. The host's CPUs limit an emulated boot, so the results also contain QEMU's CPU time, the
CPU time of other work, which raises QEMU's, and how often QEMU discarded its translated code and
its translated addresses. All arms use QEMU's user networking, because libvirt's networks add
delays (spanning tree, dnsmasq) that are not measured here. Runs are appended to the output file,
so a series can be made in parts. ``--logs DIR`` keeps the guest's own boot logs. One boot takes
about a minute under emulation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from armvm import __version__
from armvm.base import process
from armvm.base.progress import Quiet
from armvm.guest.boot.ready import answers_ssh
from armvm.guest.boot.serial import clean
from armvm.guest.cloudinit import documents
from armvm.guest.cloudinit.seed import seed_image
from armvm.host.console.serial_log import read_tail
from armvm.host.domain import lifecycle
from armvm.host.domain.domain_xml import DirectKernel, build
from armvm.host.domain.instance import find_domain, observe
from armvm.host.network.ssh_forward import ensure_forward, monitor
from armvm.host.storage import pools, volumes
from armvm.host.storage.base_image import ensure_base
from armvm.host.xml import to_text
from armvm.images.cache.store import Cache
from armvm.images.kernel import boot_files
from armvm.images.model import Image
from armvm.provision.access.ssh import LOOPBACK, Endpoint, run_in_guest
from armvm.provision.connect import where
from armvm.provision.launch.launch import decide, with_image
from armvm.provision.machine.create import Where
from armvm.provision.machine.credentials import login_keys
from armvm.provision.machine.fast import write_kernel
from armvm.provision.machine.own_disk import delete_machine_volumes
from armvm.settings.machine import Machine
from benchmarks.lever_arms import ARMS, Setup, all_code, all_modules, network_stage
from benchmarks.lever_table import table

IMAGE = "local:debian-12"
PATIENCE = 480.0
#: Patterns in the serial log, by their name in the results.
SIGNS = {
    "kernel": re.compile(r"^EFI stub: |Booting Linux on physical CPU", re.M),
    "systemd": re.compile(r"systemd\[1\]: |^Welcome to (?!GRUB)", re.M),
    "local": re.compile(r"Cloud-init v\.? \S+ running 'init-local'"),
    "init": re.compile(r"Cloud-init v\.? \S+ running 'init'"),
    "config": re.compile(r"Cloud-init v\.? \S+ running 'modules:config'"),
    "final": re.compile(r"Cloud-init v\.? \S+ running 'modules:final'"),
    "finished": re.compile(r"Cloud-init v\.? \S+ finished at "),
}


def _documents(setup: Setup, composed: documents.Documents) -> documents.Documents:
    """Return the machine's documents with the arm's user-data keys; None removes a key."""
    config = {**yaml.safe_load(composed.user_data), **setup.config}
    config = {key: value for key, value in config.items() if value is not None}
    meta = yaml.safe_load(composed.meta_data)
    if not setup.local:
        meta.pop("dsmode", None)
    return replace(
        composed,
        user_data="#cloud-config\n" + yaml.safe_dump(config, sort_keys=False),
        meta_data=yaml.safe_dump(meta),
    )


def _packed_base(place: Where, pool: Any, image: Image) -> Any:
    """Return a base with the same disk as compressed qcow2; created once."""
    digest = f"{image.digest[:-8]}00000000"
    packed = Path(f"/var/tmp/armvm-levers-{image.digest[-12:]}.qcow2")  # noqa: S108
    if not packed.exists():
        process.run(
            ["qemu-img", "convert", "-c", "-O", "qcow2", image.path, f"{packed}.new"], timeout=600
        )
        Path(f"{packed}.new").rename(packed)
    return ensure_base(place.connection, pool, digest, packed, progress=Quiet())


def run(arm: str, until: str, logs: Path | None) -> dict[str, Any]:
    """Boot the machine once with *arm*, remove it, and return the times of its stages."""
    place = where(None, None)
    keys, own = login_keys([])
    setup = Setup(
        machine=Machine(
            name=f"levers-{os.getpid()}", image=IMAGE, ssh_keys=keys, own_key=own, network="user"
        )
    )
    # Undo changes that armvm has adopted since, so that the meaning of an arm stays the same.
    stages = () if arm.startswith("armvm") else (all_modules, network_stage)
    for lever in (all_code, *stages, *ARMS[arm]):
        lever(setup)
    machine = setup.machine
    plan = decide(place, machine, Quiet())
    _, image = with_image(place, plan, timeout=None, progress=Quiet())
    pool = pools.ensure_pool(place.connection, place.pool, place.facts)
    names = volumes.volume_names(machine.name)
    spec = plan.spec
    if setup.kernel:
        files = boot_files(image, cache=Cache.default())
        directory = Path(spec.overlay).parent
        kernel = DirectKernel(
            kernel=str(directory / names["kernel"]),
            initrd=str(directory / names["initrd"]),
            command_line=files.command_line + setup.command_line,
        )
        spec = replace(spec, kernel=kernel)
        write_kernel(place.connection, pool, machine.name, files)
    element = build(spec, plan.record)
    setup.domain(element)
    domain = None
    try:
        composed = documents.compose(machine, plan.identity, plan.record.user)
        seed = seed_image(_documents(setup, composed))
        volumes.write_volume(place.connection, pool, names["seed"], seed)
        if setup.compressed:
            base = _packed_base(place, pool, image)
        else:
            base = ensure_base(place.connection, pool, image.digest, image.path, progress=Quiet())
        volumes.create_overlay(pool, names["overlay"], base, machine.disk)
        domain = lifecycle.define(place.connection, to_text(element), machine.name)
        begun = time.monotonic()
        busy = _busy()
        lifecycle.start(domain)
        port = ensure_forward(domain, plan.record.forward or 0, ())
        seen, cpu = _watch(place, domain, spec.serial_log, port, begun, until)
        counts = _counts(domain)
        others = _busy() - busy - max(cpu.values(), default=0.0)
        if logs is not None:
            _keep(logs, arm, plan, port, place)
        return {
            "arm": arm,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": seen,
            "cpu_seconds": cpu,
            "others_cpu_seconds": round(others, 1),
            **counts,
        }
    finally:
        if domain is not None:
            lifecycle.destroy(domain)
            lifecycle.undefine(domain)
        delete_machine_volumes(pool, machine.name)


def _busy() -> float:
    """Return this host's CPU seconds since boot, without idle and I/O wait time."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(word) for word in words[:7])
    return float(user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _watch(
    place: Where, domain: Any, path: str, port: int, begun: float, until: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds until each sign appeared, and QEMU's CPU time until then."""
    seen: dict[str, float] = {}
    cpu: dict[str, float] = {}
    while not seen.keys() >= {"login", until}:
        now = time.monotonic() - begun
        if now > PATIENCE:
            break
        log = clean(read_tail(place.connection, path, local=True))
        for name, sign in SIGNS.items():
            if name not in seen and sign.search(log):
                seen[name] = round(now, 1)
        if "ssh" not in seen and "local" in seen and answers_ssh("127.0.0.1", port, timeout=1.0):
            seen["ssh"] = round(time.monotonic() - begun, 1)
        elif "ssh" in seen and "login" not in seen and _true(domain, port) is not None:
            seen["login"] = round(time.monotonic() - begun, 1)
        for name in seen.keys() - cpu.keys():
            cpu[name] = round(domain.info()[4] / 1e9, 1)
        time.sleep(0.2)
    return seen, cpu


def _counts(domain: Any) -> dict[str, int]:
    """Return how often QEMU discarded all translated code, and translated addresses."""
    told = monitor(domain, "info jit")

    def count(name: str) -> int:
        return sum(int(found) for found in re.findall(rf"{name}\s+(\d+)", told))

    return {
        "tb_flushes": count("TB flush count"),
        "tlb_flushes": count("TLB (?:full|partial) flushes"),
    }


def _true(domain: Any, port: int) -> str | None:
    """Run an ssh command in the guest; return None if it fails, as before the key is installed."""
    return run_in_guest(observe(domain), Endpoint(host=LOOPBACK, port=port), "true")


def _keep(logs: Path, arm: str, plan: Any, port: int, place: Where) -> None:
    """Save the guest's own boot logs."""
    instance = observe(find_domain(place.connection, plan.machine.name))
    commands = (
        "cat /proc/cmdline; systemd-analyze; systemd-analyze blame | head -40; cloud-init "
        "analyze blame; sudo cat /run/cloud-init/result.json /var/log/cloud-init.log; sudo dmesg"
    )
    text = run_in_guest(instance, Endpoint(host=LOOPBACK, port=port), commands)
    logs.mkdir(parents=True, exist_ok=True)
    (logs / f"{arm}.txt").write_text(text or "no answer")


def main() -> None:
    """Run the arms given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("arms", nargs="*", choices=[*ARMS, []])
    parser.add_argument("--list", action="store_true", help="print the arms")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--until", choices=["login", "finished"], default="finished", help="the end of a run"
    )
    parser.add_argument("--output", type=Path, default=Path("levers.json"))
    parser.add_argument("--logs", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of a results file")
    parser.add_argument("--budget", type=float, default=1e9, help="start no run after SECONDS")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(ARMS))
        return
    if asked.table:
        print(table(json.loads(asked.table.read_text())["runs"]))
        return
    begun = time.monotonic()
    for _ in range(asked.rounds):
        for arm in asked.arms:
            if time.monotonic() - begun > asked.budget:
                print(f"no time left for {arm}")
                continue
            one = run(arm, asked.until, asked.logs)
            print(arm, json.dumps(one["seconds"]), flush=True)
            _append(asked.output, one)


def _append(file: Path, one: dict[str, Any]) -> None:
    document: dict[str, Any] = {"host": _host(), "runs": []}
    if file.exists():
        document = json.loads(file.read_text())
    document["runs"].append(one)
    file.write_text(json.dumps(document, indent=1) + "\n")


def _host() -> dict[str, Any]:
    facts = where(None, None).facts
    qemu = process.run([facts.emulator, "--version"])
    return {
        "armvm": __version__,
        "image": IMAGE,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "qemu": qemu.text.splitlines()[0],
        "libvirt": facts.libvirt_version,
        "machine_type": facts.machine_type,
    }


if __name__ == "__main__":
    main()
