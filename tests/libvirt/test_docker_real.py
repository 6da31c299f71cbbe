"""Docker on the host, for real: containers of ARM programs by user mode, with a daemon of our own.

dockerd runs in a user namespace that begins without binfmt handlers, so "exec format error" is the
kernel's own, and the host's handlers stay as they are. The images are a static busybox.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build_tools import can_build
from tests.docker_tools import Docker, busybox_image, docker_without_handlers
from tests.foreign_programs import busybox
from tests.libvirt import test_rootfs_real
from tests.namespace_tools import qemu_user
from tests.support import armvm

pytestmark = [
    pytest.mark.skipif(
        not (qemu_user("aarch64").exists() and Path("/etc/binfmt.d").is_dir()),
        reason="needs qemu-user-static and /etc/binfmt.d",
    ),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="needs nsenter"),
]

#: The fixture: a Debian 12 for arm64, kept in the tester's cache.
debian = test_rootfs_real.debian
HELLO = "hello-world"
BUSYBOX = "arm32v7/busybox"


@pytest.fixture(scope="module")
def engine() -> Iterator[Docker]:
    """A daemon that has the articles' two images."""
    with pytest.MonkeyPatch.context() as patch, docker_without_handlers(patch) as found:
        hello = ("echo", "Hello from ARM64")
        found.ok("load", stdin=busybox_image(f"{HELLO}:latest", "arm64", command=hello))
        found.ok("load", stdin=busybox_image(f"{BUSYBOX}:latest", "armhf"))
        yield found


@pytest.fixture
def handlers(engine: Docker) -> Iterator[None]:
    """Register handlers for one test."""
    engine.armvm("binfmt", "register", "aarch64", "arm").ok()
    yield
    engine.armvm("binfmt", "unregister", "aarch64", "arm").ok()


def without_handlers(engine: Docker) -> None:
    """Assert that no container of ARM programs runs, and that armvm says why."""
    for image, architecture in ((HELLO, "aarch64"), (BUSYBOX, "arm")):
        done = engine.run(image)
        assert done.returncode != 0
        assert "exec format error" in done.stderr
        told = engine.armvm("binfmt", "explain", "--docker", image, "--json").ok().json
        assert (told["outcome"], told["architecture"]) == ("fails", architecture)
        assert told["fix"] == f"sudo armvm binfmt register {architecture}"


def test_the_articles_last_commands(engine: Docker) -> None:
    without_handlers(engine)
    engine.armvm("binfmt", "register", "aarch64", "arm").ok()
    try:
        hello = engine.run("--platform=linux/arm64", HELLO)
        assert hello.stdout == "Hello from ARM64\n", hello.stderr
        assert engine.run(BUSYBOX, "uname", "-m").stdout == "armv7l\n"
        for image, platform in ((HELLO, "linux/arm64"), (BUSYBOX, "linux/arm/v7")):
            told = engine.armvm("binfmt", "explain", "--docker", image, "--json").ok().json
            assert (told["platform"], told["outcome"], told["flags"]) == (platform, "runs", "POF")
            assert told["interpreter"]["static"]
            assert told["command"] == f"docker run --rm --platform {platform} {image}"
            words = told["command"].split()[1:]
            done = engine.docker(*words[:2], "--network", "none", *words[2:])
            assert done.returncode == 0, done.stderr
    finally:
        engine.armvm("binfmt", "unregister", "aarch64", "arm").ok()
    without_handlers(engine)


@pytest.mark.slow
@pytest.mark.parametrize("kit", ["0", "1"], ids=["classic", "buildkit"])
def test_a_build_runs_programs(engine: Docker, handlers: None, tmp_path: Path, kit: str) -> None:
    (tmp_path / "Dockerfile").write_text(
        f'FROM {BUSYBOX}\nRUN uname -m > /machine\nCMD ["cat", "/machine"]\n'
    )
    words = ("build", "--network", "none", "--platform", "linux/arm/v7", "--tag", f"made:{kit}")
    done = engine.docker(*words, tmp_path, env={"DOCKER_BUILDKIT": kit})
    assert done.returncode == 0, done.stderr
    assert engine.run(f"made:{kit}").stdout == "armv7l\n"
    told = engine.armvm("binfmt", "explain", "--docker", f"made:{kit}", "--json").ok().json
    assert (told["platform"], told["warning"]) == ("linux/arm/v7", None)


