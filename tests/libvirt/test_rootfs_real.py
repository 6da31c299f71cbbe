"""Root file systems on the real host, as root and as an ordinary user: made, entered, archived.

One Debian for arm64 is made for all of them, and kept in the tester's cache: one to three minutes
the first time. What is hostile is tried on small trees with a busybox from it.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armvm.base.paths import cache_dir
from armvm.provision.rootfs.place import SUFFIX
from armvm.usermode.rootfs import tree
from tests import schemas
from tests.boot.conftest import OrdinaryUser, ordinary_user  # noqa: F401
from tests.build_tools import can_build
from tests.namespace_tools import ARM, line, run_with_handlers
from tests.support import ARMVM, armvm

pytestmark = [can_build, pytest.mark.timeout(900)]

#: Read before the tests' own homes come into force. The name changes with what is in it.
KEPT = cache_dir() / "tests" / "debian-12-arm64-busybox"


@pytest.fixture(scope="session")
def debian() -> Path:
    """A Debian 12 for arm64, with a static busybox; nobody changes it."""
    if not KEPT.is_dir():
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        made = armvm(
            *("rootfs", "create", KEPT, "--image", "debian:12", "--package", "busybox-static"),
            "--json",
            timeout=800,
        ).ok()
        told = schemas.check("rootfs create", json.loads(made.out))
        assert told["path"] == str(KEPT)
        assert (told["arch"], told["owner"], told["packages"]) == ("arm64", 0, ["busybox-static"])
        assert not list(KEPT.parent.glob(f".*{SUFFIX}"))
    return KEPT


@pytest.fixture
def small(debian: Path, tmp_path: Path) -> Path:
    """A root file system of busybox alone, to do anything to."""
    top = tmp_path / "small"
    for name in ("bin", "etc", "proc", "sys", "dev", "run", "root", "tmp"):
        (top / name).mkdir(parents=True)
    shutil.copy(tree.find(debian, "bin/busybox") or "", top / "bin/busybox")
    for name in ("sh", "id", "uname", "cat", "ls", "sleep", "mount", "hostname", "env", "kill"):
        (top / "bin" / name).symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return top


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def enter(root: Path, *words: str, code: int = 0) -> str:
    """Run a command in *root*, and see to it that nothing of it stays mounted here."""
    before = mounts()
    done = armvm("rootfs", "enter", root, "--", *words)
    assert done.code == code, done.err
    assert mounts() == before
    return done.out


def test_programs_of_the_target_run(debian: Path) -> None:
    assert enter(debian, "uname", "-m") == "aarch64\n"
    assert enter(debian, "dpkg", "--print-architecture") == "arm64\n"
    assert "uid=0(root)" in enter(debian, "id")


def test_exit_codes_are_passed_on(debian: Path, small: Path) -> None:
    enter(debian, "sh", "-c", "exit 7", code=7)
    enter(debian, "sh", "-c", "kill -KILL $$", code=137)
    done = armvm("rootfs", "enter", debian, "--", "no-such-program")
    assert done.code == 127
    assert "program 'no-such-program' not found" in done.err
    assert armvm("rootfs", "enter", debian, "--", "/etc/passwd").code == 126
    # Its loader is missing, as QEMU says by its own exit code.
    (small / "bin/lost").write_bytes((tree.find(debian, "bin/true") or small).read_bytes())
    (small / "bin/lost").chmod(0o755)
    lost = armvm("rootfs", "enter", small, "--", "lost")
    assert lost.code not in (0, 127)
    assert "/lib/ld-linux-aarch64.so.1" in lost.err


def test_input_is_passed_and_words_stay_words(small: Path) -> None:
    done = armvm("rootfs", "enter", small, "--", "cat", stdin="a line\n")
    assert done.ok().out == "a line\n"
    assert (
        enter(small, "sh", "-c", 'echo "$1|$2"', "sh", "a  b", "--json;'\"") == "a  b|--json;'\"\n"
    )


def test_what_programs_expect_is_there(debian: Path) -> None:
    script = (
        "set -e; test -r /proc/1/status; test -d /sys/class; echo x > /dev/null; test -c /dev/tty;"
        "head -c 3 /dev/urandom >/dev/null; test -w /dev/shm; test -w /run; test -e /dev/fd/0;"
        "cat /etc/resolv.conf; ls /dev; env"
    )
    out = enter(debian, "sh", "-c", script)
    assert Path("/etc/resolv.conf").read_text() in out
    assert "PATH=/usr/local/sbin:" in out
    assert "HOME=/root\n" in out
    # No disk of the host's.
    assert not {"vda", "sda", "nvme0n1", "kmsg", "mem"} & set(out.split())


def test_the_hosts_files_cannot_be_changed(small: Path) -> None:
    resolv = Path("/etc/resolv.conf").read_bytes()
    (small / "etc/resolv.conf").write_text("")
    script = "echo x > /etc/resolv.conf; echo x > /sys/kernel/mm/ksm/run; chmod 600 /dev/null; true"
    before = Path("/dev/null").stat().st_mode
    enter(small, "sh", "-c", script)
    enter(small, "hostname", "changed")
    assert Path("/etc/resolv.conf").read_bytes() == resolv
    assert Path("/dev/null").stat().st_mode == before
    assert socket.gethostname() != "changed"


def test_what_is_left_running_ends(small: Path) -> None:
    start = time.monotonic()
    out = enter(small, "sh", "-c", "sleep 987 >/dev/null 2>&1 & echo started")
    assert out == "started\n"
    assert time.monotonic() - start < 60
    assert not running("sleep 987")


def running(words: str) -> bool:
    done = subprocess.run(["pgrep", "-f", words], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_when_armvm_ends_all_ends(small: Path, number: signal.Signals) -> None:
    words = f"sleep 98{int(number)}"
    process = subprocess.Popen(
        [*ARMVM, "rootfs", "enter", small, "--", *words.split()], start_new_session=True
    )
    try:
        until(lambda: running(f"^(/bin/|.*qemu.* )?{words}"))
        os.kill(process.pid, number)
        process.wait(30)
        until(lambda: not running(words))
    finally:
        process.kill()


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_on_a_terminal_its_keys_go_to_the_command(small: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = [*ARMVM, "rootfs", "enter", str(small), "--", "sh", "-c", "echo ready; sleep 500"]
        os.execv(words[0], words)
    said = b""
    try:
        while b"ready" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130


# ---- hostile trees -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "run"])
def test_a_link_where_something_is_mounted_is_refused(small: Path, name: str) -> None:
    (small / name).rmdir()
    (small / name).symlink_to("/" if name == "proc" else "../../../../etc")
    refused = armvm("rootfs", "enter", small, "--", "id").failed(6)
    assert f"/{name} in the root file system is a link" in refused.err
    assert "uid=" not in refused.out


def test_a_missing_directory_is_made_and_a_file_is_refused(small: Path) -> None:
    (small / "sys").rmdir()
    (small / "run").rmdir()
    enter(small, "ls", "/sys/class")
    (small / "dev").rmdir()
    (small / "dev").write_text("")
    armvm("rootfs", "enter", small, "--", "id").failed(6)


@pytest.mark.parametrize(
    "target", ["../../../etc/passwd", "/etc/passwd", "../../../../etc/armvm-made", "passwd", "/"]
)
def test_a_resolv_conf_that_leads_out_changes_nothing(small: Path, target: str) -> None:
    (small / "etc/resolv.conf").symlink_to(target)
    passwd = Path("/etc/passwd").read_bytes()
    armvm("rootfs", "enter", small, "--", "sh", "-c", "echo mine > /etc/resolv.conf; true").ok()
    assert Path("/etc/passwd").read_bytes() == passwd
    assert not Path("/etc/armvm-made").exists()
    if target.endswith("passwd"):
        assert (small / "etc/passwd").read_text() == "mine\n", "a link's place is in there"


def test_a_resolv_conf_outside_by_the_right_name_is_not_made(small: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (small / "etc/resolv.conf").symlink_to(f"../../../../../../..{outside}/resolv.conf")
    done = armvm("rootfs", "enter", small, "--", "id").ok()
    assert "no name resolution" in done.err
    assert list(outside.iterdir()) == []


def test_systemds_resolv_conf_works(small: Path) -> None:
    (small / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert enter(small, "cat", "/etc/resolv.conf") == Path("/etc/resolv.conf").read_text()
    assert list((small / "run").iterdir()) == []


def test_a_shell_that_is_a_link_out_of_it_is_not_the_hosts(small: Path) -> None:
    """The host has a /usr/bin/python3; the tree has none."""
    (small / "bin/evil").symlink_to("../../../../../../usr/bin/python3")
    assert armvm("rootfs", "enter", small, "--", "evil", "-c", "1").code == 127


# ---- archives ------------------------------------------------------------------------------


def test_an_archive_is_the_same_each_time_and_whole(debian: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    armvm("rootfs", "to-tar", debian, "--output", first).ok()
    with second.open("wb") as file:
        subprocess.run([*ARMVM, "rootfs", "to-tar", debian, "--quiet"], stdout=file, check=True)
    assert first.read_bytes() == second.read_bytes()
    armvm("rootfs", "to-tar", debian, "--output", first).failed(5)
    with tarfile.open(first) as archive:
        members = {one.name: one for one in archive.getmembers()}
    assert members["./etc/passwd"].isfile()
    assert members["./bin"].issym()
    shadow = members["./etc/shadow"]
    assert (shadow.uid, shadow.gid, shadow.uname) == (0, 42, "")
    assert not [one.name for one in members.values() if one.isdev()]
    second.unlink()


def test_sockets_and_devices_are_left_out_and_attributes_kept(small: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(small / "run/s"))
    os.mknod(small / "dev/null", 0o600 | 0o020000, os.makedev(1, 3))
    os.setxattr(small / "bin/busybox", "user.note", b"kept")
    (small / "etc/line\nbreak").write_text("")
    (small / "-rf").write_text("")
    output = tmp_path / "x.tar"
    armvm("rootfs", "to-tar", small, "-o", output).ok()
    with tarfile.open(output) as archive:
        members = {one.name: one for one in archive.getmembers()}
    assert not {"./run/s", "./dev/null"} & members.keys()
    assert {"./etc/line\nbreak", "./-rf"} <= members.keys()
    assert members["./bin/busybox"].pax_headers["SCHILY.xattr.user.note"] == "kept"


# ---- one program alone ---------------------------------------------------------------------


def test_a_program_with_libraries_from_a_sysroot(debian: Path) -> None:
    run = ("emulate", "--sysroot", debian)
    assert armvm(*run, "busybox", "uname", "-m").ok().out == "aarch64\n"
    assert armvm(*run, "uname", "-m").ok().out == "aarch64\n"
    assert armvm(*run, "sh", "-c", "exit 9").code == 9
    assert armvm(*run, "sh", "-c", "kill -TERM $$").code == 128 + signal.SIGTERM
    refused = armvm("emulate", tree.find(debian, "bin/true") or "").failed(6)
    assert "/lib/ld-linux-aarch64.so.1" in refused.err
    assert "armvm rootfs create DIR" in refused.err


def test_libraries_are_fetched_once(debian: Path, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    program = tree.find(debian, "bin/true") or ""
    armvm("emulate", "--image", "debian:12", program, env=env, timeout=300).ok()
    (kept,) = [one for one in (tmp_path / "armvm/sysroots").iterdir() if one.is_dir()]
    assert kept.name.startswith("debian-12-arm64-")
    start = time.monotonic()
    again = armvm("emulate", "--image", "local:debian-12", program, env=env).ok()
    assert (again.err, time.monotonic() - start < 20) == ("", True)


# ---- what cannot be made leaves nothing ----------------------------------------------------


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    refused = armvm("rootfs", "create", tmp_path / "x", "-p", "no-such-thing-here", timeout=300)
    assert "package 'no-such-thing-here' not found" in refused.failed(4).err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    armvm("rootfs", "create", tmp_path / "full").failed(5)
    armvm("rootfs", "create", tmp_path / "full/file").failed(5)
    (tmp_path / "link").symlink_to("nowhere")
    armvm("rootfs", "create", tmp_path / "link").failed(5)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_an_interrupted_one_is_removed(tmp_path: Path, number: signal.Signals) -> None:
    """By itself, or after a kill by the next run."""
    process = subprocess.Popen(
        [*ARMVM, "rootfs", "create", str(tmp_path / "x")],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        for told in process.stderr:
            if "unpacking" in told:
                break
        process.send_signal(number)
        process.wait(60)
    if number is signal.SIGKILL:
        assert list(tmp_path.iterdir())
        until(lambda: not running(str(tmp_path)))
        armvm("rootfs", "create", tmp_path / "x", "-p", "no-such-thing-here", timeout=300).failed(4)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_boot_says_what_it_lacks(debian: Path, small: Path) -> None:
    refused = armvm("rootfs", "to-image", debian, "--output", small / "x.qcow2").failed(3)
    for word in ("linux-image-cloud-arm64", "shim-signed", "cloud-init", "openssh-server", "fstab"):
        assert word in refused.err
    assert "e2fsprogs" in refused.err or (debian / "sbin/mke2fs").exists()
    assert not (small / "x.qcow2").exists()
    refused = armvm("rootfs", "to-image", small, "--output", small / "x.qcow2").failed(3)
    assert "os-release" in refused.err


# ---- an ordinary user ----------------------------------------------------------------------


@pytest.fixture
def lent(ordinary_user: OrdinaryUser, small: Path) -> Iterator[Path]:  # noqa: F811
    """A tree as mmdebstrap makes it for an ordinary user: its root is the first of his ids."""
    ids = [
        row.split(":")[1]
        for row in Path("/etc/subuid").read_text().splitlines()
        if row.startswith(f"{ordinary_user.name}:")
    ]
    place = ordinary_user.home / "lent"
    shutil.copytree(small, place, symlinks=True)
    subprocess.run(["chown", "-Rh", f"{ids[0]}:{ids[0]}", place], check=True)
    ordinary_user.home.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_an_ordinary_user_is_root_in_there_alone(
    ordinary_user: OrdinaryUser,  # noqa: F811
    lent: Path,
    debian: Path,
) -> None:
    done = ordinary_user.armvm(
        *("rootfs", "enter", lent, "--"),
        *("sh", "-c", "id -u; echo 1 > /etc/made; cat /proc/self/uid_map; exit 5"),
    )
    assert done.code == 5, done.err
    assert done.out.splitlines()[0] == "0"
    assert (lent / "etc/made").stat().st_uid == lent.stat().st_uid
    # Root who enters it is no more than that.
    root = armvm("rootfs", "enter", lent, "--", "cat", "/proc/self/uid_map").ok().out.split()
    assert root[1] == str(lent.stat().st_uid)
    refused = ordinary_user.armvm("rootfs", "enter", debian, "--", "id")
    assert refused.code in (4, 7), refused.err
    archived = ordinary_user.armvm("rootfs", "to-tar", lent, "--output", "lent.tar")
    archived.ok()
    with tarfile.open(ordinary_user.home / "lent.tar") as archive:
        assert {one.uid for one in archive.getmembers()} == {0}


def test_an_ordinary_users_failure_leaves_nothing(
    ordinary_user: OrdinaryUser,  # noqa: F811
) -> None:
    ordinary_user.home.chmod(0o755)
    refused = ordinary_user.armvm(
        "rootfs", "create", "made", "-p", "no-such-thing-here", timeout=300
    )
    assert "package 'no-such-thing-here' not found" in refused.failed(4).err
    assert not [one for one in ordinary_user.home.iterdir() if "made" in one.name]
    refused = ordinary_user.armvm("rootfs", "create", "/tmp/armvm-made").failed(7)
    assert "belongs to another user" in refused.err
    ordinary_user.home.chmod(0o700)
    try:
        refused = ordinary_user.armvm("rootfs", "create", "made").failed(7)
        assert "other users cannot enter" in refused.err
    finally:
        ordinary_user.home.chmod(0o755)


# ---- 32 bits -------------------------------------------------------------------------------


@pytest.mark.skipif(not ARM.exists(), reason="needs qemu-arm-static")
def test_armhf() -> None:
    """Made (once) and entered with a handler for arm that only this test's namespace has."""
    place = KEPT.with_name("debian-12-armhf")
    program = (sys.executable, "-m", "armvm", "rootfs")
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        create = [*program, "create", str(place), "--arch", "armhf"]
        without = run_with_handlers([], create)
        assert without.returncode == 6, without.stderr
        assert "armvm binfmt register arm" in without.stderr
        made = run_with_handlers([line("arm")], create, timeout=800)
        if made.returncode == 8 and "the package archive is being updated" in made.stderr:
            pytest.skip("the package archive's lists and files for armhf do not fit together now")
        assert made.returncode == 0, made.stderr
    for words, said in (
        (["dpkg", "--print-architecture"], "armhf\n"),
        (["uname", "-m"], "armv7l\n"),
    ):
        done = run_with_handlers([line("arm")], [*program, "enter", place, "--", *words])
        assert (done.returncode, done.stdout) == (0, said), done.stderr
    without = run_with_handlers([], [*program, "enter", place, "--", "true"])
    assert "armvm binfmt register arm" in without.stderr
    unfixed = run_with_handlers([line("arm", "O")], [*program, "enter", place, "--", "true"])
    assert "lacks flag F" in unfixed.stderr
    assert "only boot arm64" in armvm("rootfs", "to-image", place, "--as", "x").failed(3).err
