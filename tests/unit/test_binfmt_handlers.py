"""Reading the kernel's handlers: those of every known tool, and which tool registered them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.usermode.architectures import ARCHITECTURES, find, of_header
from armvm.usermode.binfmt import binfmt_d
from armvm.usermode.binfmt.handlers import Handler, Table, parse, read, shadows
from armvm.usermode.binfmt.origins import Kind, origin

DATA = Path(__file__).resolve().parents[1] / "data" / "binfmt"
STATUS = DATA / "status"


def recorded(file: str, name: str = "qemu-aarch64") -> Handler:
    return parse(name, (STATUS / file).read_text())


@pytest.mark.parametrize(
    ("file", "interpreter", "flags", "magic"),
    [
        ("debian-pof", "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "POF", 20),
        ("debian-pocf", "/usr/libexec/qemu-binfmt/aarch64-binfmt-P", "POCF", 20),
        ("binfmt-support", "/usr/bin/qemu-aarch64-static", "OCF", 20),
        ("binfmt-support-2.2", "/usr/bin/qemu-aarch64-static", "POCF", 20),
        ("binfmt-support-detector", "/usr/lib/binfmt-support/run-detectors", "", 0),
        ("tonistiigi", "/usr/bin/qemu-arm", "POCF", 20),
        ("docker-binfmt", "/usr/bin/qemu-aarch64", "OCF", 19),
        ("multiarch", "/usr/bin/qemu-aarch64-static", "", 20),
        ("multiarch-persistent", "/usr/bin/qemu-aarch64-static", "F", 20),
        ("qus", "/qus/bin/qemu-x86_64-static", "F", 20),
        ("jar", "/usr/bin/jexec", "", 0),
        ("python", "/usr/bin/python3.13", "", 4),
    ],
)
def test_recorded_handlers_are_read(file: str, interpreter: str, flags: str, magic: int) -> None:
    handler = recorded(file)
    assert (handler.interpreter, handler.flags) == (interpreter, flags)
    assert len(handler.magic) == magic
    assert len(handler.full_mask) == magic
    assert handler.enabled is (file != "python")
    extensions = {"jar": ".jar", "binfmt-support-detector": ".pyx"}
    assert handler.extension == extensions.get(file, "")


@pytest.mark.parametrize("file", sorted(path.name for path in STATUS.iterdir()))
def test_a_handler_takes_what_it_is_for(file: str) -> None:
    handler = recorded(file)
    wanted = {"qus": set(), "jar": set(), "python": set(), "binfmt-support-detector": set()}.get(
        file, {"arm"} if file == "tonistiigi" else {"aarch64"}
    )
    assert {one.name for one in ARCHITECTURES if handler.takes(one.magic)} == wanted


@pytest.mark.parametrize(
    ("file", "present", "kind"),
    [
        ("debian-pof", True, Kind.BINFMT_D),
        ("debian-pocf", True, Kind.UNKNOWN),
        ("binfmt-support", True, Kind.BINFMT_SUPPORT),
        ("binfmt-support-2.2", True, Kind.BINFMT_SUPPORT),
        ("binfmt-support-detector", True, Kind.BINFMT_SUPPORT),
        ("tonistiigi", False, Kind.TONISTIIGI),
        ("docker-binfmt", False, Kind.TONISTIIGI),
        ("multiarch", False, Kind.MULTIARCH),
        ("multiarch-persistent", False, Kind.MULTIARCH),
        ("qus", False, Kind.QUS),
        ("jar", True, Kind.UNKNOWN),
    ],
)
def test_who_registered_it(tmp_path: Path, file: str, present: bool, kind: Kind) -> None:
    support = file.startswith("binfmt-support")
    database = DATA / "binfmts" if support else tmp_path
    name = "pyx" if file == "binfmt-support-detector" else "qemu-aarch64"
    declared = binfmt_d.declared([DATA / "binfmt.d"])
    found = origin(recorded(file, name), declared, database=database, present=present)
    assert found.kind is kind
    assert found.why
    if support:
        assert found.path == str(database / name)


def test_the_older_debian_is_known_where_its_file_says_so(tmp_path: Path) -> None:
    text = (DATA / "binfmt.d" / "qemu-aarch64.conf").read_text()
    (tmp_path / "qemu-aarch64.conf").write_text(text.replace(":OPF", ":OCPF"))
    found = origin(recorded("debian-pocf"), binfmt_d.declared([tmp_path]))
    assert (found.kind, found.path) == (Kind.BINFMT_D, str(tmp_path / "qemu-aarch64.conf"))


@given(st.text(max_size=300))
def test_whatever_a_file_says_is_read(text: str) -> None:
    handler = parse("x", text)
    handler.takes(b"\x7fELF" * 32)
    assert len(handler.full_mask) == len(handler.magic)


def table(*handlers: Handler, on: bool = True) -> Table:
    return Table(mounted=True, on=on, handlers=handlers)


def test_of_those_that_match_the_latest_that_is_enabled_wins() -> None:
    old, new = recorded("debian-pof", "old"), recorded("docker-binfmt", "new")
    header = find("arm64").magic
    winner = table(new, old).winner(header)
    assert winner is not None
    assert winner.name == "new"
    off = parse("new", (STATUS / "docker-binfmt").read_text().replace("enabled", "disabled"))
    winner = table(off, old).winner(header)
    assert winner is not None
    assert winner.name == "old"
    assert table(off).winner(header) is None
    assert table(new).winner(find("arm").magic) is None


def test_shadowing_wholly_partly_and_not() -> None:
    wide, narrow = recorded("docker-binfmt", "wide"), recorded("debian-pof", "narrow")
    arm = recorded("tonistiigi", "arm")
    assert shadows(narrow, [arm, wide]) == (wide, True), "19 bytes take all that 20 take"
    assert shadows(wide, [narrow]) == (narrow, False), "but not the other way round"
    assert shadows(arm, [wide, narrow]) is None
    assert shadows(recorded("jar"), [narrow]) is None
    off = parse("off", (STATUS / "debian-pof").read_text().replace("enabled", "disabled"))
    assert shadows(narrow, [off]) is None


def test_a_directory_is_read_with_its_state(tmp_path: Path) -> None:
    assert not read(tmp_path).mounted
    (tmp_path / "register").touch()
    (tmp_path / "status").write_text("disabled\n")
    (tmp_path / "qemu-aarch64").write_text((STATUS / "debian-pof").read_text())
    found = read(tmp_path)
    assert (found.mounted, found.on) == (True, False)
    assert [one.name for one in found.handlers] == ["qemu-aarch64"]


def test_architectures_are_found_by_every_name() -> None:
    for name in ("arm64", "aarch64", "linux/arm64", "ARM64", "qemu-aarch64"):
        assert find(name).name == "aarch64"
    for name in ("armhf", "linux/arm/v7", "armv7l"):
        assert find(name).name == "arm"
    assert [of_header(one.magic) for one in ARCHITECTURES] == list(ARCHITECTURES)
    assert of_header(b"\x7fELF") is None


def test_files_of_binfmt_d_hide_each_other_by_name(tmp_path: Path) -> None:
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    for place in (etc, lib):
        place.mkdir()
    (lib / "qemu-aarch64.conf").write_text((DATA / "binfmt.d/qemu-aarch64.conf").read_text())
    (lib / "qemu-arm.conf").write_text((DATA / "binfmt.d/qemu-arm.conf").read_text())
    (lib / "README").write_text(":no:E::x::/bin/true:\n")
    (etc / "qemu-arm.conf").symlink_to("/dev/null")
    (etc / "zz.conf").write_text("# a comment\n;another\n\n:z:E::zz::/bin/true:\nnonsense\n")
    found = binfmt_d.declared([etc, lib, tmp_path / "none"])
    assert [one.rule.name for one in found] == ["qemu-aarch64", "z"]
