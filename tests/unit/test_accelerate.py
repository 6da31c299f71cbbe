"""Compile steps that run on this host: the same objects as those of the compiler itself.

The guest of these tests is this host, whose cross compiler stands for the guest's own: the objects
have to be equal to the last byte.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import struct
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from armvm.base.errors import CommandFailed, MissingCapability, StorageError
from armvm.base.progress import Quiet
from armvm.guest.agents import compile_script
from armvm.host.domain.handle import Handle
from armvm.provision.accelerate import accelerate, job, sandbox
from armvm.provision.accelerate.includes import (
    LONGEST_COMMENTED,
    Closure,
    Stat,
    definitions,
    scan,
)
from armvm.provision.accelerate.options import Declined, Step, read
from armvm.provision.accelerate.sandbox import include_directories
from armvm.provision.accelerate.store import Store, has_room
from armvm.provision.access.exec_streams import Sink
from armvm.provision.launch.fill import fill
from armvm.provision.machine.create import Where
from armvm.settings.machine import Machine
from tests.unit.host_tools import INSTANCE, TCG_HOST, facts_of

GCC, GPP = "/usr/bin/aarch64-linux-gnu-gcc", "/usr/bin/aarch64-linux-gnu-g++"


def _lacks() -> str | None:
    """Return what this host lacks to compile for a guest; None if nothing."""
    if not (Path(GCC).exists() and Path(GPP).exists() and shutil.which("bwrap")):
        return "apt-get install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu bubblewrap"
    try:
        sandbox.assert_works()
    except MissingCapability as error:  # no user namespaces
        return error.message
    return None


_MISSING = _lacks()
needs_compiler = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


@dataclass
class Guest:
    """The guest's end of a conversation, as in templates/accelerate.c, with files of this host."""

    compilers: job.Compilers
    store: Store
    written: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    rounds: int = 0
    said: list[str] = field(default_factory=list)
    messages: bytes = b""
    change: Callable[[str], None] = lambda path: None

    def compile(self, directory: Path, *words: str, name: str = "gcc", epoch: str = "") -> str:
        """Return ``done``, or the reason why the host declined."""
        here, there = socket.socketpair()
        slots = threading.Semaphore(1)
        arguments = (there, self.compilers, self.store, slots, self.said.append)
        service = threading.Thread(target=job.serve, args=arguments)
        service.start()
        with here:
            command = [str(directory), "", epoch, name, *words]
            here.sendall(b"ARMVMCC1" + struct.pack(">I", len(command)))
            for word in command:
                here.sendall(struct.pack(">I", len(word.encode())) + word.encode())
            try:
                return self._answer(here)
            finally:
                here.close()
                service.join(60)
                assert not service.is_alive()

    def _answer(self, here: socket.socket) -> str:
        with here.makefile("rb") as file:
            while True:
                kind = file.read(1)
                (length,) = struct.unpack(">I", file.read(4))
                data = file.read(length)
                paths = [os.fsdecode(one) for one in data.split(b"\0")[:-1]]
                if kind in b"SF":
                    self.rounds += 1
                    here.sendall(b"".join(map(stat_of, paths)))
                if kind in b"GF":
                    self.rounds += kind == b"G"
                    for path in paths:
                        self.change(path)
                        content = Path(path).read_bytes()
                        self.sent.append(path)
                        here.sendall(struct.pack(">Q", len(content)) + content)
                elif kind == b"S":
                    continue
                elif kind == b"W":
                    name, _, written = data.partition(b"\0")
                    self.written[os.fsdecode(name)] = written
                elif kind == b"E":
                    self.messages += data
                else:
                    return "done" if kind == b"X" else data.decode()


def open_to_others(place: Path) -> None:
    """Let root's compilers, which run as another user, come to a directory."""
    for one in (place, *place.parents):
        if one.stat().st_uid == os.geteuid() and one.stat().st_mode & 0o011 != 0o011:
            one.chmod(one.stat().st_mode | 0o011)


