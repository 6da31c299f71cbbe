"""Hosts by name: the table [hosts], and --on, which means what --connect with the URI means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from armvm.base.errors import ConfigError, NotFound
from armvm.cli.app import app
from armvm.host.default_uri import default_uri
from armvm.settings.hosts import find_host, hosts_in, uri_problem
from tests.support import Result, armvm
from tests.unit.test_completion import SHELLS, Ask
from tests.unit.test_schemas import commands

LAB = "qemu+ssh://root@lab1/system"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Runs armvm with two named hosts of libvirt's test driver."""
    file = tmp_path / "armvm" / "config.toml"
    file.parent.mkdir()
    file.write_text('[hosts]\none = "test:///default"\ntwo = "test:///no/such/file"\n')

    def run(*args: str, **env: str) -> Result:
        return armvm(*args, env={"XDG_CONFIG_HOME": str(tmp_path), **env})

    return run


def config(tmp_path: Path, text: str, name: str = "config.toml") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_the_first_file_with_a_name_wins(tmp_path: Path) -> None:
    mine = config(tmp_path, f'[hosts]\nlab1 = "{LAB}"\n')
    systems = config(tmp_path, '[hosts]\nlab1 = "qemu:///x"\nlab2 = "qemu:///system"\n', "b.toml")
    found = hosts_in([mine, tmp_path / "none.toml", systems])
    assert [(one.name, one.uri) for one in found.values()] == [
        ("lab1", LAB),
        ("lab2", "qemu:///system"),
    ]
    assert found["lab1"].place == str(mine)
    assert find_host("lab2", [mine, systems]).uri == "qemu:///system"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find_host("lab9", [config(tmp_path, f'[hosts]\nlab1 = "{LAB}"\nlab2 = "{LAB}"\n')])
    assert caught.value.hint == "known: lab1, lab2"
    with pytest.raises(NotFound) as caught:
        find_host("lab9", [])
    assert "config edit" in str(caught.value.hint)
    both = config(tmp_path, f'[hosts]\nlab1 = "{LAB}"\n[queues]\nfarm = {{ slurm = "arm" }}\n')
    with pytest.raises(NotFound, match="host or queue 'lab9' not found") as caught:
        find_host("lab9", [both], "queues")
    assert caught.value.hint == "known: lab1, farm ([hosts] and [queues] of config.toml)"
    with pytest.raises(NotFound) as caught:
        find_host("lab9", [], "queues")
    assert "no host or queue has a name yet: add [hosts] or [queues]" in str(caught.value.hint)


def test_commands_name_all_that_they_take(run: Callable[..., Result]) -> None:
    for words, what in (
        (("run", "--on", "farm", "--", "true"), "queue"),
        (("run", "--on", "farm", "--count", "2", "--", "true"), "queue"),
        (("create", "--on", "farm"), "cloud"),
        (("list", "--on", "farm"), "cloud"),
    ):
        assert f"host or {what} 'farm' not found" in run(*words).failed(4).err
    assert "armvm: host 'farm' not found" in run("doctor", "--on", "farm").failed(4).err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hosts = 1", "[hosts]: expected a table"),
        ("[hosts]\nlab1 = 1", "[hosts] lab1: expected a libvirt URI as a string"),
        ("[hosts]\nlab1 = ['x']", "[hosts] lab1: expected a libvirt URI"),
        ("[hosts.lab1]\nuri = 'x'", "[hosts] lab1: expected a libvirt URI"),
        ("[hosts]\nlab1 = ''", "[hosts] lab1: invalid connection URI ''"),
        ("[hosts]\nlab1 = 'lab1'", "[hosts] lab1: invalid connection URI 'lab1'"),
        ("[hosts]\nlab1 = '-c://x/y'", "[hosts] lab1: invalid connection URI"),
        ('[hosts]\nlab1 = "qemu+ssh://a\\u001b[2J/system"', "[hosts] lab1: invalid connection URI"),
        ('[hosts]\nlab1 = "qemu+ssh://a b/system"', "[hosts] lab1: invalid connection URI"),
        ("[hosts]\nlab1 = 'qemu+ssh://lab1'", "did you mean qemu+ssh://lab1/system?"),
        ("[hosts]\nlab1 = 'qemu+ssh://-oProxyCommand=x/system'", "cannot begin with '-'"),
        ("[hosts]\nlab1 = 'qemu+ssh://-lx@lab1/system'", "cannot begin with '-'"),
        ("[hosts]\nlab1 = 'qemu+ssh://me@-lx/system'", "cannot begin with '-'"),
        ("[hosts]\nall = 'qemu:///system'", "[hosts] all: 'all' cannot be used as a host name"),
        ("[hosts]\n'' = 'qemu:///system'", "invalid host name ''"),
        ("[hosts]\nLab = 'qemu:///system'", "[hosts] Lab: invalid host name 'Lab'"),
        ("[hosts]\n'-x' = 'qemu:///system'", "invalid host name '-x'"),
        ("[hosts]\n'a/../b' = 'qemu:///system'", "invalid host name"),
        ('[hosts]\n"a\\u001b" = "qemu:///system"', "invalid host name"),
        ("[hosts]\n'" + 64 * "a" + "' = 'qemu:///system'", "invalid host name"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        hosts_in([file])
    assert caught.value.message.startswith(f"{file}: ")
    assert why in caught.value.message
    assert caught.value.message.isprintable()
    armvm("config", "check", file).failed(3)


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system", "qemu:///session", LAB, "qemu+ssh://[2001:db8::1]:2222/system",
        "qemu+unix:///system?socket=/x&mode=direct", "qemu+tcp://lab-1/system", "test:///default",
        "qemu+ssh://a@b@lab/system?keyfile=/x%20y",
    ],
)  # fmt: skip
def test_uris_that_are_accepted(uri: str) -> None:
    assert uri_problem(uri) is None


