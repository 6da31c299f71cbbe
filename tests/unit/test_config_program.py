"""``armvm config``: every setting with its origin, and edits that cannot break the file."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from armvm.base.errors import ConfigError
from armvm.provision.inspect.config import MEANING, check, example, values
from armvm.settings.table import SETTINGS
from tests.support import Result, armvm, environment

Run = Callable[..., Result]

FILE = """\
warm = "auto"

[machine]
cpus = 3
mem = "1G"

[mirrors]
debian = "https://me:s3cret@mirror.example/x"

[images.corp]
url = "https://images.example/{version}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The user's configuration file, which does not exist yet."""
    return tmp_path / "armvm" / "config.toml"


@pytest.fixture
def run(file: Path) -> Run:
    """Runs armvm with the file as its configuration."""

    def config(*args: str | Path, **env: str) -> Result:
        return armvm("config", *args, env={"XDG_CONFIG_HOME": str(file.parents[1]), **env})

    return config


def write(file: Path, text: str = FILE) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def editor(tmp_path: Path, code: str) -> str:
    """Return an editor that runs *code* (Python) with the file's path as ``path``."""
    script = tmp_path / "editor.py"
    script.write_text(f"import sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\n{code}\n")
    return f"{sys.executable} {script}"


def test_every_setting_is_shown_with_its_origin(file: Path, run: Run) -> None:
    write(file)
    done = run("show", "--json", ARMVM_MEM="3G", ARMVM_PRESET="minimal", ARMVM_POOL="fast").ok()
    shown = {one["key"]: one for one in done.json}
    assert {
        "connect",
        "pool",
        "preset",
        "warm",
        "verify",
        "keyserver",
    } | SETTINGS.keys() <= shown.keys()
    got = {key: (one["value"], one["origin"], one["file"]) for key, one in shown.items()}
    assert got["cpus"] == (3, str(file), str(file))
    assert got["mem"] == (3072, "ARMVM_MEM", None)
    assert got["headless"] == (True, "preset minimal", None)
    assert got["disk"] == (10 << 30, "built-in", None)
    assert got["warm"] == ("auto", str(file), str(file))
    assert got["pool"] == ("fast", "ARMVM_POOL", None)
    assert got["preset"] == ("minimal", "ARMVM_PRESET", None)
    assert got["mirrors.debian"] == ("https://mirror.example/x/", str(file), str(file))
    assert got["images.corp"] == ("https://images.example/{version}", str(file), str(file))
    assert "s3cret" not in done.out


def test_a_person_reads_the_same(file: Path, run: Run) -> None:
    write(file)
    rows = [re.split(r"  +", line) for line in run("show").ok().out.splitlines()]
    assert rows[0] == ["SETTING", "VALUE", "FROM"]
    assert ["cpus", "3", str(file)] in rows
    assert ["mem", "1024 MiB", str(file)] in rows
    assert ["disk", "10G", "built-in"] in rows
    assert ["cpu", f"({MEANING['cpu']})", "built-in"] in rows


def test_show_takes_a_preset(run: Run) -> None:
    shown = {one["key"]: one for one in run("show", "--preset", "minimal", "--json").ok().json}
    assert (shown["preset"]["value"], shown["preset"]["origin"]) == ("minimal", "the command line")
    assert shown["headless"]["origin"] == "preset minimal"
    run("show", "--preset", "none").failed(4)


def test_a_file_of_the_system_is_below_the_users(tmp_path: Path) -> None:
    mine, systems = tmp_path / "mine.toml", tmp_path / "system.toml"
    mine.write_text("[machine]\ncpus = 3\n")
    systems.write_text("warm = 'never'\n[machine]\ncpus = 4\nmem = 512\n")
    shown = {one.key: one for one in values({}, [mine, systems, tmp_path / "none.toml"], None)}
    assert (shown["cpus"].value, shown["cpus"].origin) == (3, str(mine))
    assert (shown["mem"].value, shown["mem"].file) == (512, str(systems))
    assert (shown["warm"].value, shown["warm"].file) == ("never", str(systems))


