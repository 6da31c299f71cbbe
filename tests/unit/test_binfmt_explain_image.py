"""What comes of running a container image: for every platform, handler and daemon."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import ArmvmError, CommandFailed, HostError, NotFound, PermissionDenied
from armvm.base.result import as_json
from armvm.provision.binfmt.explain_image import Engine, ExplainedImage, explain, names
from armvm.usermode.architectures import Architecture
from armvm.usermode.binfmt.container import Platform, Prediction, predict
from armvm.usermode.binfmt.execution import Outcome
from armvm.usermode.binfmt.handlers import Handler, Table, parse
from tests import schemas
from tests.support import armvm
from tests.unit.test_binfmt_handlers import STATUS

ARM64 = Platform(os="linux", architecture="arm64")
ARM7 = Platform(os="linux", architecture="arm", variant="v7")
NONE = Table(mounted=True, on=True, handlers=())


def handler(interpreter: Path, flags: str = "POF") -> Handler:
    known = parse("qemu-aarch64", (STATUS / "debian-pof").read_text())
    return replace(known, interpreter=str(interpreter), flags=flags)


def told(
    of: Platform, table: Table = NONE, machine: str = "x86_64", *, runs: bool = False
) -> Prediction:
    def tried(_: Architecture) -> bool:
        return runs

    return predict(of, table, machine, tried)


def one(handler: Handler) -> Table:
    return Table(mounted=True, on=True, handlers=(handler,))


@pytest.mark.parametrize(
    ("of", "machine", "native"),
    [
        (Platform(os="linux", architecture="amd64"), "x86_64", True),
        (Platform(os="linux", architecture="386"), "x86_64", True),
        (Platform(os="linux", architecture="amd64"), "aarch64", False),
        (ARM64, "aarch64", True),
        (ARM64, "arm64", True),
        (ARM64, "x86_64", False),
        (ARM7, "armv7l", True),
        (ARM7, "aarch64", False),
    ],
    ids=str,
)
def test_the_hosts_own_platforms(of: Platform, machine: str, native: bool) -> None:
    assert of.is_native(machine) is native
    if native:
        assert told(of, machine=machine).outcome is Outcome.RUNS


@pytest.mark.parametrize(("of", "name"), [(ARM64, "aarch64"), (ARM7, "arm")], ids=str)
def test_without_a_handler_the_container_ends_at_once(of: Platform, name: str) -> None:
    found = told(of)
    assert found.outcome is Outcome.FAILS
    assert "exec format error" in found.happens
    assert found.fix == f"sudo armvm binfmt register {name}"


def test_a_kernel_that_runs_them_without_a_handler_is_believed() -> None:
    """An ARM64 kernel with 32-bit programs, or a place where binfmt_misc is not mounted."""
    found = told(ARM7, Table(mounted=False, on=False, handlers=()), "aarch64", runs=True)
    assert found.outcome is Outcome.RUNS
    assert "sample program for arm" in found.happens


def test_a_handler_needs_f_and_a_static_interpreter(tmp_path: Path) -> None:
    static = tmp_path / "qemu"
    static.write_text("#!/bin/sh\n")
    static.chmod(0o755)
    found = told(ARM64, one(handler(static)))
    assert found.outcome is Outcome.RUNS
    assert "flag F" in found.happens
    without = told(ARM64, one(handler(static, "PO")))
    assert without.outcome is Outcome.FAILS
    assert f"looks for {static} inside the container" in without.happens
    assert without.fix == "sudo armvm binfmt register aarch64 --replace"
    dynamic = told(ARM64, one(handler(Path("/bin/true"))))
    assert dynamic.outcome is Outcome.FAILS
    assert "is dynamic" in dynamic.happens
    static.unlink()
    gone = told(ARM64, one(handler(static)))
    assert gone.outcome is Outcome.RUNS, "F keeps it"
    assert "can no longer be used" in gone.happens


def test_a_handler_that_is_off_is_named(tmp_path: Path) -> None:
    off = told(ARM64, one(replace(handler(tmp_path), enabled=False)))
    assert "the handler qemu-aarch64 is disabled" in off.happens
    assert "echo 1 > /proc/sys/fs/binfmt_misc/qemu-aarch64" in (off.fix or "")


def test_a_handler_that_takes_the_hosts_own_programs_wins() -> None:
    found = told(ARM64, one(handler(Path("/nonexistent"), "P")), "aarch64")
    assert found.outcome is Outcome.FAILS


def test_platforms_that_no_handler_is_known_for() -> None:
    with pytest.raises(NotFound) as caught:
        told(Platform(os="linux", architecture="loong64"))
    assert "linux/arm/v7" in (caught.value.hint or "")
    windows = told(Platform(os="windows", architecture="amd64"))
    assert windows.outcome is Outcome.FAILS
    assert "windows" in windows.happens


Client = Callable[..., None]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Put a docker on the PATH that answers as it is told; the daemon is this host's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    here = {"KernelVersion": platform.release(), "Name": platform.node(), "Architecture": "x86_64"}

    def answers(
        image: Any, info: Any = here, *, code: int = 0, error: str = "", engine: str = "docker"
    ) -> None:
        (tmp_path / "image").write_text(json.dumps(image))
        (tmp_path / "info").write_text(json.dumps(info))
        (tmp_path / "error").write_text(error)
        script = tmp_path / "bin" / engine
        script.write_text(
            f'#!/bin/sh\ncd {tmp_path}\ncase "$1" in\n'
            f"info) cat info; cat error >&2; exit {code} ;;\n"
            "context) echo tcp://elsewhere:2376 ;;\n"
            'image) [ "$2" = ls ] && { echo "a:1"; echo "<none>:<none>"; exit; }\n'
            '[ "$4" = none ] && { echo "Error: No such image: none" >&2; exit 1; }; cat image ;;\n'
            "esac\n"
        )
        script.chmod(0o755)

    return answers


def image(**changes: Any) -> list[dict[str, Any]]:
    return [{"Os": "linux", "Architecture": "arm64", "Variant": "", "Comment": "", **changes}]


def asked(tmp_path: Path, name: str = "a:1", engine: Engine = Engine.DOCKER) -> ExplainedImage:
    """Explain an image on a host without handlers."""
    root = tmp_path / "none"
    root.mkdir(exist_ok=True)
    (root / "register").touch()
    (root / "status").write_text("enabled\n")
    found = explain(engine, name, root=root, machine="x86_64")
    schemas.check("binfmt explain", as_json(found))
    return found


def test_the_command_names_the_platform_and_quotes(client: Client, tmp_path: Path) -> None:
    client(image(Architecture="amd64"))
    found = asked(tmp_path)
    assert (found.platform, found.native, found.outcome.value) == ("linux/amd64", True, "runs")
    assert found.command == "docker run --rm --platform linux/amd64 a:1"
    assert found.warning is None
    assert asked(tmp_path, "--privileged; x").command.endswith(" '--privileged; x'")


def test_an_imported_image_may_have_the_wrong_platform(client: Client, tmp_path: Path) -> None:
    client(image(Architecture="amd64", Comment="Imported from -"))
    found = asked(tmp_path)
    assert "Docker 20.10" in (found.warning or "")
    assert found.command == "docker run --rm a:1"


@pytest.mark.parametrize(
    "data",
    [[], [[]], {}, image(Architecture=7), image(Architecture="x\x1b[31m"), image(Os="../x"), "x"],
    ids=["empty", "list", "object", "number", "escape", "path", "text"],
)
def test_what_the_client_says_is_not_trusted(client: Client, tmp_path: Path, data: Any) -> None:
    client(data)
    with pytest.raises(CommandFailed) as caught:
        asked(tmp_path)
    assert "\x1b" not in caught.value.message


def test_an_image_that_is_not_there(client: Client, tmp_path: Path) -> None:
    client(image())
    with pytest.raises(NotFound) as caught:
        asked(tmp_path, "none")
    assert "docker pull --platform linux/arm64 none" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("Cannot connect to the Docker daemon at unix:///x.", HostError, "systemctl start docker"),
        ("dial unix /x: connect: permission denied", PermissionDenied, "usermod -aG docker"),
    ],
)
def test_a_daemon_that_does_not_answer(
    client: Client, tmp_path: Path, said: str, kind: type[ArmvmError], hint: str
) -> None:
    client(image(), {"ServerErrors": [said]}, code=1, error="errors pretty printing info")
    with pytest.raises(kind) as caught:
        asked(tmp_path)
    assert said in (caught.value.detail or "")
    assert hint in (caught.value.hint or "")


def test_another_kernels_handlers_are_not_taken_for_this_hosts(
    client: Client, tmp_path: Path
) -> None:
    machine = {"KernelVersion": "6.1.0-arm64", "Name": "arm64-01", "Architecture": "aarch64"}
    client(image(), machine)
    found = asked(tmp_path)
    assert (found.daemon_host, found.native) == ("arm64-01", True)
    assert "arm64-01 runs its programs natively" in found.happens
    client(image(Architecture="arm", Variant="v7"), machine)
    with pytest.raises(HostError) as caught:
        asked(tmp_path)
    assert "linux/arm/v7" in (caught.value.detail or "")
    # The same version of a kernel on another host, which the client reaches over a network.
    client(image(), {**machine, "KernelVersion": platform.release(), "Architecture": "x86_64"})
    with pytest.raises(HostError):
        asked(tmp_path)


def test_podman_tells_it_in_its_own_way(client: Client, tmp_path: Path) -> None:
    host = {"kernel": platform.release(), "hostname": platform.node(), "arch": "amd64"}
    client(image(), {"host": host}, engine="podman")
    found = asked(tmp_path, engine=Engine.PODMAN)
    assert (found.engine, found.daemon_host) == (Engine.PODMAN, platform.node())
    assert found.command == "podman run --rm --platform linux/arm64 a:1"
    assert names(Engine.PODMAN) == ["a:1"]
    client(image(), {}, code=125, error="no storage", engine="podman")
    with pytest.raises(HostError) as caught:
        asked(tmp_path, engine=Engine.PODMAN)
    assert (caught.value.detail, caught.value.hint) == ("no storage", "run it: podman info")


def test_the_command_line_takes_one_of_them(client: Client) -> None:
    client(image())
    told = armvm("binfmt", "explain", "--docker", "a:1").ok().out
    assert "platform      linux/arm64" in told
    assert "run it with   docker run --rm --platform linux/arm64 a:1" in told
    for words in ((), ("x", "--docker", "a:1"), ("--docker", "a:1", "--podman", "a:1")):
        assert "expected one of" in armvm("binfmt", "explain", *words).failed(2).err
    assert "--sysroot" in armvm("binfmt", "explain", "--docker", "a", "-L", "/").failed(2).err