def stat_of(path: str) -> bytes:
    try:
        found = Path(path).stat()
    except OSError:
        return bytes(56)
    kind = 1 if Path(path).is_file() else 2 if Path(path).is_dir() else 3
    if kind == 1 and os.path.normpath(path) == path and len(os.path.realpath(path)) < len(path):
        kind = 4
    times = (divmod(one, 10**9) for one in (found.st_mtime_ns, found.st_ctime_ns))
    return struct.pack(">7Q", kind, found.st_size, *(n for one in times for n in one), found.st_ino)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    place = tmp_path / "service"
    (place / "store").mkdir(parents=True)
    open_to_others(place)
    compilers = job.Compilers(
        names={"gcc": "c", "cc": "c", "g++": "c++"},
        host={"c": os.path.realpath(GCC), "c++": os.path.realpath(GPP)},
        standard=(
            places := {"c": include_directories(GCC, "c"), "c++": include_directories(GPP, "c++")}
        ),
        hidden=[one for those in places.values() for one in those],
    )
    yield Guest(compilers=compilers, store=Store(directory=place / "store"))
    assert [one.name for one in place.iterdir()] == ["store"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "include" / "deep").mkdir(parents=True)
    (root / "second" / "deep").mkdir(parents=True)
    (root / "src").mkdir()
    (root / "include/deep/one.h").write_text(
        "#pragma once\n#include_next <deep/one.h>\n#define A 1\n"
    )
    (root / "second/deep/one.h").write_text("#define B 2\n")
    (root / "include/config.h").write_text('#define CHOSEN "chosen.h"\n')
    (root / "include/chosen.h").write_text("static const int chosen = 7;\n")
    (root / "src/near.h").write_text(
        "/* # include guard\n#include_next's own\n*/\n#define NEAR 3\n"
    )
    (root / "src/main.c").write_text(
        "#include <stdio.h>\n#include <config.h>\n#include CHOSEN\n#include <deep/one.h>\n"
        '#  include  "near.h" // near\n#if __has_include(<absent.h>)\n#error absent\n#endif\n'
        '#if __has_include("near.h")\nint near = NEAR;\n#endif\n'
        "#ifdef USER_H\n#include USER_H\n#endif\n#ifndef FORCED\n#error not forced\n#endif\n"
        "#if 0\n#include <absent.h>\n#endif\n"
        'int main(void) { printf("%s %d %s\\n", __FILE__, A + B + chosen, __BASE_FILE__); }\n'
    )
    (root / "src/forced.h").write_text("#define FORCED 1\n")
    (root / "src/more.cc").write_text(
        "#include <iostream>\n#include <map>\n#include <string>\n"
        "namespace { std::map<std::string, int> kept; }\n"
        "template <class T> T twice(T one) { static int n; return one + one + T(n++); }\n"
        'int main() { kept["a"] = twice(3); std::cout << kept["a"] << \'\\n\'; }\n'
    )
    return root


C_WORDS = "-I../include -I ../second -include forced.h -c main.c -o main.o".split()


@needs_compiler
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gcc", C_WORDS),
        ("gcc", [*C_WORDS, "-g", "-O2", "-std=gnu11", "-fPIC", "-MD", "-MP"]),
        ("gcc", [*C_WORDS, "-g3", "-MMD", "-MF", "x.d", "-MT", "target"]),
        ("gcc", [*C_WORDS, "-O3", "-flto", "-frandom-seed=1", '-DUSER_H="near.h"']),
        ("gcc", [*C_WORDS, "-g", f"-ffile-prefix-map={'/'}=x", "-Wall", "-Wextra"]),
        ("g++", "-O2 -g -std=c++17 -c more.cc -MD -o more.o".split()),
        ("gcc", "-c more.cc".split()),
    ],
)
def test_objects_and_dependencies_are_the_compilers_own(
    guest: Guest, project: Path, name: str, words: list[str]
) -> None:
    directory = project / "src"
    assert guest.compile(directory, *words, name=name) == "done", guest.said
    compiler = GCC if name == "gcc" else GPP
    own = subprocess.run([compiler, *words], cwd=directory, capture_output=True, check=True)
    assert guest.messages == own.stderr
    made = {one.name: one.read_bytes() for one in directory.iterdir() if one.suffix in (".o", ".d")}
    assert made
    assert guest.written == made


