"""Goldens made unasked, and from machines: the configuration, names, conditions."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base import process
from armvm.base.errors import ArmvmError, Conflict, MissingCapability, UsageError
from armvm.base.progress import Quiet
from armvm.guest.boot.ready import Boot
from armvm.guest.boot.serial import Stage
from armvm.images.model import FromImage
from armvm.provision.access.ssh import Endpoint
from armvm.provision.golden.choose import Warm, no_image, warm_for
from armvm.provision.golden.source import from_machine
from armvm.provision.launch.auto_golden import bake_after, golden_name, settings_of
from armvm.provision.launch.launch import Created
from armvm.provision.machine.create import Where
from armvm.provision.machine.plan import CreatePlan, plan
from armvm.provision.monitor.wait import Ready
from armvm.settings.config_file import file_layer
from armvm.settings.layers import environment_layer, resolve
from armvm.settings.machine import Machine
from armvm.settings.warm import Policy, policy
from tests.unit.host_tools import IDENTITY, INSTANCE, TCG_HOST, facts_of

FACTS = facts_of(TCG_HOST)
MACHINE = Machine(
    name="one", cpus=3, memory_mib=1536, disk=7 << 30, image="local:debian-12", user="alice",
    network="user", cpu_model="cortex-a72", headless=True, autologin=False, preset="minimal",
)  # fmt: skip


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("one", list(Policy), ids=lambda one: one.value)
def test_the_policy_is_read_from_the_first_place_that_has_it(tmp_path: Path, one: Policy) -> None:
    mine = write(tmp_path / "mine.toml", f'warm = "{one.value}"\n[machine]\ncpus = 4\n')
    none = write(tmp_path / "none.toml", "[machine]\ncpus = 4\n")
    other = write(tmp_path / "other.toml", 'warm = "never"\n')
    assert policy({}, [tmp_path / "absent.toml", none, mine, other]) is one
    assert policy({"ARMVM_WARM": one.value}, [other]) is one
    assert file_layer(mine).values == {"cpus": 4}


def test_without_a_word_goldens_are_used_and_none_is_made() -> None:
    assert policy({"ARMVM_WARM": ""}, []) is Policy.USE


@pytest.mark.parametrize("text", ['warm = "Auto"', "warm = true", "warm = []", 'warm = ""'])
def test_a_policy_that_is_none_names_its_place(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "config.toml", text)
    with pytest.raises(ArmvmError, match=str(file)) as caught:
        policy({}, [file])
    assert "auto, use, never" in str(caught.value.hint)
    with pytest.raises(ArmvmError, match="ARMVM_WARM"):
        policy({"ARMVM_WARM": "sometimes"}, [file])


def test_the_policy_is_no_machines_setting(tmp_path: Path) -> None:
    file = write(tmp_path / "config.toml", '[machine]\nwarm = "auto"\n')
    with pytest.raises(ArmvmError, match=r"above \[machine\]"):
        file_layer(file)


@pytest.mark.parametrize(
    ("one", "asked", "cold", "warm"),
    [
        (Policy.USE, None, False, Warm()),
        (Policy.USE, "gold", False, Warm(asked="gold")),
        (Policy.AUTO, None, False, Warm(bake=True)),
        (Policy.AUTO, None, True, Warm(cold=True, bake=True)),
        (Policy.NEVER, None, False, Warm(cold=True)),
        (Policy.NEVER, "gold", False, Warm(asked="gold")),
    ],
)
def test_flags_beat_the_policy(one: Policy, asked: str | None, cold: bool, warm: Warm) -> None:
    assert warm_for(asked, cold=cold, policy=one) == warm


def test_from_and_cold_exclude_each_other_under_every_policy() -> None:
    for one in Policy:
        with pytest.raises(UsageError):
            warm_for("gold", cold=True, policy=one)


def test_the_settings_handed_to_the_bake_make_the_same_machine() -> None:
    settings = settings_of(MACHINE)
    values = {key: one.value for key, one in resolve([environment_layer(settings)]).items()}
    assert values == {
        "cpus": 3, "mem": 1536, "disk": 7 << 30, "image": "local:debian-12", "user": "alice",
        "network": "user", "ip": None, "cpu": "cortex-a72", "headless": True, "autologin": False,
        "motd": True, "fast": False, "tuned": False,
    }  # fmt: skip
    assert settings["ARMVM_PRESET"] == "minimal"


def test_what_was_not_asked_for_is_left_open() -> None:
    assert {"ARMVM_USER", "ARMVM_CPU"}.isdisjoint(settings_of(Machine(name="one")))


def test_a_name_stands_for_shape_and_ground() -> None:
    name = golden_name({"cpus": 2}, {"QEMU": "a"})
    assert name == golden_name({"cpus": 2}, {"QEMU": "a"})
    assert len({name, golden_name({"cpus": 3}, {"QEMU": "a"}), golden_name({}, {"QEMU": "b"})}) == 3
    Machine(name=name)  # a name that a machine may have


def planned(machine: Machine) -> CreatePlan:
    source = FromImage(reference=machine.image, location="local:debian-12")
    return plan(
        machine, source, FACTS, IDENTITY, pool="armvm", pool_path="/pool", version="0", now=""
    )


def created(decided: CreatePlan, **record: Any) -> Created:
    instance = replace(
        INSTANCE, name="one", cpus=3, memory_mib=1536, record=replace(decided.record, **record)
    )
    endpoint = Endpoint(host="127.0.0.1", port=1)
    ready = Ready(instance=instance, endpoint=endpoint, boot=Boot(seen={Stage.READY: 90.0}))
    return Created(instance=instance, ready=ready)


@pytest.mark.parametrize(
    ("warm", "machine", "record", "waited"),
    [
        (Warm(), {}, {}, True),
        (Warm(bake=True, cold=True), {}, {}, True),
        (Warm(bake=True, asked="gold"), {}, {}, True),
        (Warm(bake=True), {"user_data": "#cloud-config\n"}, {}, True),
        (Warm(bake=True), {"password_hash": "$2b$x"}, {}, True),
        (Warm(bake=True), {"fast": True}, {}, True),
        (Warm(bake=True), {}, {"golden": "gold"}, True),
        (Warm(bake=True), {}, {}, False),
    ],
    ids=["use", "--cold", "--from", "user-data", "password", "--fast", "a clone", "--no-wait"],
)
def test_where_none_is_baked(
    warm: Warm, machine: dict[str, Any], record: dict[str, Any], waited: bool
) -> None:
    """libvirt is not called: the test does not have a connection."""
    decided = planned(replace(MACHINE, **machine))
    made = created(decided, **record)
    if not waited:
        made = replace(made, ready=None)
    where = Where(connection=None, facts=FACTS)
    assert bake_after(where, decided, made, warm, Quiet()) is None


def test_a_machines_disk_is_no_image_that_could_be_booted() -> None:
    source = from_machine("web-01", uuid="0-0", now="2026", system="debian 12")
    assert (source.reference, source.digest) == ("machine:web-01", "machine:0-0 2026")
    error = no_image("golden web cannot be used", source)
    assert isinstance(error, Conflict)
    assert error.hint is not None
    assert error.hint.endswith("golden create --from web-01")


def test_a_detached_program_lives_on_and_logs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    code = (
        "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '');"
        "print(os.environ['ARMVM_TEST'], file=sys.stderr)"
    )
    child = process.detach([sys.executable, "-c", code], log, env={"ARMVM_TEST": "told"})
    os.waitpid(child, 0)
    lines = log.read_text().splitlines()
    assert lines[0] == "before"
    assert sorted(lines[1:]) == ["True True", "told"]


def test_a_detached_programs_log_is_its_owners(tmp_path: Path) -> None:
    os.waitpid(process.detach(["true"], tmp_path / "log"), 0)
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    with pytest.raises(MissingCapability):
        process.detach(["no-such-program"], tmp_path / "log")
