"""A golden with packages in its image: its machines have them, and it is used only by its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import baked
from tests.boot.test_warm import CLONE_TIMEOUT
from tests.support import armvm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PROGRAM = """\
mkdir hello && cd hello
printf '#include <stdio.h>\\nint main(void) { puts("compiled"); return 0; }\\n' > hello.c
printf 'hello: hello.c\\n' > Makefile
make && ./hello && gcc --version && apt-mark showmanual gcc make cpp
"""


@pytest.fixture(scope="module")
def compilers(debian_image: Path) -> Iterator[str]:
    with baked("armvm-cc", debian_image, "--network", "user", "--install", "make,gcc") as name:
        yield name


def test_a_clone_compiles(compilers: str, name: str) -> None:
    told = armvm("golden", "show", compilers, "--json").ok().json
    assert told["shape"]["packages"] == ["gcc", "make"]
    assert told["image"]["packages"] == "gcc make"
    armvm("create", "--from", compilers, "--name", name, timeout=CLONE_TIMEOUT).ok()
    out = armvm("ssh", name, "--", PROGRAM, timeout=300).ok().out
    assert "\ncompiled\n" in out
    assert "gcc (Debian" in out
    assert out.endswith("\ngcc\nmake\n"), "cpp was not requested"
    assert armvm("ssh", name, "--", "systemctl is-system-running").out == "running\n"
    assert armvm("show", name, "--json").ok().json["image"]["packages"] == "gcc make"


def test_it_is_used_only_by_its_name(compilers: str, debian_image: Path, name: str) -> None:
    words = ["create", "--name", name, "--image", str(debian_image), "--preset", "minimal"]
    done = armvm(*words, "--network", "user", "--no-start", timeout=CLONE_TIMEOUT).ok()
    assert compilers not in done.out + done.err
    armvm("delete", "--yes", name).ok()
    # Without a start, the machine is made of the image: that with the packages, from the cache.
    armvm("create", "--from", compilers, "--name", name, "--no-start", timeout=300).ok()
    told = armvm("show", name, "--json").ok().json["image"]
    assert told["packages"] == "gcc make"
    assert (
        told["digest"] == armvm("golden", "show", compilers, "--json").ok().json["shape"]["image"]
    )
