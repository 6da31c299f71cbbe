"""Getting at a guest, as far as it needs none: words, scripts, texts, files of the user's own."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvm.base.errors import ConfigError, DomainError, UsageError
from armvm.cli.main import _split
from armvm.guest.agents import mount_script
from armvm.guest.agents.command_script import check_guest_user, kill_command, script
from armvm.guest.boot.plain_text import Cleaner, last_lines
from armvm.guest.ssh.scp import read_copy
from armvm.host.domain.screenshot import size_of, to_png
from armvm.provision.access.ssh_include import exclude, include

LINE = 'Include "/data/armvm/ssh/*.conf"'


class Script:
    """The script for a guest, run by this host's shell."""

    def __init__(self, directory: Path, *command: str) -> None:
        self.directory = directory
        self._shell = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._shell.stdin is not None
        self._shell.stdin.write(script(str(directory), command, None))
        self._shell.stdin.close()

    def status(self, word: str) -> list[str]:
        """Wait until the script says *word*, and return all that it has said."""
        end = time.monotonic() + 30
        while True:
            path = self.directory / "status"
            said = path.read_text().splitlines() if path.exists() else []
            if any(line.startswith(word) for line in said):
                return said
            assert time.monotonic() < end, said
            time.sleep(0.02)

    def tell(self, line: str) -> None:
        """Write to the control FIFO, as the agent does: without waiting for its reader."""
        descriptor = os.open(self.directory / "control", os.O_RDWR)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def leave(self) -> None:
        """Say bye, and see that nothing stays."""
        self.tell("bye")
        assert self._shell.wait(20) is not None
        assert self._shell.stderr is not None
        self._shell.stderr.close()
        assert not self.directory.exists()


def test_the_script_runs_words_as_they_are(tmp_path: Path) -> None:
    words = ("a b", "$HOME", "it's", "*", "-n", "")
    run = Script(tmp_path / "d", "sh", "-c", 'printf "<%s>" "$@"; echo no >&2; exit 7', "x", *words)
    assert run.status("exit")[-1] == "exit 7" or "exit 7" in run.status("exit")
    run.status("end out")
    run.status("end err")
    assert (run.directory / "out.0").read_text() == "".join(f"<{word}>" for word in words)
    assert (run.directory / "err.0").read_text() == "no\n"
    run.leave()


def test_the_script_feeds_what_it_is_told_to(tmp_path: Path) -> None:
    run = Script(tmp_path / "d", "cat")
    run.status("start")
    for number, text in enumerate(("one\n", "two\n")):
        (run.directory / f"in.{number}").write_text(text)
        run.tell(f"take {number}")
        run.status(f"took {number}")
        assert not (run.directory / f"in.{number}").exists()
    run.tell("close")
    assert "exit 0" in run.status("exit")
    run.status("end out")
    assert (run.directory / "out.0").read_text() == "one\ntwo\n"
    run.leave()


def test_a_command_that_is_quicker_than_its_reader_waits(tmp_path: Path) -> None:
    """Four pieces at most lie there; each that the reader empties makes room for another."""
    run = Script(tmp_path / "d", "yes")
    start = next(line for line in run.status("start") if line.startswith("start"))
    end = time.monotonic() + 30
    while run.status("next").count("next out") < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.5)
    pieces = sorted(run.directory.glob("out.[0-9]*"))
    assert [path.name for path in pieces] == ["out.0", "out.1", "out.2", "out.3"]
    assert sum(path.stat().st_size for path in pieces) <= 4 * (4 << 20)
    (run.directory / "out.0").write_bytes(b"")
    end = time.monotonic() + 30
    while run.status("next").count("next out") < 4:
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(int(start.split()[1]), 9)
    assert "exit 137" in run.status("exit")
    run.leave()


@pytest.mark.parametrize("own_group", [True, False])
@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_command_is_ended_before_and_after_it_has_a_group(own_group: bool, trap: str) -> None:
    words = ["sh", "-c", f"{trap}echo up; while :; do sleep 0.1; done"]
    with subprocess.Popen(words, start_new_session=own_group, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        subprocess.run(kill_command(process.pid), check=True)
        assert process.wait(20) == (-9 if trap else -15)


@pytest.mark.parametrize("user", ["", "-x", "a b", "a;b", "$(x)", "../x", "a" * 33, "0"])
def test_what_can_be_no_guest_user(user: str) -> None:
    with pytest.raises(ConfigError):
        check_guest_user(user)


def test_a_zero_byte_is_no_word() -> None:
    with pytest.raises(ConfigError):
        script("/run/x", ["a\0b"], None)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_shell_reads_back_every_word(words: list[str]) -> None:
    """Only the head that sets the words is run here."""
    head = script("/run/x", ["w", *words], None).split(b"\nif [ -n", 1)[0]
    tail = b'\nshift; for one in "$@"; do printf "%s\\000" "$one"; done\n'
    done = subprocess.run(["sh"], input=head + tail, capture_output=True, check=True)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)


