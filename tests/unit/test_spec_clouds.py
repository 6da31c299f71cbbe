"""Clouds by name: the table [clouds]."""

from __future__ import annotations

from pathlib import Path

import pytest

from armvm.base.errors import ConfigError, UsageError
from armvm.settings.clouds import clouds_in, find_cloud
from armvm.settings.hosts import find_host
from tests.support import armvm

FARM = 'farm = { openstack = "mycloud", network = "net", flavor = "arm.small" }'


def config(tmp_path: Path, text: str, name: str = "config.toml") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_the_first_file_with_a_name_wins(tmp_path: Path) -> None:
    mine = config(tmp_path, f"[clouds]\n{FARM}\n")
    other = FARM.replace("net", "x").replace("xwork", "network")
    systems = config(tmp_path, f"[clouds]\n{other}\nlab {FARM[5:]}\n", "b.toml")
    found = clouds_in([mine, systems])
    assert list(found) == ["farm", "lab"]
    assert (found["farm"].network, found["farm"].place) == ("net", str(mine))
    assert find_cloud("other", [mine]) is None
    assert find_cloud("farm", []) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("clouds = 1", "[clouds]: expected a table"),
        ("[clouds]\nfarm = 'x'", "[clouds] farm: expected a table with openstack, network, flavor"),
        ("[clouds]\nfarm = { openstack = 'x', network = 'n' }", "[clouds.farm] flavor: required"),
        (f"[clouds]\n{FARM.replace('}', ', size = 1 }')}", "[clouds.farm] size: unknown key"),
        ("[clouds]\nfarm = { openstack = 1, network = 'n', flavor = 'f' }", "expected a string"),
        ("[clouds]\nfarm = { openstack = '', network = 'n', flavor = 'f' }", "invalid name ''"),
        (
            '[clouds]\nfarm = { openstack = "a\\u001b", network = "n", flavor = "f" }',
            "invalid name",
        ),
        (f"[clouds]\nFarm {FARM[5:]}", "invalid host name 'Farm'"),
        (f"[clouds]\nall {FARM[5:]}", "'all' cannot be used as a host name"),
        (f"[hosts]\nfarm = 'qemu:///system'\n[clouds]\n{FARM}", "has this name"),
        (f"[queues]\nfarm = {{ slurm = 'x' }}\n[clouds]\n{FARM}", "[queues] in "),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        clouds_in([file])
    assert caught.value.message.startswith(f"{file}: ")
    assert why in caught.value.message
    assert caught.value.message.isprintable()
    armvm("config", "check", file).failed(3)


def test_a_cloud_is_no_host(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="farm is a cloud"):
        find_host("farm", [config(tmp_path, f"[clouds]\n{FARM}\n")])


def test_the_configuration_shows_it(tmp_path: Path) -> None:
    (tmp_path / "armvm").mkdir()
    config(tmp_path / "armvm", f"[clouds]\n{FARM}\n")
    done = armvm(
        "config", "show", "--json", env={"XDG_CONFIG_HOME": str(tmp_path), "ARMVM_ON": "farm"}
    )
    shown = {one["key"]: one["value"] for one in done.ok().json}
    assert shown["clouds.farm.network"] == "net"
    assert shown["connect"] == "cloud farm"