def test_a_handler_without_f_works_on_the_host_alone(engine: Docker) -> None:
    engine.armvm("binfmt", "register", "aarch64", "--flags", "PO").ok()
    try:
        assert (
            engine.armvm("binfmt", "explain", busybox("arm64"), "--json").ok().json["outcome"]
            == "runs"
        )
        done = engine.run(HELLO)
        assert done.returncode != 0
        assert "no such file or directory" in done.stderr
        told = engine.armvm("binfmt", "explain", "--docker", HELLO).ok().out
        assert "lacks flag F" in told
        assert "armvm binfmt register aarch64 --replace" in told
        engine.armvm("binfmt", "register", "aarch64", "--replace").ok()
        assert engine.run(HELLO).stdout == "Hello from ARM64\n"
    finally:
        engine.armvm("binfmt", "unregister", "aarch64").ok()


@pytest.mark.slow
def test_imported_and_built_from_a_root_file_system(
    engine: Docker, handlers: None, tmp_path: Path
) -> None:
    """Docker 20.10 gives an imported image its host's platform; a build gives the right one."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(busybox("arm64"), "bin/busybox")
    (tmp_path / "rootfs.tar").write_bytes(archive.getvalue())
    engine.ok("import", "--platform", "linux/arm64", tmp_path / "rootfs.tar", "imported:1")
    told = engine.armvm("binfmt", "explain", "--docker", "imported:1", "--json").ok().json
    assert "--platform" not in told["command"]
    assert "made by docker import" in told["warning"]
    assert engine.run("imported:1", "/bin/busybox", "uname", "-m").stdout == "aarch64\n"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
    engine.ok("build", "--platform", "linux/arm64", "--tag", "built:1", tmp_path)
    told = engine.armvm("binfmt", "explain", "--docker", "built:1", "--json").ok().json
    assert (told["platform"], told["warning"]) == ("linux/arm64", None)
    run = engine.run("--platform", "linux/arm64", "built:1", "/bin/busybox", "uname", "-m")
    assert run.stdout == "aarch64\n"


@pytest.mark.slow
@can_build
@pytest.mark.timeout(900)
def test_a_distribution_goes_into_an_image(
    engine: Docker, handlers: None, debian: Path, tmp_path: Path
) -> None:
    """The recipe of the how-to, with a root file system that armvm made."""
    armvm("rootfs", "to-tar", debian, "--output", tmp_path / "rootfs.tar", timeout=600).ok()
    (tmp_path / "Dockerfile").write_text(
        "FROM scratch\nADD rootfs.tar /\n"
        "RUN dpkg --print-architecture > /architecture\n"
        'CMD ["cat", "/architecture", "/etc/debian_version"]\n'
    )
    words = ("build", "--network", "none", "--platform", "linux/arm64", "--tag", "debian:own")
    done = engine.docker(*words, tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    run = engine.run("--platform", "linux/arm64", "debian:own")
    assert run.stdout.splitlines()[0] == "arm64"
    assert run.stdout.splitlines()[1].startswith("12")


def test_what_docker_cannot_tell_is_said_clearly(engine: Docker, tmp_path: Path) -> None:
    for name in ("nothing:1", "--help", "a b", ""):
        refused = engine.armvm("binfmt", "explain", f"--docker={name}").failed(4)
        assert "docker pull" in refused.err
    nobody = Docker(enter=engine.enter, env={**engine.env, "DOCKER_HOST": f"unix://{tmp_path}/s"})
    refused = nobody.armvm("binfmt", "explain", "--docker", HELLO).failed(6)
    assert "daemon does not answer" in refused.err
    assert "systemctl start docker" in refused.err