@needs_compiler
def test_files_are_sent_once_and_again_after_a_change(guest: Guest, project: Path) -> None:
    directory = project / "src"
    assert guest.compile(directory, *C_WORDS) == "done"
    first = guest.written["main.o"]
    assert str(directory / "main.c") in guest.sent
    guest.sent.clear()
    guest.rounds = 0
    assert guest.compile(directory, *C_WORDS) == "done"
    assert (guest.sent, guest.rounds) == ([], 1)
    shutil.copy(directory / "main.c", directory / "other.c")
    assert guest.compile(directory, *C_WORDS[:-3], "other.c") == "done"
    assert (guest.sent, guest.rounds) == ([str(directory / "other.c")], 3)
    guest.sent.clear()
    (project / "include/chosen.h").write_text("static const int chosen = 8;\n")
    assert guest.compile(directory, *C_WORDS) == "done"
    assert [os.path.normpath(one) for one in guest.sent] == [str(project / "include/chosen.h")]
    assert guest.written["main.o"] != first


@needs_compiler
def test_a_file_that_goes_is_not_seen_any_more(guest: Guest, project: Path) -> None:
    directory = project / "src"
    (project / "include/near.h").write_text("#define NEAR 4\n")
    assert guest.compile(directory, *C_WORDS) == "done"
    (directory / "near.h").unlink()
    assert guest.compile(directory, *C_WORDS) == "done"
    own = subprocess.run([GCC, *C_WORDS], cwd=directory, check=True, capture_output=True)
    assert own.returncode == 0
    assert guest.written["main.o"] == (directory / "main.o").read_bytes()


@needs_compiler
def test_what_does_not_compile_is_the_guests(guest: Guest, project: Path) -> None:
    (project / "src/main.c").write_text("int main(void) { return missing; }\n")
    assert guest.compile(project / "src", "-c", "main.c") == "exit code 1"
    assert guest.written == {}


@needs_compiler
def test_a_link_on_the_way_is_declined(guest: Guest, project: Path) -> None:
    other = project / "other/place"
    other.mkdir(parents=True)
    (project / "src/link").symlink_to(other)
    (other.parent / "near.h").write_text("#define NEAR 5\n")
    (project / "src/main.c").write_text('#include "link/../near.h"\nint near = NEAR;\n')
    assert "leads through a link" in guest.compile(project / "src", "-c", "main.c")


@needs_compiler
@pytest.mark.parametrize(
    ("files", "links", "words", "reason"),
    [
        # -Ia/../b is no directory, but would be b if src/a were one.
        (
            {"b/f.h": "#define F 1\n", "c/f.h": "#undef F\n#define F 2\n", "else/x/z.h": ""},
            {"a": "else/x"},
            "-Ia/../b -Ic -Ib",
            "a/.. leads through a link",
        ),
        ({"b/f.h": "#define F 1\n"}, {"c/f.h": "/dev/null"}, "-Ic -Ib", "c/f.h is not a file"),
        # gcc writes the shorter path of a system header.
        (
            {"b/f.h": "#define F 1\n"},
            {"a/longer/path/f.h": "../../../b/f.h"},
            "-isystem {}/a/longer/path -g -MD",
            "a link to a shorter path",
        ),
        ({"b/f.h": "#define F 1\n"}, {"a/longer/path": "../../b"}, "-I {}/a/longer/path", "done"),
        ({"b/f.h": ""}, {"a": "b"}, "-Ib -include /dev/null -Wmissing-include-dirs", "done"),
    ],
)
def test_links_and_devices_are_as_in_the_guest(
    guest: Guest,
    project: Path,
    files: dict[str, str],
    links: dict[str, str],
    words: str,
    reason: str,
) -> None:
    here = project / "src"
    (here / "main.c").write_text(
        '#ifdef Z\n#include "b/f.h"\n#include "a/z.h"\n#endif\n#include <f.h>\n'
        "#ifndef F\n#define F 9\n#endif\nint f = F;\n"
    )
    for name, text in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    for name, target in links.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).symlink_to(target)
    command = [*(one.format(here) for one in words.split()), "-c", "main.c"]
    told = guest.compile(here, *command)
    assert told.endswith(reason), told
    if told == "done":
        own = subprocess.run([GCC, *command], cwd=here, check=True, capture_output=True)
        assert guest.messages == own.stderr
        assert guest.written["main.o"] == (here / "main.o").read_bytes()