def test_a_copy_is_read() -> None:
    up = read_copy(["a", "./b:c", "/d:e", "m-1:x:y"])
    assert (up.machine, up.sources, up.target, up.upload) == (
        "m-1",
        ("a", "./b:c", "/d:e"),
        "x:y",
        True,
    )
    down = read_copy(["m:", "m:/a", "."])
    assert (down.machine, down.sources, down.target, down.upload) == ("m", ("", "/a"), ".", False)


@pytest.mark.parametrize(
    "words",
    [
        *(["a"], ["m:a"], ["a", "b"], ["m:a", "n:b", "."], ["m:a", "b", "."], ["m:a", "n:b"]),
        *(["-", "m:a"], ["m:a", "-"]),
    ],
)
def test_a_copy_that_makes_no_sense(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_copy(words)


def test_a_log_is_cleaned() -> None:
    raw = (
        b"\x1b[2J\x1b[01;31mred\x1b[0m \xc3\xa4\x1b[6n\x1b]0;title\x07\x1bP+q\x1b\\\x9bZ\r\n\x00\t."
    )
    assert Cleaner().feed(raw, final=True) == "red ä\ufffdZ\n\t."
    coloured = Cleaner(colours=True).feed(raw, final=True)
    assert coloured == "\x1b[01;31mred\x1b[0m ä\ufffdZ\n\t."


@given(st.binary(), st.lists(st.integers(0, 64)))
def test_a_log_may_come_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    whole = Cleaner().feed(data, final=True)
    cleaner, text, rest = Cleaner(), "", data
    for cut in cuts:
        text, rest = text + cleaner.feed(rest[:cut]), rest[cut:]
    assert text + cleaner.feed(rest, final=True) == whole
    assert not any((ord(one) < 32 and one not in "\n\t") or 127 <= ord(one) < 160 for one in whole)


@pytest.mark.parametrize(
    ("text", "count", "shown"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\n", 5, "a\n"),
        ("a\nb", 0, ""),
        ("", 3, ""),
        ("a\n\n", 1, "\n"),
    ],
)
def test_the_last_lines(text: str, count: int, shown: str) -> None:
    assert last_lines(text, count) == shown


def test_a_ppm_becomes_a_png() -> None:
    pixels = bytes(range(2 * 3 * 3))
    png = to_png(b"P6\n2 3\n255\n" + pixels)
    assert size_of(png) == (2, 3)
    assert to_png(png) == png
    at, chunks = 8, {}
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + data
        )
        chunks[kind] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    lines = zlib.decompress(chunks[b"IDAT"])
    assert [lines[at : at + 7] for at in range(0, 21, 7)] == [
        b"\0" + pixels[at : at + 6] for at in range(0, 18, 6)
    ]


@pytest.mark.parametrize("data", [b"", b"P6\n2 3\n255\nshort", b"P6\n0 0\n255\n", b"GIF89a"])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(DomainError):
        to_png(data)


