"""A guest whose compile steps run on this host: real builds, their objects, and what ends it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from armvm.base.poll import until
from tests.boot.conftest import OrdinaryUser, baked
from tests.boot.test_warm import CLONE_TIMEOUT
from tests.support import armvm, fresh_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

#: A project of C and C++, built by make: its objects by the host and by the guest's own compilers.
PROJECT = r"""
set -e
mkdir -p project/include project/src && cd project
for i in 1 2 3 4 5 6; do
  printf '#include <stdio.h>\n#include <stdlib.h>\n#include "common.h"\n' >src/part$i.c
  printf 'int part%d(int n) { static int sum; ' $i >>src/part$i.c
  printf 'for (int k = 0; k < n; k++) sum += k * SCALE; ' >>src/part$i.c
  printf 'return printf("%%s %%d\\n", __FILE__, sum); }\n' >>src/part$i.c
done
printf '#pragma once\n#define SCALE 3\n' >include/common.h
printf '#include <map>\n#include <string>\n#include <iostream>\n' >src/main.cc
printf 'extern "C" int part1(int);\nint main() { ' >>src/main.cc
printf 'std::map<std::string, int> m{{"a", part1(4)}}; ' >>src/main.cc
printf 'std::cout << m["a"] << std::endl; return 0; }\n' >>src/main.cc
cat >Makefile <<'END'
CFLAGS = -O2 -g -Wall -MD -fPIC
CXXFLAGS = $(CFLAGS) -std=c++17
CPPFLAGS = -Iinclude
OBJECTS = $(patsubst src/%.c,src/%.o,$(wildcard src/*.c)) src/main.o
main: $(OBJECTS)
	$(CXX) -o $@ $(OBJECTS)
-include src/*.d
END
"""
#: Compares two builds, except for the name of the compiler's package.
COMPARE = r"""
set -e
cd project
make -s -j2 && ./main && mkdir -p there && mv src/*.o src/*.d there
make -s -j2 CC=/usr/bin/gcc CXX=/usr/bin/g++
for one in src/*.o; do
  objcopy -R .comment $one here.o && objcopy -R .comment there/${one#src/} there.o
  cmp here.o there.o
done
for one in src/*.d; do cmp $one there/${one#src/}; done
echo all the same
"""

#: Compiles one file, and fails if the host does not.
ONE_FILE = "echo 'int one(void) { return 1; }' >one.c && ARMVM_ACCELERATE=only cc -O2 -c one.c"
#: A source package of one file, which is built as the archive's are.
PACKAGE = r"""
set -e
mkdir -p hello-1/debian && cd hello-1
printf '#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n' >hello.c
cat >debian/control <<'END'
Source: hello
Section: misc
Priority: optional
Maintainer: A Tester <tester@example.org>
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: hello
Architecture: any
Description: greet
END
cat >debian/changelog <<'END'
hello (1) unstable; urgency=low

  * First.

 -- A Tester <tester@example.org>  Mon, 30 Nov 2026 00:00:00 +0000
END
cat >debian/rules <<'END'
#!/usr/bin/make -f
include /usr/share/dpkg/buildflags.mk
export
build build-arch: hello
hello: hello.o
	$(CC) $(LDFLAGS) -o $@ $^
binary binary-arch: hello
	install -D hello debian/hello/usr/bin/hello
	mkdir debian/hello/DEBIAN
	dpkg-gencontrol -Pdebian/hello
	dpkg-deb --build debian/hello ..
clean:
	rm -rf hello hello.o debian/hello
END
chmod +x debian/rules
dpkg-buildpackage -b -uc -us >../buildpackage.log 2>&1 || { cat ../buildpackage.log; exit 1; }
dpkg-deb -x ../hello_1_arm64.deb ../unpacked
test "$(../unpacked/usr/bin/hello)" = hello
"""


@pytest.fixture(scope="module")
def compilers(debian_image: Path) -> Iterator[str]:
    options = ("--network", "user", "--install", "dpkg-dev,g++,gcc,make")
    with baked("armvm-acc", debian_image, *options) as name:
        yield name


@pytest.fixture(scope="module")
def machine(compilers: str) -> Iterator[str]:
    name = fresh_name("armvm-acc")
    armvm("create", "--from", compilers, "--name", name, timeout=CLONE_TIMEOUT).ok()
    try:
        armvm("ssh", name, "--", PROJECT).ok()
        yield name
    finally:
        armvm("delete", "--yes", name)


@pytest.fixture
def accelerated(machine: str) -> Iterator[dict[str, object]]:
    told = armvm("accelerate", machine, "--json", timeout=900).ok().json
    try:
        yield told
    finally:
        armvm("accelerate", machine, "--stop").ok()


def test_a_build_makes_the_same_objects(machine: str, accelerated: dict[str, object]) -> None:
    assert {"gcc", "g++", "cc", "c++"} <= set(accelerated["names"])  # type: ignore[call-overload]
    out = armvm("ssh", machine, "--", COMPARE, timeout=900).ok().out
    assert out.endswith("all the same\n")
    log = Path(str(accelerated["log"])).read_text()
    assert log.count("\ncompiled in ") + log.startswith("compiled in ") >= 7


def test_a_second_start_takes_the_place_of_the_first(
    machine: str, accelerated: dict[str, object]
) -> None:
    again = armvm("accelerate", machine, "--json", timeout=900).ok().json
    assert again["pid"] != accelerated["pid"]
    assert not Path(f"/proc/{accelerated['pid']}").exists()
    only = "cd project && ARMVM_ACCELERATE=only cc -c -Iinclude src/part1.c -o /tmp/x.o"
    armvm("ssh", machine, "--", only).ok()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_build_goes_on_without_the_host(
    machine: str, accelerated: dict[str, object], how: str
) -> None:
    script = (
        "cd project && rm -f src/*.o main && { make -j2 main >../log 2>&1; echo $? >../code; } & "
        "sleep 1; until ls project/src/*.o >/dev/null 2>&1; do sleep 0.1; done"
    )
    armvm(
        "ssh", machine, "--", f"rm -f code; setsid sh -c '{script}' >/dev/null 2>&1 </dev/null"
    ).ok()
    if how == "stop":
        armvm("accelerate", machine, "--stop").ok()
    else:
        os.kill(int(str(accelerated["pid"])), signal.SIGKILL)
    wait = "until [ -s code ]; do sleep 0.5; done; cat code; grep -c accelerate: log; project/main"
    done = armvm("ssh", machine, "--", wait, timeout=600)
    lines = done.out.splitlines()
    assert lines[0] == "0"
    assert int(lines[1]) <= 1, armvm("ssh", machine, "--", "cat log").out
    assert lines[-1].isdigit()


def test_a_package_is_built(machine: str, accelerated: dict[str, object]) -> None:
    """dpkg-buildpackage sets a directory map and hardening options of its own."""
    armvm("ssh", machine, "--", PACKAGE, timeout=900).ok()
    log = Path(str(accelerated["log"])).read_text().splitlines()
    assert [line for line in log if line.startswith("compiled in ") and line.endswith("hello.c")]


def test_an_ordinary_users_machine(compilers: str, ordinary_user: OrdinaryUser) -> None:
    """Session mode: the service, its socket and its compilers are his."""
    file = ordinary_user.home / "acc.golden"
    armvm("golden", "export", compilers, file, timeout=CLONE_TIMEOUT).ok()
    file.chmod(0o644)
    ordinary_user.armvm("golden", "import", file, "--as", "acc", timeout=CLONE_TIMEOUT).ok()
    file.unlink()
    ordinary_user.armvm("create", "--from", "acc", "--name", "his", timeout=CLONE_TIMEOUT).ok()
    told = ordinary_user.armvm("accelerate", "his", "--json", timeout=900).ok().json
    assert Path(f"/proc/{told['pid']}").stat().st_uid == pwd.getpwnam(ordinary_user.name).pw_uid
    ordinary_user.armvm("ssh", "his", "--", ONE_FILE, timeout=300).ok()
    assert "compiled in " in Path(told["log"]).read_text()
    ordinary_user.armvm("accelerate", "his", "--stop").ok()
    assert until(lambda: not Path(f"/proc/{told['pid']}").exists(), timeout=10, interval=0.1)
    ordinary_user.armvm("delete", "--yes", "his").ok()
    ordinary_user.armvm("golden", "delete", "--yes", "acc").ok()


def test_others_cannot_reach_the_service(
    compilers: str, machine: str, accelerated: dict[str, object], name: str
) -> None:
    """Neither a guest beside it, nor another user of this host, nor anybody on its network."""
    pid = int(str(accelerated["pid"]))
    open_files = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
    assert any(one.startswith("socket:") for one in open_files)
    listening = subprocess.run(["ss", "-Hltnup"], capture_output=True, text=True, check=True).stdout
    assert f"pid={pid}," not in listening
    assert ":36321 " not in listening
    [socket] = Path("/run").glob("armvm-accelerate-*/s")
    knock = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    other = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        knock,
    ]
    refused = subprocess.run([*other, str(socket)], capture_output=True, text=True, check=False)
    assert "PermissionError" in refused.stderr
    subprocess.run(["/usr/bin/python3", "-c", knock, str(socket)], check=True)  # its own user may
    armvm("create", "--from", compilers, "--name", name, timeout=CLONE_TIMEOUT).ok()
    for address in ("127.0.0.1", "10.0.2.2"):
        probe = f"timeout 10 sh -c 'exec 3<>/dev/tcp/{address}/36321'"
        assert armvm("ssh", name, "--", "bash", "-c", f'"{probe}"').code != 0


def test_a_restart_ends_it(machine: str, accelerated: dict[str, object]) -> None:
    armvm("ssh", machine, "--", "test -e /run/armvm-accelerate/on").ok()
    armvm("restart", machine, "--power-cycle", "--wait", timeout=1200).ok()
    assert armvm("ssh", machine, "--", "cc -c -Iproject/include project/src/part1.c").ok().err == ""
    assert not Path(f"/proc/{accelerated['pid']}").exists()
    # Its program is there, and was proved: the second time takes no compiler.
    told = json.loads(armvm("accelerate", machine, "--json", timeout=900).ok().out)
    assert told["machine"] == machine


def test_a_guest_without_compilers_is_refused(golden: str, name: str) -> None:
    armvm("create", "--from", golden, "--name", name, timeout=CLONE_TIMEOUT).ok()
    result = armvm("accelerate", name).failed(6)
    assert "/usr/bin/gcc is not installed" in result.err
    armvm("stop", "--force", name).ok()
    assert "is not running" in armvm("accelerate", name).failed(10).err