@needs_compiler
def test_a_changing_file_is_declined(guest: Guest, project: Path) -> None:
    source = project / "src/main.c"

    def change(path: str) -> None:
        if path == str(source):
            source.write_text("int changed;\n" * 100)

    guest.change = change
    assert "changes" in guest.compile(project / "src", "-c", "main.c")


@needs_compiler
@pytest.mark.parametrize(
    "code",
    [
        '__asm__(".section .x; .inc" "lude \\"/etc/passwd\\"");',
        '__asm__(".section .x\\n.inc" "bin \\"/etc/passwd\\"");',
        '__asm__(".section .x\\n.inc" "bin \\"/.armvm-host/etc/passwd\\"");',
    ],
)
def test_the_hosts_files_are_out_of_reach(guest: Guest, project: Path, code: str) -> None:
    (project / "src/main.c").write_text(f"{code}\n")
    assert guest.compile(project / "src", "-c", "main.c") == "exit code 1"
    assert guest.written == {}


def run_code(place: Path, code: str, hidden: Sequence[str] = ()) -> sandbox.Result:
    """Run a shell's code in the compiler's place: a hostile guest may make it run anything."""
    here = place / "service/job-x"
    tree = here / "tree"
    tree.mkdir(parents=True)
    open_to_others(here.parent)
    sandbox.may_use(here)
    sandbox.prepare(tree)
    (tree / "code").write_text(f"{code}\n")
    return sandbox.compile_in(
        tree,
        Step(language="c", source="-i", output="x", options=("/code",)),
        compiler="/usr/bin/dash",
        hidden=hidden,
        standard=(),
        directory="/",
        epoch="",
        terminal=False,
    )


@needs_compiler
def test_code_in_the_sandbox_gets_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    result = run_code(
        tmp_path,
        "id -u; ls -A /; env; ls -A /root /home /etc /proc /run /var; cat /etc/passwd\n"
        "echo >/x; echo > /.armvm-host/usr/x; ls /dev/kvm /dev/vda",
    )
    told = result.messages.decode()
    lines = told.splitlines()
    assert lines[0] == str(sandbox.NOBODY)
    assert sorted(lines[1:5]) == [".armvm-host", ".armvm-output", "code", "dev"]
    assert "hidden" not in told
    assert "root:" not in told
    assert told.count("No such file or directory") >= 9
    assert "Read-only file system" in told
    assert list(tmp_path.glob("service/job-x/tree/x")) == []


@needs_compiler
def test_code_in_the_sandbox_cannot_start_any_number_of_processes(tmp_path: Path) -> None:
    result = run_code(tmp_path, "for i in $(seq 200); do sleep 60 & done; echo all of them")
    assert b"fork" in result.messages
    assert b"all of them" not in result.messages
    result = run_code(
        tmp_path / "next", f"for i in $(seq {sandbox.PROCESSES // 2}); do sleep 60 & done; echo ok"
    )
    assert result.messages == b"ok\n"


