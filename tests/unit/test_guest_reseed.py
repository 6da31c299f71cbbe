"""A seed rewritten for a clone: armvm's values change, the user's stay."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from armvm.base.errors import StorageError
from armvm.guest.cloudinit.archive import taken_apart
from armvm.guest.cloudinit.documents import Documents, compose
from armvm.guest.cloudinit.reseed import reidentified, renamed
from armvm.guest.identity import new_identity
from armvm.settings.machine import Machine
from tests.unit.host_tools import IDENTITY

OTHER = new_identity("new")
USERS = """#cloud-config
packages: [nginx]
bootcmd: [echo mine]
write_files:
  - {path: /x, content: "one\\ntwo é\\n"}
"""
MIME = """Content-Type: multipart/mixed; boundary="x"
MIME-Version: 1.0

--x
Content-Type: text/cloud-config

users: [bob]

--x--
"""


def seed(user_data: str | None = None) -> Documents:
    return compose(Machine(name="old", user_data=user_data), IDENTITY, "debian")


def config(text: str) -> dict[str, Any]:
    assert text.startswith("#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@pytest.mark.parametrize("user_data", [None, USERS])
def test_renamed_changes_the_host_name_and_nothing_else(user_data: str | None) -> None:
    before = seed(user_data)
    after = renamed(before.files(), "old", "new")
    assert config(after.user_data) == {**config(before.user_data), "hostname": "new"}
    meta = yaml.safe_load(before.meta_data)
    assert yaml.safe_load(after.meta_data) == {**meta, "local-hostname": "new"}
    assert (after.network_config, after.vendor_data) == (before.network_config, before.vendor_data)


def test_a_host_name_of_the_users_own_stays() -> None:
    before = seed("#cloud-config\nhostname: mine\n")
    assert config(renamed(before.files(), "old", "new").user_data)["hostname"] == "mine"


@pytest.mark.parametrize("user_data", [None, USERS])
def test_a_copy_has_another_identity(user_data: str | None) -> None:
    before = seed(user_data)
    after = reidentified(before.files(), "old", "new", OTHER)
    told, was = config(after.user_data), config(before.user_data)
    assert told["ssh_keys"]["ed25519_private"] == OTHER.host_key.private
    assert told["hostname"] == "new"
    assert yaml.safe_load(after.meta_data)["instance-id"] == OTHER.instance_id
    assert told["bootcmd"][1:] == was.get("bootcmd", [])
    own = {"ssh_keys", "hostname", "bootcmd", "ssh_deletekeys"}
    assert {key: told[key] for key in told.keys() - own} == {
        key: was[key] for key in was.keys() - own
    }
    again = config(reidentified(after.files(), "new", "third", IDENTITY).user_data)
    assert len(again["bootcmd"]) == len(told["bootcmd"]), "the order of its original is gone"
    assert again["hostname"] == "third"


def test_beside_a_script_it_is_the_vendor_data_that_changes() -> None:
    before = seed("#!/bin/sh\necho hi\n")
    after = reidentified(before.files(), "old", "new", OTHER)
    assert after.user_data == before.user_data
    assert config(after.vendor_data)["ssh_keys"]["ed25519_public"] == OTHER.host_key.public


@pytest.mark.parametrize("theirs", ["## template: jinja\n#cloud-config\nusers: [é]\n", MIME])
def test_beside_a_template_or_an_archive_it_is_armvms_part_that_changes(theirs: str) -> None:
    before = seed(theirs)
    after = reidentified(before.files(), "old", "new", OTHER)
    was, told = taken_apart(before.user_data), taken_apart(after.user_data)
    assert was and told
    assert was[0] == told[0] == theirs
    assert config(was[1])["ssh_keys"]["ed25519_public"] == IDENTITY.host_key.public
    document = config(told[1])
    assert document["ssh_keys"]["ed25519_public"] == OTHER.host_key.public
    assert (document["hostname"], document["merge_how"]) == ("new", config(was[1])["merge_how"])
    again = taken_apart(renamed(after.files(), "new", "third").user_data)
    assert again and config(again[1])["hostname"] == "third"
    assert after.vendor_data == before.vendor_data


@pytest.mark.parametrize(
    "change",
    [
        {"meta-data": b"- a list"},
        {"user-data": b"#cloud-config\n{"},
        {"user-data": b"#cloud-config\n[]\n- x"},
        {"user-data": b"\xff\xfe"},
        {"meta-data": b""},
    ],
)
def test_a_seed_of_somebody_elses_is_refused(change: dict[str, bytes]) -> None:
    files = {**seed().files(), **change}
    with pytest.raises(StorageError):
        renamed(files, "old", "new")
    del files["user-data"]
    with pytest.raises(StorageError):
        renamed(files, "old", "new")


@pytest.mark.parametrize("journal", [True, False])
def test_the_machine_id_is_changed_once(tmp_path: Path, journal: bool) -> None:
    """The script itself, in a directory that stands in for the guest's root."""
    identity = replace(OTHER, uuid="a" * 8 + "-bbbb-4ccc-8ddd-" + "e" * 12)
    document = config(reidentified(seed().files(), "old", "new", identity).user_data)
    [*_, script] = document["bootcmd"][0]
    new, old = identity.uuid.replace("-", ""), "0" * 32
    for name in ("etc", "var/lib/dbus", f"var/log/journal/{old}" if journal else "var/log"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text(old + "\n")
    (tmp_path / "var/lib/dbus/machine-id").write_text(old + "\n")
    script = script.replace("/etc/", f"{tmp_path}/etc/").replace("/var/", f"{tmp_path}/var/")
    for _ in range(2):
        subprocess.run(["sh", "-e", "-c", script], check=True)
        assert (tmp_path / "etc/machine-id").read_text() == new + "\n"
        assert (tmp_path / "var/lib/dbus/machine-id").read_text() == new + "\n"
        assert (tmp_path / f"var/log/journal/{new}").exists() is journal
        assert not (tmp_path / f"var/log/journal/{old}").exists()