def test_the_variable_comes_before_the_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "armvm").mkdir()
    config(tmp_path / "armvm", f'[hosts]\nlab1 = "{LAB}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    both = {"ARMVM_ON": " lab1 ", "ARMVM_CONNECT": "qemu:///x"}
    assert default_uri(both, ()) == (LAB, "ARMVM_ON")
    assert default_uri({**both, "ARMVM_ON": " "}, ()) == ("qemu:///x", "ARMVM_CONNECT")
    with pytest.raises(NotFound, match="lab2"):
        default_uri({"ARMVM_ON": "lab2"}, ())


def test_every_command_that_has_connect_has_on() -> None:
    def options(command: Any) -> set[str]:
        return {word for parameter in command.params for word in parameter.opts}

    found = {name: options(command) for name, command in commands(get_command(app))}
    assert {"create", "golden list", "ssh", "forward add"} <= found.keys()
    for name, words in found.items():
        assert "--on" in words or "--connect" not in words, name


def test_a_name_means_what_its_uri_means(run: Callable[..., Result]) -> None:
    assert run("list", "--on", "one", "--json").ok().json == []
    assert run("list", "--connect", "test:///default", "--json").ok().json == []
    assert run("list", "--json", ARMVM_ON="one").ok().json == []
    assert "no/such/file" in run("list", "--on", "two").failed(6).err
    # The command line comes before the variable.
    assert run("list", "--connect", "test:///default", "--json", ARMVM_ON="two").ok().json == []
    assert run("list", "--on", "one", "--json", ARMVM_ON="two").ok().json == []
    shown = {one["key"]: one for one in run("config", "show", "--json", ARMVM_ON="one").ok().json}
    assert (shown["connect"]["value"], shown["connect"]["origin"]) == (
        "test:///default",
        "ARMVM_ON",
    )
    assert shown["hosts.two"]["value"] == "test:///no/such/file"


def test_a_name_and_a_uri_are_too_much(run: Callable[..., Result]) -> None:
    for words in (("list",), ("golden", "list"), ("create", "--dry-run")):
        err = run(*words, "--on", "one", "--connect", "test:///default").failed(2).err
        assert "--on and --connect cannot be used together" in err
    assert "known: one, two" in run("golden", "list", "--on", "lab9").failed(4).err
    assert "known: one, two" in run("ssh", "box", ARMVM_ON="lab9").failed(4).err


@SHELLS
def test_names_are_completed(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "armvm").mkdir()
    config(tmp_path / "armvm", f'[hosts]\nlab1 = "{LAB}"\nlab2 = "{LAB}"\nother = "{LAB}"\n')
    home = str(tmp_path)
    assert sorted(ask("armvm create --on la", XDG_CONFIG_HOME=home)) == ["lab1", "lab2"]
    config(tmp_path / "armvm", "[hosts]\nlab1 = 7\n")
    assert ask("armvm create --on la", XDG_CONFIG_HOME=home) == []