@needs_compiler
def test_code_in_the_sandbox_has_one_small_place_to_write(tmp_path: Path) -> None:
    include = include_directories(GCC, "c")[-1]
    result = run_code(
        tmp_path,
        f"for one in {sandbox.HOST}{include} /dev /dev/shm /; do echo >$one/x; done\n"
        "cat /.armvm-output/x; echo data >/dev/null && echo ok\n"
        "head -c 300M /dev/zero >/.armvm-output/o; rm /.armvm-output/o; exit 1",
        hidden=[include],
    )
    lines = result.messages.decode().splitlines()
    assert [("Read-only file system" in one) for one in lines[:4]] == [True] * 4
    assert "ok" in lines
    assert "No space left on device" in lines[-1] or "File too large" in lines[-1]


def archive(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            one = tarfile.TarInfo(name.partition("_")[0])
            one.size = len(content)
            tar.addfile(one, io.BytesIO(content))
    return out.getvalue()


def test_only_the_archive_of_the_sandboxs_script_is_read(tmp_path: Path) -> None:
    good = {"c": b"0", "o": b"object"}
    assert sandbox._members(archive(good)) == good
    assert sandbox._members(archive({"o": bytes(1 << 20)}, "w:gz")) == {}
    assert sandbox._members(archive({"o": bytes(1 << 20)}, "w:xz")) == {}
    for other in (archive({**good, "x": b""}), archive({**good, "o_2": b"another"})):
        with pytest.raises(CommandFailed):
            sandbox._members(other)
    (tmp_path / "o").touch()
    os.truncate(tmp_path / "o", 1 << 40)
    for kind in ("gnu", "posix"):
        words = ["tar", "-c", "--sparse", f"--format={kind}", "o"]
        holes = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout
        assert len(holes) < 1 << 20
        with pytest.raises(CommandFailed):
            sandbox._members(holes)


@needs_compiler
def test_what_a_sandbox_sends_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_SCRIPT", '"$@"')  # the code has the script's standard output
    with pytest.raises(CommandFailed, match="wrote more than"):
        run_code(tmp_path, "head -c 600M /dev/zero")


@needs_compiler
@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("cd /.armvm-output; echo >o", True),
        ("cd /.armvm-output; echo >o; echo >o.gcno", False),
        ("cd /.armvm-output; truncate -s 1T o", False),
    ],
)
def test_only_files_that_are_expected_are_taken(tmp_path: Path, code: str, made: bool) -> None:
    result = run_code(tmp_path, code)
    assert (result.code == 0 and result.output is not None) == made
    assert len(result.output or b"") < 10


@pytest.mark.parametrize(
    "words",
    [
        "-c x.c -fplugin=/tmp/x.so",
        "-c x.c -wrapper sh,-c,id",
        "-c x.c -B/tmp",
        "-c x.c -specs=x",
        "-c @file",
        "-c x.c -march=native",
        "-c x.c -Wa,-a=/tmp/x",
        "-c x.c -Wp,-MD,x",
        "-c x.c -save-temps",
        "-c x.c -fdump-tree-all",
        "-c x.c -fprofile-use",
        "-c x.c --coverage",
        "-c x.c -gsplit-dwarf",
        "-c x.c -x c++",
        "-c x.s",
        "-c x.c y.c",
        "-c",
        "-c -",
        "-c x.c -o",
        "-c x.c -imacros y.h",
        "-c x.c -MF x.d",
        "-c x.c -I",
        "-c x.c -M",
        "-c x.c -o a\nb",
        "-c x.c -o a.o -o b.o",
        "-c x.c -MD -o .o",
        "-c x.c -DH=__has_include",
        "-c x.c -D NOW=__DATE__",
        "-E x.c",
        "-S x.c",
    ],
)
def test_other_options_are_declined(words: str) -> None:
    with pytest.raises(Declined):
        read("c", words.split(" "))


