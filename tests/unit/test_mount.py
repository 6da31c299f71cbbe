"""A host directory in a guest: files copied there and back, and files that must not be.

The guest's half is run here by the host's own sh, find and tar: the commands are the same.
"""

from __future__ import annotations

import io
import os
import random
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, cast

import pytest

from armvm.base.errors import CommandFailed, ConfigError, NotFound, StorageError
from armvm.base.process import stream
from armvm.base.progress import Plain
from armvm.provision.access.exclude import Exclude, ignored_of, read_exclude
from armvm.provision.access.pack import Stamp, pack
from armvm.provision.access.unpack import WrittenBack, write_back
from armvm.provision.launch import run, run_mount
from armvm.provision.launch.run_commands import Commands


def packed(directory: Path) -> tuple[bytes, dict[str, Stamp]]:
    out = io.BytesIO()
    stamps = pack(directory, out).stamps
    return out.getvalue(), stamps


NOTHING = Exclude()
NEEDS_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def guest(script: str, place: Path, stdin: bytes, prefix: Sequence[str] = ()) -> bytes:
    words = [*prefix, "sh", "-c", script, "sh", str(place)]
    return subprocess.run(words, input=stdin, capture_output=True, check=True).stdout


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """Return a tar archive of (name, type, content or link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(text)
            else:
                info.linkname = text
            info.mode = 0o6755
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def written(
    directory: Path, data: bytes, asked: set[str], sent: dict[str, Stamp] | None = None
) -> WrittenBack:
    return write_back(directory, io.BytesIO(data), asked=asked, sent=sent or {}, label="run-1")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    directory = tmp_path / "here"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "a b").write_text("old")
    (directory / "tool").write_text("#!/bin/sh\n")
    (directory / "tool").chmod(0o755)
    (directory / "link").symlink_to("sub/a b")
    os.link(directory / "tool", directory / "twin")
    os.mkfifo(directory / "pipe")
    return directory


def test_links_are_followed_on_request_and_a_circle_is_an_error(here: Path) -> None:
    out = io.BytesIO()
    pack(here, out, follow=True)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert {member.name for member in tar if member.issym() or member.islnk()} == set()
        assert tar.extractfile("./link").read() == b"old"  # type: ignore[union-attr]
    (here / "sub" / "up").symlink_to("..")
    with pytest.raises(OSError, match="symbolic links"):
        pack(here, io.BytesIO(), follow=True)


def test_a_whole_archive_replaces_files_and_keeps_modes_of_directories(tmp_path: Path) -> None:
    there, copy = tmp_path / "there", tmp_path / "copy"
    (there / "closed").mkdir(parents=True)
    (there / "closed" / "a").write_text("new")
    (there / "closed").chmod(0o550)
    os.utime(there / "closed", (1_000_000_000, 1_000_000_000))
    copy.mkdir()
    (copy / "closed").mkdir()
    (copy / "closed" / "a").write_text("old and longer")
    (copy / "stays").write_text("here")
    data = subprocess.run(
        ["tar", "-c", "--format=posix", "-C", there, "-f", "-", "."],
        capture_output=True,
        check=True,
    ).stdout
    report = write_back(copy, io.BytesIO(data), asked=None, sent=None, label="vm")
    assert (report.refused, report.aside) == ({}, {})
    assert (copy / "closed" / "a").read_text() == "new"
    assert (copy / "closed").stat().st_mode & 0o777 == 0o550
    assert (copy / "closed").stat().st_mtime == 1_000_000_000
    assert (copy / "stays").read_text() == "here"


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "./x/.."])
def test_a_whole_archive_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    data = archive((name, tarfile.REGTYPE, "bad"))
    report = write_back(copy, io.BytesIO(data), asked=None, sent=None, label="vm")
    assert report.refused
    assert list(copy.rglob("*")) == []
    assert not (tmp_path / "out").exists()


@NEEDS_GIT
def test_what_git_ignores_stays_where_it_is(here: Path, tmp_path: Path) -> None:
    git = ["git", "-C", str(here)]
    subprocess.run([*git, "init", "-q"], check=True)
    (here / ".gitignore").write_text("*.o\nbuild/\n/sub/odd *\n")
    (here / "build").mkdir()
    (here / "build" / "x").write_text("x")
    (here / "kept.o").write_text("tracked")
    subprocess.run([*git, "add", "-f", "kept.o"], check=True)
    (here / "a.o").write_text("x")
    (here / "sub" / "odd \n\xe4").write_text("x")
    (mount,) = run_mount.read_mounts([str(here)], gitignore=True)
    out = io.BytesIO()
    found = pack(here, out, mount.exclude)
    assert sorted(found.excluded) == [".git", "a.o", "build", "sub/odd \n\xe4"]
    assert "kept.o" in found.stamps
    made = ["b.o", "c.c", "kept.o", "build/y", "sub/odd one", "sub/even"]
    assert ignored_of(here, made) == {"b.o", "build/y", "sub/odd one"}


@NEEDS_GIT
def test_gitignore_needs_a_work_tree(here: Path) -> None:
    with pytest.raises(ConfigError, match="is not in a git work tree"):
        run_mount.read_mounts([str(here)], gitignore=True)
    with pytest.raises(ConfigError, match="require --mount"):
        run_mount.read_mounts([], gitignore=True)


def test_there_and_back(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    data, sent = packed(here)
    before = run_mount.read_listing(guest(run_mount._TAKE, there, data))
    assert (there / "tool").stat().st_mode & 0o777 == 0o755
    assert (there / "tool").stat().st_ino != (there / "twin").stat().st_ino
    assert (there / "link").readlink() == Path("sub/a b")
    assert not (there / "pipe").exists()
    assert run_mount.changed(
        before, run_mount.read_listing(guest(run_mount._LIST, there, b"")), NOTHING
    ) == (
        [],
        {},
    )

    (there / "sub" / "a b").write_text("new")
    os.utime(there / "sub" / "a b", (1_000_000_000.5, 1_000_000_000.5))  # a program may lie
    (there / "made").mkdir()
    (there / "made" / "-x\n").write_bytes(b"\0" * 100_000)
    (there / "made" / "empty").mkdir()
    (there / "out").symlink_to("made/-x\n")
    (there / "twin").unlink()
    now = run_mount.read_listing(guest(run_mount._LIST, there, b""))
    asked, _ = run_mount.changed(before, now, NOTHING)
    assert sorted(asked) == ["made", "made/-x\n", "made/empty", "out", "sub/a b"]
    names = b"".join(b"./" + path.encode() + b"\0" for path in asked)
    report = written(here, guest(run_mount._GIVE, there, names), set(asked), sent)
    assert (report.aside, report.refused) == ({}, {})
    assert (here / "sub" / "a b").read_text() == "new"
    assert (here / "sub" / "a b").stat().st_mtime == 1_000_000_000.5
    assert (here / "made" / "-x\n").stat().st_size == 100_000
    assert (here / "made" / "empty").is_dir()
    assert (here / "out").readlink() == Path("made/-x\n")
    assert (here / "twin").exists()
    assert not list(here.rglob("*.armvm-new"))


def test_a_file_that_was_changed_here_too_stays(here: Path) -> None:
    _, sent = packed(here)
    (here / "tool").write_text("mine, and later")
    report = written(here, archive(("./tool", tarfile.REGTYPE, "theirs")), {"tool"}, sent)
    assert report.aside == {"tool": "tool.from-run-1"}
    assert (here / "tool").read_text() == "mine, and later"
    assert (here / "tool.from-run-1").read_text() == "theirs"
    assert (here / "tool.from-run-1").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("../evil", tarfile.REGTYPE, "x"),
        ("sub/../../evil", tarfile.REGTYPE, "x"),
        ("/evil", tarfile.REGTYPE, "x"),
        ("away/evil", tarfile.REGTYPE, "x"),
        ("sub", tarfile.REGTYPE, "x"),
        ("l", tarfile.SYMTYPE, "/etc/passwd"),
        ("sub/l", tarfile.SYMTYPE, "../../evil"),
        ("sub/l", tarfile.SYMTYPE, ".//../../evil"),
        ("l", tarfile.SYMTYPE, "away/../evil"),
        ("l", tarfile.SYMTYPE, ""),
        ("l", tarfile.LNKTYPE, "tool"),
        ("l", tarfile.CHRTYPE, ""),
        ("l", tarfile.FIFOTYPE, ""),
        ("tool/x", tarfile.DIRTYPE, ""),
    ],
)
def test_nothing_is_written_elsewhere_or_else(
    here: Path, tmp_path: Path, name: str, kind: bytes, text: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (here / "away").symlink_to(outside)
    before = sorted(tmp_path.rglob("*"))
    report = written(here, archive((name, kind, text)), {name})
    assert list(report.refused) == [name]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("when", ["inf", "nan", "1e300", "-1e300"])
def test_a_time_that_cannot_be_is_left_out(here: Path, when: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("./new")
        info.pax_headers = {"mtime": when}
        tar.addfile(info)
    assert written(here, out.getvalue(), {"new"}).written == ["new"]


def test_what_nobody_asked_for_is_refused(here: Path) -> None:
    report = written(here, archive(("./new", tarfile.REGTYPE, "x")), set())
    assert list(report.refused) == ["new"]
    assert not (here / "new").exists()


def test_an_archive_that_breaks_off_leaves_whole_files(here: Path) -> None:
    _, sent = packed(here)
    data = archive(("./sub/a b", tarfile.REGTYPE, "new"), ("./tool", tarfile.REGTYPE, "x" * 9000))
    with pytest.raises((tarfile.TarError, OSError)):
        written(here, data[:4000], {"sub/a b", "tool"}, sent)
    assert (here / "sub" / "a b").read_text() == "new"
    assert (here / "tool").read_text() == "#!/bin/sh\n"
    assert not list(here.rglob("*.armvm-new"))


def test_a_link_leads_out_through_no_other_link(here: Path) -> None:
    links = [("d/e", ".."), ("l", "d/e/../secret"), ("d/f", "../tool"), ("m", "d/./e")]
    data = archive(*((f"./{name}", tarfile.SYMTYPE, target) for name, target in links))
    report = written(here, data, {name for name, _ in links})
    assert list(report.refused) == ["l"]
    assert report.written == ["d/e", "d/f", "m"]
    assert all((here / name).resolve().is_relative_to(here) for name in report.written)


def test_a_file_that_cannot_be_written_is_refused_alone(here: Path) -> None:
    long = "a" * 250
    (here / long).write_text("mine")
    (here / "b").write_text("mine")
    (here / "b.from-run-1").mkdir()
    names = [long, "b", "c" * 300, "d" * 300 + "/x", "last"]
    data = archive(*((f"./{name}", tarfile.REGTYPE, "theirs") for name in names))
    report = written(here, data, set(names), {})
    assert report.refused == {
        long: "File name too long",
        "b": "Is a directory",
        "c" * 300: "File name too long",
        "d" * 300 + "/x": "File name too long",
    }
    assert (report.written, report.aside) == (["last"], {})
    assert not list(here.rglob("*.armvm-new"))


class Endless:
    """An archive that begins with *head* and goes on, for ever or up to *most* bytes."""

    def __init__(self, head: bytes, most: int | None = None) -> None:
        self._head, self._most, self.given = head, most, 0

    def read(self, size: int) -> bytes:
        if self._most is not None:
            size = min(size, self._most - self.given)
        data = self._head[:size]
        self._head = self._head[size:]
        data += b"1" * (size - len(data))
        self.given += len(data)
        return data


def header(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo("./x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1 << 70, (1 << 62) + 1, 1 << 62, 1 << 50, -1, -(1 << 40)])
@pytest.mark.parametrize("asked", [{"x"}, {"y"}])
def test_the_size_of_a_file_is_no_promise(here: Path, size: int, asked: set[str]) -> None:
    with pytest.raises(tarfile.TarError):
        write_back(
            here,
            cast("IO[bytes]", Endless(header(size), 20_000)),
            asked=asked,
            sent=None,
            label="run-1",
        )
    assert not (here / "x").exists()


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K", b"S"])
def test_headers_are_not_kept_at_any_length(here: Path, kind: bytes) -> None:
    head = bytearray(header(4 << 30, kind))
    if kind == b"S":  # GNU's old sparse files: the map goes on in the next block, and so on
        head[482] = 1
        head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * ord(" "))
    data = Endless(bytes(head))
    with pytest.raises(tarfile.TarError):
        write_back(here, cast("IO[bytes]", data), asked={"y"}, sent=None, label="run-1")
    assert data.given < 8 << 20


def test_headers_of_headers_are_an_invalid_archive(here: Path) -> None:
    chain = (header(1, b"L") + b"a".ljust(512, b"\0")) * 3000
    with pytest.raises(tarfile.TarError):
        written(here, chain, {"x"})


def test_a_sparse_file_that_is_too_large_is_refused(here: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, real in (("huge", 1 << 61), ("more", 1)):
            info = tarfile.TarInfo(f"./GNUSparseFile.0/{name}")
            info.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": f"./{name}",
                "GNU.sparse.realsize": str(real),
            }
            info.size = 512
            tar.addfile(info, io.BytesIO(f"1\n{real}\n0\n".encode().ljust(512, b"\0")))
    report = written(here, out.getvalue(), {"huge", "more"})
    assert (list(report.refused), report.written) == (["huge"], ["more"])


@pytest.fixture
def deep_tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with 1100 others in each other. Python and pytest cannot remove it."""
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("a", dir_fd=at)
        at, above = os.open("a", os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)
    yield tmp_path
    subprocess.run(["rm", "-r", tmp_path / "a"], check=True)