def test_the_paths(file: Path, run: Run) -> None:
    assert run("path").ok().out == f"{file}\n"
    write(file)
    found = run("path", "--all", "--json").ok().json
    assert found[0] == {"path": str(file), "exists": True}
    assert found[1]["path"] == "/etc/armvm/config.toml"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[machine]\ncpus = 1\nmem = 1\n", ": mem: "),
        ("warm = 'never'\nverify = 'x'\n", ": invalid verify value 'x'"),
        ("warm = 'x'\n", ": invalid warm value 'x'"),
        ("keyserver = 'ftp://x'\n", ": invalid key server 'ftp://x'"),
        ("[mirrors]\nbeos = 'https://x'\n", ": [mirrors] beos"),
        ("[machine]\nnetwork = ''\n", ": network: "),
    ],
)
def test_check_looks_at_every_value(tmp_path: Path, text: str, where: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        check(file)
    assert caught.value.message.startswith(f"{file}{where}")


def test_check_as_a_program(file: Path, run: Run, tmp_path: Path) -> None:
    assert "config edit" in run("check").ok().err
    run("check", tmp_path / "none.toml").failed(4)
    write(file)
    assert run("check").ok().out == f"{file} is valid\n"
    write(file, FILE.replace("cpus", "cpu_s"))
    assert "[machine] cpu_s: unknown setting" in run("check").failed(3).err


def test_the_example_is_sound_with_and_without_its_comments(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(example())
    check(file)
    rest = example().split("\n", 1)[1]
    file.write_text(re.sub(r"^# ", "", rest, flags=re.MULTILINE))
    check(file)
    assert all(f"\n{key} = " in file.read_text() for key in SETTINGS)


def test_a_first_edit_begins_with_an_example(file: Path, run: Run, tmp_path: Path) -> None:
    done = run("edit", VISUAL="", EDITOR="true").ok()
    assert "not changed" in done.out
    assert not list(file.parent.iterdir())
    code = "path.write_text(path.read_text().replace('# cpus = 2', 'cpus = 6'))"
    assert "config.toml changed" in run("edit", VISUAL=editor(tmp_path, code)).ok().out
    assert "\ncpus = 6\n" in file.read_text()
    assert list(file.parent.iterdir()) == [file]


def test_what_is_wrong_does_not_take_its_place_and_is_not_lost(
    file: Path, run: Run, tmp_path: Path
) -> None:
    write(file)
    file.chmod(0o640)
    draft = file.with_name("config.draft.toml")
    spoil = editor(tmp_path, "path.write_text(path.read_text().replace('cpus', 'cpu_s'))")
    done = run("edit", VISUAL=spoil).failed(3)
    assert f"{draft}: [machine] cpu_s" in done.err
    assert file.read_text() == FILE
    assert draft.read_text() == FILE.replace("cpus", "cpu_s")
    mend = editor(tmp_path, "path.write_text(path.read_text().replace('cpu_s = 3', 'cpus = 5'))")
    run("edit", VISUAL=mend).ok()
    assert file.read_text() == FILE.replace("cpus = 3", "cpus = 5")
    assert file.stat().st_mode & 0o777 == 0o640
    assert not draft.exists()


def test_an_editor_that_fails_changes_nothing(file: Path, run: Run, tmp_path: Path) -> None:
    write(file)
    run("edit", VISUAL="false").failed(12)
    assert list(file.parent.iterdir()) == [file]
    lost = editor(tmp_path, "path.write_text('# half'); sys.exit(3)")
    assert "config.draft.toml" in run("edit", VISUAL=lost).failed(12).err
    assert (file.read_text(), file.with_name("config.draft.toml").read_text()) == (FILE, "# half")
    run("edit", VISUAL="no-such-editor").failed(6)


def test_a_file_that_somebody_else_changed_is_left(file: Path, run: Run, tmp_path: Path) -> None:
    write(file)
    code = f"path.write_text('warm = \"use\"'); Path({str(file)!r}).write_text('# theirs')"
    run("edit", VISUAL=editor(tmp_path, code)).failed(5)
    assert file.read_text() == "# theirs"
    assert file.with_name("config.draft.toml").read_text() == 'warm = "use"'


def test_a_link_to_a_file_elsewhere_stays_one(file: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").write_text(FILE)
    file.parent.mkdir()
    file.symlink_to(tmp_path / "dotfiles")
    run("edit", VISUAL="sed -i s/3/4/").ok()
    assert file.is_symlink()
    assert "cpus = 4" in (tmp_path / "dotfiles").read_text()


def test_on_a_terminal_one_may_edit_again(file: Path, run: Run, tmp_path: Path) -> None:
    write(file)
    turn = "text = path.read_text()\npath.write_text(text + '[x]' if '[x]' not in text else '# ok')"
    child = pexpect.spawn(
        sys.executable,
        ["-m", "armvm", "config", "edit"],
        env=environment(XDG_CONFIG_HOME=str(file.parents[1]), VISUAL=editor(tmp_path, turn)),
        encoding="utf-8",
        timeout=30,
    )
    child.expect("unknown entry")
    child.expect("Edit again")
    child.sendline("y")
    child.expect("config.toml changed")
    child.expect(pexpect.EOF)
    assert file.read_text() == "# ok"