def test_options_are_read_as_gcc_reads_them() -> None:
    step = read(
        "c",
        "-DX=1 -D Y -O2 -iquote q -Ii -isystem s -idirafter a -MMD -c d/x.c -o o/x.obj".split(),
    )
    assert (step.source, step.output, step.depends) == ("d/x.c", "o/x.obj", "o/x.d")
    assert step.options == ("-D", "X=1", "-D", "Y", "-O2", "-MMD", "-c", "-MT", "o/x.obj")
    assert (step.quote, step.bracket, step.system, step.after) == (("q",), ("i",), ("s",), ("a",))
    plain = read("c", ["-c", "d/x.cpp", "-MD"])
    assert (plain.language, plain.output, plain.depends) == ("c++", "x.o", "x.d")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"#include <a.h>\n", ["<a.h"]),
        (b'  #\tinclude "a b.h" /* x */\n', ['"a b.h']),
        (b"%: include <a.h>\n", ["<a.h"]),
        (b"#inc\\\nlude \\\r\n<a.h>", ["<a.h"]),
        (b"#include \\  \n<a.h>", ["<a.h"]),
        (b"/* x */ #include_next <a.h>\n", ["<a.h+"]),
        (b"#import <a.h>\n", ["<a.h"]),
        (b"// #include <a.h>\n", ["<a.h"]),
        (b"#include NAME // x\n", ["=NAME"]),
        (b"/*\n#include NAME\n#include_next's\n*/\n", []),
        (b"#ifdef __has_include\n#if __has_include(<a.h>)\n", ["<a.h"]),
        (b'#if defined(__has_include_next) && __has_include_next ("a.h")\n', ['"a.h+']),
        (b"int x; // include these\n", []),
        (b"long x = 1'000; /* one quote\n#include NAME(x)\n*/\n", []),
        (b"#error don't /* no comment\n#include <a.h>\n// */\n", ["<a.h"]),
        (b'puts("#include \\"%s\\"\\n"); puts("#include NAME(x)");\n', []),
        (b"// __has_include is new\n#if defined(__has_include)\n#ifdef __has_include_next\n", []),
    ],
)
def test_includes_are_found(text: bytes, names: list[str]) -> None:
    shown = [
        ("=" if one.macro else '"' if one.quoted else "<")
        + one.name
        + ("+" if one.following else "")
        for one in scan(text)
    ]
    assert shown == names


@pytest.mark.parametrize(
    "text",
    [
        b"??=include <a.h>\n",
        b"#include NAME(x)\n",
        b"#include __FILE__\n",
        b"#include_next NAME\n",
        b"#/**/include <a.h>\n",
        b"#if __has_include(NAME)\n",
        b'#pragma GCC dependency "a.h"\n',
        b'asm(".incbin \\"x\\"");\n',
        b'auto x = R"(/*)";\n#include NAME(1)\n',
        b"#include \xff\n",
        b"#\f/**/include <a.h>\n",
        b"#define/**/X <a.h>\n",
        b'asm(".include \\"x.s\\"");\n',
        b"#define H __has_include\n#if H(<a.h>)\n",
        b"#define P(x) P2(__has_, x)\n",
        b"#define P(x) __has_include ## x\n",
        b"const char *now = __TIMESTAMP__ __DATE__;\n",
    ],
)
def test_what_cannot_be_told_is_declined(text: bytes) -> None:
    with pytest.raises(Declined):
        scan(text)


def test_a_macros_names_are_those_that_it_is_defined_as() -> None:
    text = b'#define X "a.h"\n# define\tX <b.h>\n#define XY <c.h>\n#undef X\n'
    assert [one.name for one in definitions(text, "X")] == ["a.h", "b.h"]
    for other in (b"#define X Y\n", b"#define X(y) <y>\n", b"#define X\n"):
        with pytest.raises(Declined):
            definitions(other, "X")