def test_a_line_comes_to_the_top_once_and_goes_whole(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    real = tmp_path / "dots"
    real.write_bytes(b"Host x\r\n  User y")
    real.chmod(0o640)
    config.parent.mkdir()
    config.symlink_to("../dots")
    assert include(config, LINE)
    assert not include(config, LINE)
    assert real.read_bytes() == f"{LINE}\nHost x\r\n  User y".encode()
    assert config.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert exclude(config, LINE)
    assert not exclude(config, LINE)
    assert real.read_bytes() == b"Host x\r\n  User y"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ssh", "dots"]


def test_a_file_of_ours_alone_comes_and_goes(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    assert not exclude(config, LINE)
    assert include(config, LINE)
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.parent.stat().st_mode & 0o777 == 0o700
    assert exclude(config, LINE)
    assert not config.exists()


def test_what_exec_is_given_is_no_option_of_ours() -> None:
    words = ["exec", "m", "--json", "--", "ls", "--json", "--", "x"]
    assert _split(words) == (["exec", "m", "--json"], ["ls", "--json", "--", "x"])


@pytest.mark.parametrize(
    ("path", "plain"), [("/mnt/a b", "/mnt/a b"), ("//x/../y/", "/y"), ("/a/./b", "/a/b")]
)
def test_a_place_in_the_guest(path: str, plain: str) -> None:
    assert mount_script.check_target(path) == plain


@pytest.mark.parametrize("path", ["", "/", "//", "x", "~/x", "/a\nb", "/..", "/\x1b"])
def test_what_is_no_place_in_the_guest(path: str) -> None:
    with pytest.raises(ConfigError):
        mount_script.check_target(path)


@pytest.mark.parametrize("tag", ["", "-o", "a b", "a;b", "a" * 36, "ä", "."])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(ConfigError):
        mount_script.check_tag(tag)


def in_guest(directory: Path, script: bytes, *, mounts: bool = True, full: bool = False) -> int:
    """Run a script of mount_script with *directory*/etc as its /etc; return its exit code.

    ``mount`` and the programs around it are stand-ins: what they were told is in *directory*/told.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can have another /etc")
    programs, etc = directory / "bin", directory / "etc"
    for place in (programs, etc):
        place.mkdir(exist_ok=True)
    awk = programs / "awk"  # by way of /etc/alternatives on Debian
    awk.unlink(missing_ok=True)
    awk.symlink_to(Path(str(shutil.which("awk"))).resolve())
    told = shlex.quote(str(directory / "told"))
    for name, text in {
        "modprobe": "exit 0",
        "mountpoint": "exit 1",
        "sleep": "exit 0",
        "mount": f'echo "$@" >>{told}; exit {0 if mounts else 32}',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (etc / "fstab").write_text("# mine\nold /mnt/old virtiofs rw 0 0\n")
    (etc / "fstab").chmod(0o600)
    lines = ['mount --bind "$1" /etc']
    if full:
        lines = [
            "mount -t tmpfs -o size=64k tmpfs /mnt; cp -p $1/fstab /mnt; mount --bind /mnt /etc",
            "dd if=/dev/zero of=/mnt/fill 2>/dev/null",
        ]
    line = "\n".join([*lines, 'PATH="$2:$PATH" sh', "code=$?", 'cp /etc/fstab "$3"', "exit $code"])
    words: list[str | Path] = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        line,
        "sh",
        etc,
        programs,
        directory / "fstab",
    ]
    return subprocess.run(words, input=script, check=False).returncode


def test_a_share_is_mounted_and_then_written_down(tmp_path: Path) -> None:
    target = tmp_path / "it's #1\\"
    script = mount_script.add("t-1", str(target), read_only=True)
    assert in_guest(tmp_path, script) == 0
    options = "ro,nosuid,nodev"
    assert (tmp_path / "told").read_text() == f"-t virtiofs -o {options} -- t-1 {target}\n"
    *kept, line = (tmp_path / "fstab").read_text().splitlines()
    assert kept == ["# mine", "old /mnt/old virtiofs rw 0 0"]
    plain = str(tmp_path / "it's\\040\\0431\\134")
    assert line.split() == ["t-1", plain, "virtiofs", f"{options},nofail", "0", "0"]
    assert (tmp_path / "etc/fstab").stat().st_mode & 0o777 == 0o600
    assert in_guest(tmp_path, mount_script.remove("old", "/mnt/old")) == 0
    assert (tmp_path / "fstab").read_text() == "# mine\n"


@pytest.mark.parametrize("full", [False, True])
def test_a_share_that_cannot_be_mounted_leaves_the_guest_as_it_was(
    tmp_path: Path, full: bool
) -> None:
    """The guest's disk is full, or its kernel finds no such device."""
    script = mount_script.add("t-1", str(tmp_path / "new"), read_only=False)
    assert in_guest(tmp_path, script, mounts=full, full=full) != 0
    assert (tmp_path / "fstab").read_text() == "# mine\nold /mnt/old virtiofs rw 0 0\n"
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "told").exists() != full, "nothing is mounted that cannot be written down"
    if not full:
        assert [path.name for path in (tmp_path / "etc").iterdir()] == ["fstab"]


def test_whether_a_share_is_possible_is_asked_without_a_change(tmp_path: Path) -> None:
    assert in_guest(tmp_path, mount_script.possible("/mnt/x")) == 0
    assert not (tmp_path / "told").exists()