def test_a_deep_tree_is_packed_and_excluded(deep_tree: Path) -> None:
    deep = "/".join("a" * 1100)
    pack(deep_tree, io.BytesIO(), Exclude(patterns=("b",)))
    assert pack(deep_tree, io.BytesIO(), Exclude(patterns=("a",))).excluded == ["a"]
    assert not Exclude(patterns=(".git",)).matches(deep, directory=True)
    assert Exclude(patterns=("a/",)).matches(f"{deep}/b", directory=False)
    asked, _ = run_mount.changed({}, run_mount.read_listing(f"d 1:2:3 {deep}\0".encode()), NOTHING)
    assert asked == [deep]
    with pytest.raises(CommandFailed):
        run_mount.read_listing(b"f 1:2:3 " + b"a/" * 2048 + b"b\0")


def test_reading_a_mount(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = run_mount.read_mount
    assert read(str(here)) == run_mount.Mount(directory=here, guest="./here")
    assert read(f"{here}:ro") == run_mount.Mount(directory=here, guest="./here", read_only=True)
    assert read(f"{here}:/srv/x:ro").guest == "/srv/x"
    assert read(f"{here}:~/x").guest == "./x"
    monkeypatch.chdir(here)
    assert read(".") == run_mount.Mount(directory=here, guest="./here")


@pytest.mark.parametrize(
    ("text", "error"),
    [("", ConfigError), (":x", ConfigError), ("/none", NotFound), ("/:", ConfigError),
     ("/", ConfigError), ("/:a:b", ConfigError), ("/etc/hostname", NotFound)],
)  # fmt: skip
def test_what_is_no_mount(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_mount.read_mount(text)


def test_two_mounts_in_one_place(here: Path) -> None:
    with pytest.raises(ConfigError):
        run_mount.read_mounts([str(here), str(here)])


@pytest.mark.parametrize(
    ("pattern", "path", "directory", "excluded"),
    [
        ("*.o", "a/b.o", False, True),
        ("*.o", "a.o/x", False, True),
        ("*.o", "a/b.oo", False, False),
        ("build/", "build", True, True),
        ("build/", "sub/build/x/y", False, True),
        ("build/", "build", False, False),
        ("docs/api", "docs/api/x", False, True),
        ("docs/api", "x/docs/api", False, False),
        ("/top", "top", False, True),
        ("/top", "sub/top", False, False),
        ("docs/*.html", "docs/a/b.html", False, True),
        (".git", "sub/.git", False, True),
        ("[ab]", "b", False, True),
    ],
)
def test_what_a_pattern_excludes(pattern: str, path: str, directory: bool, excluded: bool) -> None:
    assert read_exclude([pattern]).matches(path, directory=directory) is excluded


@pytest.mark.parametrize("pattern", ["", "/", "a//b", "../x", "./x", "a\0"])
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        read_exclude([pattern])


def test_an_exclude_needs_a_mount() -> None:
    with pytest.raises(ConfigError, match="--mount"):
        run_mount.read_mounts([], ["*.o"])


def test_what_is_excluded_goes_neither_there_nor_back(here: Path, tmp_path: Path) -> None:
    (here / ".git" / "hooks").mkdir(parents=True)
    (here / "sub" / "x.o").write_text("")
    (wanted,) = run_mount.read_mounts([str(here)], ["*.o"])
    out = io.BytesIO()
    done = pack(here, out, wanted.exclude)
    assert done.excluded == [".git", "sub/x.o"]
    assert done.skipped == {"pipe": "a FIFO"}
    there = tmp_path / "there"
    before = run_mount.read_listing(guest(run_mount._TAKE, there, out.getvalue()))
    assert sorted(path for path in before if path.endswith((".o", ".git"))) == []
    (there / "made.o").write_text("")
    (there / "made").write_text("")
    os.mkfifo(there / "pipe too")
    now = run_mount.read_listing(guest(run_mount._LIST, there, b""))
    assert run_mount.changed(before, now, wanted.exclude) == (
        ["made"],
        {"pipe too": "it is a FIFO"},
    )


def test_git_never_comes_back_from_a_guest(here: Path, tmp_path: Path) -> None:
    """The user's git would run its hooks, and what its settings say."""
    (here / ".git" / "hooks").mkdir(parents=True)
    (wanted,) = run_mount.read_mounts([str(here)], git=True)
    out = io.BytesIO()
    pack(here, out, wanted.exclude)
    there = tmp_path / "there"
    before = run_mount.read_listing(guest(run_mount._TAKE, there, out.getvalue()))
    assert ".git/hooks" in before
    (there / ".git" / "hooks" / "post-checkout").write_text("#!/bin/sh\n")
    (there / ".git" / "config").write_text("[core]\n\tfsmonitor = evil\n")
    now = run_mount.read_listing(guest(run_mount._LIST, there, b""))
    assert run_mount.changed(before, now, wanted.exclude) == ([], {})


def test_a_file_with_holes_is_sent_and_comes_back_as_one(here: Path, tmp_path: Path) -> None:
    size = 300 << 20
    for name, writes in {
        "all hole": (),
        "holes": (0, 100 << 20, size - 5),
        "end": (7 << 20,),
    }.items():
        with (here / name).open("wb") as file:
            for at in writes:
                file.seek(at)
                file.write(b"data!")
            file.truncate(size)
    long = here / ("sub/" + "n" * 200)
    with long.open("wb") as file:
        file.truncate(1 << 20)
    data, sent = packed(here)
    assert len(data) < 1 << 20
    there = tmp_path / "there"
    run_mount.read_listing(guest(run_mount._TAKE, there, data))
    for path in sent:
        assert (there / path).is_symlink() or (there / path).stat().st_blocks < 1000
    subprocess.run(["diff", "-r", "-x", "pipe", here, there], check=True)

    new = {f"new {name}" for name in ("all hole", "holes", "end")}
    for name in new:
        (there / name.removeprefix("new ")).rename(there / name)
    names = b"".join(f"./{name}\0".encode() for name in sorted(new))
    back = guest(run_mount._GIVE, there, names)
    assert len(back) < 1 << 20
    assert set(written(here, back, new).written) == new
    for name in new:
        assert (here / name).stat().st_blocks < 1000
        subprocess.run(["cmp", here / name, here / name.removeprefix("new ")], check=True)


@pytest.mark.parametrize(
    "pieces", ["1\n-5\n1\n", "1\n90\n20\n", "2\n50\n5\n0\n5\n", "1\n0\n-1\n", "x\n"]
)
def test_holes_that_make_no_sense_are_refused(here: Path, pieces: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("./new")
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "./new",
            "GNU.sparse.realsize": "100",
        }
        data = pieces.encode().ljust(512, b"\0") + b"x" * 20
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    if pieces == "x\n":
        with pytest.raises((ValueError, tarfile.TarError)):
            written(here, out.getvalue(), {"new"})
    else:
        assert list(written(here, out.getvalue(), {"new"}).refused) == ["new"]
    assert not (here / "new").exists()


def test_what_the_machines_user_cannot_read_is_named(here: Path, tmp_path: Path) -> None:
    """Without sudo: as somebody who owns neither the file nor the folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a file that the guest's user cannot read")
    there = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own is closed to others
    try:
        before = run_mount.read_listing(guest(run_mount._LIST, there, b""))
        there.chmod(0o755)
        (there / "mine").write_text("yes")
        (there / "root's").write_text("no")
        (there / "root's").chmod(0o600)
        (there / "closed").mkdir(mode=0o700)
        (there / "closed" / "x").write_text("no")
        as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--no-new-privs"]
        now = run_mount.read_listing(guest(run_mount._LIST, there, b"", as_nobody))
        asked, left = run_mount.changed(before, now, NOTHING)
        assert sorted(asked) == ["mine", "root's"]
        assert left == {"closed": "the machine's user cannot read it"}
        names = b"".join(f"./{path}\0".encode() for path in asked)
        report = written(here, guest(run_mount._GIVE, there, names, as_nobody), set(asked))
        assert report.written == ["mine"]
        assert list(report.refused) == ["root's"]
    finally:
        shutil.rmtree(there)


def test_a_directory_that_the_command_removed_holds_nothing(tmp_path: Path) -> None:
    assert guest(run_mount._LIST, tmp_path / "none", b"") == b""


def test_a_file_that_grows_while_it_is_read_is_no_failure(here: Path, tmp_path: Path) -> None:
    """What the command left behind goes on: tar ends with 1 then, and has sent the rest."""
    growing = tmp_path / "log"
    script = f"while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx; done >>{shlex.quote(str(growing))}"
    with subprocess.Popen(["sh", "-c", script]) as writer:
        try:
            while not (growing.exists() and growing.stat().st_size > 5_000_000):
                time.sleep(0.01)
            data = guest(run_mount._GIVE, tmp_path, b"./log\0")
        finally:
            writer.kill()
    assert written(here, data, {"log"}).written == ["log"]


def test_a_guests_nonsense_is_an_error_of_ours() -> None:
    with pytest.raises(CommandFailed):
        run_mount.read_listing(b"nonsense\0")


def test_a_stream_goes_through_and_what_fails_is_told() -> None:
    big = random.Random(0).randbytes(1 << 20)
    assert stream(["cat"], lambda out: out.write(big), lambda source: source.read()) == big

    def nothing(_out: object) -> None:
        return

    def broken(_out: object) -> None:
        raise OSError("unreadable")

    read: Callable[..., bytes] = lambda source: source.read()  # noqa: E731
    with pytest.raises(CommandFailed, match="exit code 3") as caught:
        stream(["sh", "-c", "echo why >&2; exit 3"], nothing, read)
    assert caught.value.detail == "why"
    with pytest.raises(OSError, match="unreadable"):
        stream(["cat"], broken, read)
    # A program that reads nothing of a large input is judged by its exit code.
    assert stream(["true"], lambda out: out.write(big), read) == b""


@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_files_is_reported(tmp_path: Path, count: int) -> None:
    told = io.StringIO()
    report = WrittenBack(written=[str(number) for number in range(count)])
    run_mount._tell(report, run_mount.read_mount(str(tmp_path)), Plain(told))
    assert told.getvalue() == f"changed files written to {tmp_path}: {count}\n"


def test_a_guests_list_of_files_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_mount, "LONGEST_LIST", 1 << 20)
    assert stream(["echo"], lambda _: None, run_mount.read_list) == b"\n"
    with pytest.raises(CommandFailed, match="longer than 1 MiB"):
        stream(["yes"], lambda _: None, run_mount.read_list)


@pytest.mark.parametrize("code", [0, 1])
def test_every_directory_comes_back_even_if_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tried: list[str] = []

    def fetch(_guest: object, one: run_mount.Carried, _progress: object) -> None:
        tried.append(one.mount.guest)
        if one.mount.guest != "./c":
            raise StorageError(f"cannot write {one.mount.guest}")

    monkeypatch.setattr(run, "fetch", fetch)
    carried = [
        run_mount.Carried(
            mount=run_mount.Mount(directory=tmp_path / name, guest=f"./{name}"), here={}, there={}
        )
        for name in "abc"
    ]
    told = io.StringIO()
    raises = nullcontext() if code else pytest.raises(StorageError, match=r"cannot write \./a")
    with raises:
        run._fetch(cast("Commands", None), carried, code, Plain(told))
    assert tried == ["./a", "./b", "./c"]
    assert "cannot write ./b" in told.getvalue()
    assert ("cannot write ./a" in told.getvalue()) == bool(code)