@pytest.mark.parametrize(
    "text",
    [
        b"/*" * 200_000,
        b"#" * 500_000,
        b"#include " * 100_000,
        b'"' * 300_000,
        b'#include X Y\n"' + b'\\"' * 500_000,
        b"#include X Y\n'" + b"\\'" * 500_000 + b"\\",
        b"#include X Y\n" + b"1'" * 500_000,
    ],
)
@pytest.mark.timeout(60)  # a pattern that begins anew at each byte would take hours
def test_hostile_text_takes_little_time(text: bytes) -> None:
    with contextlib.suppress(Declined):
        scan(text)


def test_comments_of_long_files_are_not_told_apart() -> None:
    text = b"int x;\n" * (LONGEST_COMMENTED // 7 + 1)
    assert scan(text + b"#include <a.h>\n")
    with pytest.raises(Declined, match="a long file"):
        scan(text + b"// #include X Y\n")


def closure(
    files: dict[str, bytes], words: str, standard: list[str], size: int = 0
) -> dict[str, Stat]:
    numbers = {one: at for at, one in enumerate(sorted(files), 1)}

    def stat(paths: object) -> list[Stat]:
        return [
            Stat(kind=1, inode=numbers[one], size=size)
            if one in files
            else Stat(kind=2, inode=hash(one))
            if any(other.startswith(f"{one}/") for other in files)
            else Stat(kind=0)
            for one in paths  # type: ignore[attr-defined]
        ]

    return Closure(
        step=read("c", words.split()),
        directory="/w",
        standard=standard,
        stat=stat,
        included=lambda wanted: [scan(files[path]) for path, _ in wanted],
        defined=lambda file, macro: definitions(files[file[0]], macro),
    ).find()


def test_the_first_place_counts_and_all_for_include_next() -> None:
    files = {
        "/w/x.c": b"#include <a.h>\n#include M\n",
        "/w/1/a.h": b"#include_next <a.h>\n#define M <m.h>\n",
        "/w/2/a.h": b"",
        "/s/a.h": b'#include "b.h"\n',
        "/w/b.h": b"not reached: the directory of the file that includes comes first",
        "/s/b.h": b"",
        "/s/m.h": b"",
        "/s/unused.h": b"",
    }
    found = closure(files, "-I1 -I2 -c x.c", ["/s"])
    assert set(found) == {"/w/x.c", "/w/1/a.h", "/w/2/a.h", "/s/a.h", "/s/b.h", "/s/m.h"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"/w/x.c": b'#include "%s"' % (b"a/" * 101 + b"x.h")}, "too long"),
        ({"/w/x.c": b'#include "%s"' % (b"a" * 4096)}, "too long"),
        (
            {"/w/x.c": b"".join(b"#include M%d\n" % n for n in range(200))},
            "too many includes of macros",
        ),
    ],
)
def test_a_step_has_limits(files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        closure(files, "-I. -c x.c", [], size=32 << 20)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"ARMVMCC1" + struct.pack(">I", 2**32 - 1),
        b"ARMVMCC1" + struct.pack(">II", 5, 2**31),
        b"ARMVMCC1" + struct.pack(">III", 5, 0, (2 << 20) + 1),
        b"ARMVMCC1" + struct.pack(">I", 5) + 5 * (struct.pack(">I", 1) + b"x"),
        b"ARMVMCC1" + struct.pack(">I", 4) + 4 * (struct.pack(">I", 2) + b"/\0"),
    ],
)
def test_hostile_guests_are_declined(tmp_path: Path, sent: bytes) -> None:
    here, there = socket.socketpair()
    compilers = job.Compilers(names={"gcc": "c"}, host={}, standard={}, hidden=())
    said: list[str] = []
    with here:
        here.sendall(sent)
        here.shutdown(socket.SHUT_WR)
        store = Store(directory=tmp_path)
        job.serve(there, compilers, store, threading.Semaphore(1), said.append)
    assert len(said) == 1
    assert said[0].startswith("declined: ")


