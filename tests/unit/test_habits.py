"""What people know from other tools: names of commands, options of docker's, patterns."""

from __future__ import annotations

import pytest

from armvm.base.errors import ConfigError
from armvm.cli.lazy import ALIASES, COMMANDS
from armvm.provision.machine.pick import is_pattern
from armvm.settings.names import check_machine_name
from armvm.usermode.rootfs.distros import DISTROS
from tests.support import ROOT, armvm


def help_of(*words: str) -> str:
    """Return a command's help without its first line, which has the words as they were given."""
    return armvm(*words, "--help").ok().out.partition("\n")[2]


@pytest.mark.parametrize(("habit", "command"), ALIASES.items())
def test_what_other_tools_call_a_command_is_understood(habit: str, command: str) -> None:
    assert help_of(habit) == help_of(command)


@pytest.mark.parametrize(
    ("group", "habit", "command"),
    [("snapshot", "rm", "delete"), ("golden", "info", "show"), ("forward", "ls", "list"),
     ("image", "rm", "rm"), ("image", "ls", "list")],
)  # fmt: skip
def test_also_in_groups(group: str, habit: str, command: str) -> None:
    assert help_of(group, habit) == help_of(group, command)


def test_they_are_documented_and_in_no_list() -> None:
    assert not ALIASES.keys() & set(COMMANDS)
    lines = [line.split() for line in armvm("--help").ok().out.splitlines()]
    assert not {words[0] for words in lines if words} & ALIASES.keys()
    page = (ROOT / "docs" / "commands.md").read_text()
    assert all(f"`{habit}`" in page for habit in ALIASES)


def test_a_shells_command_stands_after_its_dashes() -> None:
    assert "armvm shell … -- CMD" in armvm("shell", "a", "b").failed(2).err


def test_help_and_version_are_understood_as_commands() -> None:
    for words in ([], ["create"], ["golden", "list"]):
        assert armvm("help", *words).ok().out == armvm(*words, "--help").ok().out
    assert "No such command 'nonsense'" in armvm("help", "nonsense").failed(2).err
    assert armvm("version").ok().out == armvm("--version").ok().out


def test_options_of_ssh_have_another_place() -> None:
    for words in (["m", "-L", "8080:x:80"], ["m", "-L8080:x:80"], ["-A", "m"]):
        told = armvm("ssh", *words).failed(2).err
        assert "armvm ssh-config --install" in told and "armvm forward add" in told
    for words in (["m", "uname", "-m"], ["m", "--nonsense"]):
        assert "armvm ssh … -- CMD" in armvm("ssh", *words).failed(2).err


def test_explain_without_a_topic_lists_them() -> None:
    listed = armvm("explain").ok().out.splitlines()
    assert [line.split()[2] for line in listed] == ["cpu", "firmware", "network", "seed", "xml"]
    assert all(len(line.split()) > 3 for line in listed)
    armvm("explain", "--json").failed(2)


def test_what_run_has_of_docker() -> None:
    assert "forward add" in armvm("run", "-p", "8080:80", "--", "true").failed(2).err
    assert "--keep" in armvm("run", "--rm", "--keep", "--", "true").failed(2).err
    assert "/no/such" in armvm("run", "--rm", "-v", "/no/such:/src", "--", "true").failed(4).err


@pytest.mark.parametrize("name", ["job-*", "job-?", "job-[12]", "*"])
def test_a_pattern_is_no_name(name: str) -> None:
    assert is_pattern(name)
    with pytest.raises(ConfigError):
        check_machine_name(name)


def test_images_have_what_the_readme_names() -> None:
    for distro in DISTROS.values():
        assert "rsync" in distro.packages
