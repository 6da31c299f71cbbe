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
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from armvm.base.errors import CommandFailed, ConfigError, NotFound
from armvm.base.process import stream
from armvm.base.progress import Plain
from armvm.provision.access.exclude import Exclude, ignored_of, read_exclude
from armvm.provision.access.pack import Stamp, pack
from armvm.provision.access.unpack import WrittenBack, write_back
from armvm.provision.launch import run_mount


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