@needs_compiler
def test_a_step_makes_few_directories(
    guest: Guest, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MOST_DIRECTORIES", 10)
    assert guest.compile(project / "src", *C_WORDS) == "more than 10 directories"


def test_an_error_that_nobody_expects_declines_one_step(tmp_path: Path) -> None:
    compilers = job.Compilers(names={"gcc": "c"}, host={"c": "/none"}, standard={}, hidden=())
    guest = Guest(compilers=compilers, store=Store(directory=tmp_path))
    assert guest.compile(tmp_path, "-c", "x.c") == "'c'"
    assert guest.said == ["declined: 'c'"]


def test_a_guest_does_not_fill_the_hosts_file_system() -> None:
    def told(size: int, free: int, files: int, free_files: int) -> os.statvfs_result:
        return os.statvfs_result((1, 4096, size, free, free, files, free_files, free_files, 0, 255))

    large, small = 100 << 30 >> 12, 800 << 20 >> 12
    assert has_room(told(large, large // 10, 0, 0))
    assert not has_room(told(large, large // 200, 0, 0))
    assert has_room(told(small, small // 2, 1000, 500))
    assert not has_room(told(small, small // 5, 1000, 500))
    assert not has_room(told(small, small // 2, 1000, 100))


def test_the_facts_of_a_guest_are_checked() -> None:
    facts = compile_script.read_facts(
        "machine aarch64\nversion c 12.2.0\nversion c \u0663\n"
        "version c++ 12.2.0; rm\nname c gcc\nname c ../gcc\n"
        "include c /usr/lib/gcc/../include\ninclude c relative\nname d gdc\n"
    )
    assert facts.versions == {"c": "12.2.0"}
    assert facts.names == {"gcc": "c"}
    assert facts.includes == {"c": ("/usr/lib/include",)}


def in_guest(monkeypatch: pytest.MonkeyPatch, code: int, out: int, err: bytes, log: Path) -> str:
    """Run a script in a guest that answers so."""

    def execute(*_: object, stdout: Sink, stderr: Sink, **__: object) -> int:
        for _part in range(out):
            stdout(bytes(1 << 16))
        stderr(err)
        return code

    monkeypatch.setattr(accelerate, "execute", execute)
    machine = Handle(connection=None, domain=None, instance=INSTANCE)
    return accelerate._in_guest(machine, b"", Quiet(), log=log)


def test_a_guest_cannot_fill_the_hosts_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff" * 9000 + b"the end")
    assert in_guest(monkeypatch, 0, 1, b"", log) == "\0" * (1 << 16)
    with pytest.raises(CommandFailed, match="sent more than"):
        in_guest(monkeypatch, 0, 10_000_000, b"", log)
    with pytest.raises(CommandFailed) as caught:
        in_guest(monkeypatch, compile_script.NOT_SERVED, 0, bytes(1 << 20) + b"said", log)
    assert len(str(caught.value.detail)) < 2100
    assert "said\n" in str(caught.value.detail)
    assert str(caught.value.detail).endswith("the end")


def test_a_state_directory_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError):
        accelerate.stop(Handle(connection=None, domain=None, instance=INSTANCE), Quiet())
    where = Where(connection=None, facts=facts_of(TCG_HOST))
    with pytest.raises(StorageError):
        fill(where, "ci", lambda name: Machine(name=name), Quiet())


def test_the_program_compiles_without_a_warning(tmp_path: Path) -> None:
    source = Path("templates/accelerate.c")
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", str(tmp_path / "x"), str(source)]
    subprocess.run(words, check=True)


def test_the_scripts_are_valid_shell() -> None:
    facts = compile_script.Facts(
        machine="aarch64",
        versions={"c": "12.2.0", "c++": "12.2.0"},
        names={"gcc": "c", "g++": "c++"},
        includes={},
    )
    for text in (
        compile_script.FACTS.encode(),
        compile_script.install("int x;\n", facts, "1-2", "o'x"),
    ):
        subprocess.run(["sh", "-n"], input=text, check=True)
    assert re.search(rb"0100007F:8DE1 ", compile_script.install("", facts, "", "x"))
