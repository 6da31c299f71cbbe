"""Fleet files: names and places of machines, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base.errors import ConfigError, NotFound
from armvm.settings.fleet import Fleet, read_fleet
from armvm.settings.table import SETTINGS

HOSTS = ("lab1", "lab2")


def read(tmp_path: Path, text: str) -> Fleet:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    return read_fleet(file, HOSTS)


def placed(tmp_path: Path, table: str) -> list[tuple[str | None, str]]:
    found = read(tmp_path, f'fleet = "f"\n[machines.m]\n{table}\n')
    return [(one.on, one.name) for one in found.machines]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", [(None, "m")]),
        ('on = "lab1"', [("lab1", "m")]),
        ("count = 2", [(None, "m-01"), (None, "m-02")]),
        ("count = 0", []),
        ('on = "lab2"\ncount = 1', [("lab2", "m-01")]),
        ('each = ["lab1", "lab2"]', [("lab1", "m-lab1"), ("lab2", "m-lab2")]),
        (
            'each = ["lab2", "lab1"]\ncount = 2',
            [("lab2", "m-lab2-01"), ("lab2", "m-lab2-02"), ("lab1", "m-lab1-01"),
             ("lab1", "m-lab1-02")],
        ),
    ],
)  # fmt: skip
def test_names_and_places(
    tmp_path: Path, table: str, expected: list[tuple[str | None, str]]
) -> None:
    assert placed(tmp_path, table) == expected


def test_more_machines_or_hosts_rename_none(tmp_path: Path) -> None:
    before = placed(tmp_path, 'each = ["lab1"]\ncount = 2')
    assert set(before) < set(placed(tmp_path, 'each = ["lab2", "lab1"]\ncount = 2'))
    assert set(before) < set(placed(tmp_path, 'each = ["lab1"]\ncount = 100'))


def test_a_table_has_every_setting_of_create(tmp_path: Path) -> None:
    values = {key: one.example or one.write(one.default) for key, one in SETTINGS.items()}
    rows = "\n".join(f'{key} = "{value}"' for key, value in values.items())
    [machine] = read(tmp_path, f'fleet = "f"\n[machines.m]\n{rows}\npool = "fast"\n').machines
    assert machine.group.values == values
    assert machine.group.pool == "fast"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = """
fleet = "f"
[machines.m]
image = "./x.qcow2"
ssh-key = "key.pub"
user-data = ["a.yaml", "/etc/b.yaml"]
[machines.n]
image = "debian:12"
preset = "minimal"
"""
    first, second = (one.group for one in read(tmp_path, text).machines)
    assert first.values["image"] == str(tmp_path / "x.qcow2")
    assert first.ssh_keys == (tmp_path / "key.pub",)
    assert first.user_data == (tmp_path / "a.yaml", Path("/etc/b.yaml"))
    assert (second.values["image"], second.source) == ("debian:12", "debian:12")
    assert second.preset == "minimal"


def test_the_source_tells_no_secret(tmp_path: Path) -> None:
    text = 'fleet = "f"\n[machines.m]\nimage = "https://me:s3cret@x/y.qcow2?token=t0ken"\n'
    [machine] = read(tmp_path, text).machines
    assert "s3cret" in machine.group.values["image"]
    assert machine.group.source is not None
    assert not {"s3cret", "t0ken"} & set(machine.group.source.replace("@", ":").split(":"))
    [machine] = read(tmp_path, 'fleet = "f"\n[machines.m]\nfrom = "ci"\n').machines
    assert machine.group.source == "golden ci"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "fleet: a name is required"),
        ("fleet = 3", "fleet: expected a string"),
        ('fleet = "A b"', "fleet: invalid machine name 'A b'"),
        ('fleet = "f"\nmachine = 3', "machine: unknown entry"),
        ('fleet = "f"\nmachines = 3', "[machines]: expected tables"),
        ('fleet = "f"\n[machines]\nx = 3', "[machines.x]: expected a table"),
        ('fleet = "f"\n[machines.Bad]', "[machines.Bad]: invalid machine name 'Bad'"),
        ('fleet = "f"\n[machines.localhost]', "[machines.localhost]: 'localhost' cannot be used"),
        ('fleet = "f"\n[machines."a\\u001b[2J"]', "invalid machine name"),
        (f'fleet = "f"\n[machines.{"a" * 62}]\ncount = 1', "invalid machine name"),
        ('fleet = "f"\n[machines.m]\ncpu_s = 3', "[machines.m] cpu_s: unknown key"),
        ('fleet = "f"\n[machines.m]\ncpus = "x"', "[machines.m]: invalid cpus 'x'"),
        ('fleet = "f"\n[machines.m]\nmem = 1', "[machines.m]: mem: 1 MiB of memory"),
        ('fleet = "f"\n[machines.m]\non = "lab9"', "[machines.m] on: host 'lab9' not found"),
        ('fleet = "f"\n[machines.m]\non = 3', "[machines.m] on: expected the name of a host"),
        ('fleet = "f"\n[machines.m]\non = "lab1"\neach = ["lab2"]', "on and each cannot"),
        ('fleet = "f"\n[machines.m]\neach = []', "[machines.m] each: expected a list"),
        ('fleet = "f"\n[machines.m]\neach = "lab1"', "[machines.m] each: expected a list"),
        ('fleet = "f"\n[machines.m]\neach = ["lab1", "lab1"]', "a host is there twice"),
        ('fleet = "f"\n[machines.m]\ncount = -1', "[machines.m] count: expected an integer"),
        ('fleet = "f"\n[machines.m]\ncount = true', "[machines.m] count: expected an integer"),
        ('fleet = "f"\n[machines.m]\ncount = 1000000', "[machines.m] count: expected an integer"),
        ('fleet = "f"\n[machines.m]\nfrom = "ci"\nimage = "debian:12"', "image and from cannot"),
        ('fleet = "f"\n[machines.m]\nfrom = "../x"', "[machines.m] from: invalid machine name"),
        ('fleet = "f"\n[machines.m]\npreset = "none"', "[machines.m] preset: unknown preset"),
        ('fleet = "f"\n[machines.m]\npool = "a/b"', "[machines.m] pool: invalid pool name"),
        ('fleet = "f"\n[machines.m]\nuser-data = "-"', "[machines.m] user-data: expected the path"),
        ('fleet = "f"\n[machines.m]\nssh-key = [3]', "[machines.m] ssh-key: expected the path"),
        ('fleet = "f"\n[machines.m]\nip = "x"', "[machines.m]: ip: invalid IPv4 address 'x'"),
        ('fleet = "f"\n[machines.m]\nip = "10.0.0.5"\ncount = 2', "ip: ip and count cannot"),
        ('fleet = "f"\n[machines.m]\nip = "10.0.0.5"\neach = ["lab1"]', "ip: ip and each cannot"),
        ('fleet = "f"\n[machines.m]\nnetwork = 3', "[machines.m]: invalid network '3'"),
        ('fleet = "f"\n[machines.m]\nnetwork-config = "-"', "network-config: expected the path"),
        ('fleet = "f"\n[machines.m]\nfrom = "ci"\nnetwork-config = "n"', "network-config and from"),
        ('fleet = "f"\n[machines.m-01]\n[machines.m]\ncount = 1', "also in [machines.m-01]"),
        ("fleet = ", "invalid TOML"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'fleet.toml'}: ")
    assert why in caught.value.message
    assert "\x1b" not in f"{caught.value.message}{caught.value.hint}"


def test_known_hosts_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, 'fleet = "f"\n[machines.m]\non = "lab"\n')
    assert "known: lab1, lab2" in str(caught.value.hint)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="not found"):
        read_fleet(tmp_path / "none.toml", HOSTS)
