"""What cannot be: one clear message, the documented exit code, nothing done."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.libvirt.world import SYSTEM, World, virsh
from tests.support import ARMVM, ROOT, Result, armvm, fresh_name


@dataclass(frozen=True, kw_only=True)
class Bad:
    """Options, the exit code they lead to, and words that the message has. {} is a directory."""

    id: str
    options: list[str]
    code: int
    words: str
    environment: dict[str, str] = field(default_factory=dict)


def names() -> Iterator[Bad]:
    odd = {
        "empty": "",
        "slash": "a/b",
        "parent": "..",
        "path": "../../etc/passwd",
        "quote": "a'b",
        "double quote": 'a"b',
        "space": "a b",
        "long": "a" * 300,
        "64": "a" * 64,
        "control": "a\nb",
        "escape": "a\x1b[31mb",
        "upper case": "Arm64",
        "dash": "-a",
        "end dash": "a-",
        "dot": "a.b",
        "xml": "<name/>",
        "not ascii": "armé",
    }
    for kind, name in odd.items():
        yield Bad(id=f"name: {kind}", options=[f"--name={name}"], code=3, words="machine name")


BAD = [
    *names(),
    Bad(id="0 CPUs", options=["--cpus=0"], code=3, words="vCPUs"),
    Bad(id="-1 CPUs", options=["--cpus=-1"], code=3, words="vCPUs"),
    Bad(id="9999 CPUs", options=["--cpus=9999"], code=3, words="vCPUs"),
    Bad(id="two CPUs", options=["--cpus=two"], code=3, words="'two'"),
    Bad(id="3 MiB", options=["--mem=3M"], code=3, words="memory"),
    Bad(id="0 memory", options=["--mem=0"], code=3, words="memory"),
    Bad(id="negative memory", options=["--mem=-4096"], code=3, words="'-4096'"),
    Bad(id="memory in bananas", options=["--mem=4 bananas"], code=3, words="bananas"),
    Bad(id="more memory than there is", options=["--mem=9999T"], code=3, words="memory"),
    Bad(id="negative disk", options=["--disk=-10G"], code=3, words="--disk"),
    Bad(id="0 disk", options=["--disk=0"], code=3, words="disk"),
    Bad(id="disk below the image", options=["--image={}/large.qcow2"], code=3, words="smaller"),
    Bad(id="text image", options=["--image={}/text"], code=8, words="text"),
    Bad(id="empty image", options=["--image={}/empty.img"], code=8, words="empty.img"),
    Bad(id="image directory", options=["--image={}"], code=3, words="is a directory"),
    Bad(id="no image", options=["--image={}/no.qcow2"], code=4, words="not found"),
    Bad(id="ISO image", options=["--image={}/cd.iso"], code=8, words="ISO"),
    Bad(id="gz image", options=["--image={}/image.gz"], code=8, words="gzip"),
    Bad(id="backing file", options=["--image={}/overlay.qcow2"], code=8, words="backing"),
    Bad(id="unknown distribution", options=["--image=hannah:1"], code=3, words="hannah"),
    Bad(id="no image word", options=["--image="], code=3, words="image"),
    Bad(id="no recipe", options=["--image=local:hannah"], code=4, words="hannah"),
    Bad(id="no YAML", options=["--user-data={}/no.yaml"], code=3, words="YAML"),
    Bad(id="YAML list", options=["--user-data={}/list.yaml"], code=3, words="user-data"),
    Bad(id="binary user-data", options=["--user-data={}/binary"], code=3, words="user-data"),
    Bad(
        id="missing user-data",
        options=["--user-data={}/missing"],
        code=4,
        words="missing' not found",
    ),
    Bad(id="user-data directory", options=["--user-data={}"], code=3, words="user-data"),
    Bad(id="no network", options=["--network=nonet"], code=4, words="'nonet'"),
    Bad(id="odd network", options=["--network=a/b"], code=3, words="network"),
    Bad(id="no pool", options=["--pool=nopool"], code=4, words="'nopool'"),
    Bad(id="odd pool", options=["--pool=a/b"], code=3, words="pool"),
    Bad(id="no preset", options=["--preset=nopreset"], code=4, words="'nopreset'"),
    Bad(id="preset path", options=["--preset=../presets/default"], code=4, words="preset"),
    Bad(id="user root", options=["--user=root"], code=3, words="root"),
    Bad(id="user slash", options=["--user=a/b"], code=3, words="user name"),
    Bad(id="no ssh key", options=["--ssh-key={}/text"], code=3, words="key"),
    Bad(id="missing ssh key", options=["--ssh-key={}/missing"], code=4, words="missing"),
    Bad(id="private ssh key", options=["--ssh-key={}/private"], code=3, words="private"),
    Bad(id="no CPU model", options=["--cpu=pentium"], code=3, words="'pentium'"),
    Bad(id="32-bit CPU", options=["--cpu=cortex-a15"], code=3, words="'cortex-a15'"),
    Bad(id="odd CPU", options=["--cpu=<model/>"], code=3, words="CPU model"),
    Bad(id="passthrough", options=["--cpu=host-passthrough"], code=3, words="KVM"),
    Bad(
        id="silent URI",
        options=["--connect=qemu+tcp://127.0.0.1:1/system"],
        code=6,
        words="cannot connect",
    ),
    Bad(
        id="silent socket",
        options=["--connect=qemu+unix:///system?socket=/no/socket"],
        code=6,
        words="cannot connect",
    ),
    Bad(id="nonsense URI", options=["--connect=nonsense"], code=2, words="URI"),
    Bad(id="unknown driver", options=["--connect=nonsense:///"], code=2, words="URI"),
    Bad(id="odd path", options=["--connect=qemu:///nonsense"], code=2, words="URI"),
    Bad(id="empty URI", options=["--connect="], code=2, words="URI"),
    Bad(
        id="CPUs of the environment",
        options=[],
        code=3,
        words="ARMVM_CPUS",
        environment={"ARMVM_CPUS": "x"},
    ),
]


#: These are told as JSON too: the way there is the same for all.
FIRST_OF_EACH_CODE = [next(bad for bad in BAD if bad.code == code) for code in (2, 3, 4, 6, 8)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with contents of the wrong type."""
    path = tmp_path_factory.mktemp("bad")
    (path / "text").write_text("This is a text, and nothing else.\n" * 100)
    (path / "empty.img").write_bytes(b"")
    (path / "cd.iso").write_bytes(bytes(0x8001) + b"CD001\x01" + bytes(0x8000))
    (path / "image.gz").write_bytes(gzip.compress(b"image" * 1000))
    (path / "no.yaml").write_text("#cloud-config\nusers: [\n")
    (path / "list.yaml").write_text("#cloud-config\n- a\n- b\n")
    (path / "binary").write_bytes(b"\x7fELF\x00\xff\xfe" * 40)
    private = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nAAAA\n"
    (path / "private").write_text(private)
    run = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*run, path / "large.qcow2", "20G"], check=True)
    subprocess.run([*run, path / "small.qcow2", "1G"], check=True)
    subprocess.run(
        [*run, "-F", "qcow2", "-b", path / "small.qcow2", path / "overlay.qcow2"], check=True
    )
    return path


def everything(world: World) -> tuple[set[str], set[str]]:
    """Return what must not change: the tests' domains, and the volumes of their pool."""
    domains = {domain.name() for domain in world.connection.listAllDomains(0)}
    return {name for name in domains if name.startswith("bad-")}, world.volumes()


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.id) for bad in BAD])
def test_create_refuses(world: World, files: Path, image: Path, bad: Bad) -> None:
    options = [option.replace("{}", str(files)) for option in bad.options]
    given = {option.partition("=")[0] for option in options}
    if "--name" not in given:
        options.insert(0, f"--name={fresh_name('bad')}")
    if "--image" not in given:
        options.insert(0, f"--image={image}")
    before = everything(world)
    result = world.armvm("create", "--no-start", *options, env=bad.environment)
    one_clear_error(result, bad.code, bad.words)
    assert everything(world) == before
    if bad not in FIRST_OF_EACH_CODE:
        return
    spoken = world.armvm("create", "--no-start", "--json", *options, env=bad.environment)
    assert spoken.code == bad.code
    one_json_error(spoken, bad.code)


def one_clear_error(result: Result, code: int, words: str) -> None:
    """Check that an error is told as the design wants it."""
    result.failed(code)
    assert result.out == ""
    told = [line for line in result.err.splitlines() if line.startswith("armvm: ")]
    assert len(told) == 1, result.err
    assert words in result.err, result.err
    assert len(told[0]) < 400
    assert all(char.isprintable() or char == "\n" for char in result.err), ascii(result.err)


def one_json_error(result: Result, code: int) -> None:
    """Check that standard error ends with one JSON object that tells the error."""
    assert result.out == ""
    error = json.loads(result.err.splitlines()[-1])["error"]
    assert error["exit_code"] == code
    assert error["message"]
    assert set(error) == {"reference", "exit_code", "message", "detail", "hint"}
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "words",
    [["show"], ["ssh"], ["console"], ["start"], ["stop"], ["wait"], ["xml"], ["delete", "--yes"]],
    ids=lambda words: words[0],
)
def test_a_machine_that_is_not_there(world: World, words: list[str]) -> None:
    name = fresh_name("bad")
    one_clear_error(world.armvm(*words, name), 4, f"'{name}'")
    odd = world.armvm(*words, "../x\x1b]0;t")
    one_clear_error(odd, 3 if words[0] == "delete" else 4, "'")
    # With a bracket it is a pattern for those that take one.
    one_clear_error(world.armvm(*words, "../x\x1b[31m"), 4, "'")


@pytest.fixture
def foreign(world: World) -> Iterator[str]:
    """A domain that virsh has defined."""
    name = fresh_name("bad-foreign")
    path = world.directory.parent / f"{name}.xml"
    path.write_text(
        f"<domain type='qemu'><name>{name}</name><memory>65536</memory>"
        "<os><type arch='aarch64' machine='virt'>hvm</type></os></domain>"
    )
    virsh("define", path)
    path.unlink()
    yield name
    virsh("undefine", name)


def test_a_domain_that_armvm_did_not_make(world: World, image: Path, foreign: str) -> None:
    before = virsh("dumpxml", foreign)
    (world.directory / f"{foreign}.qcow2").write_bytes(b"not a machine's")
    for words in (["delete", "--yes"], ["show"], ["start"], ["stop", "--force"], ["ssh"], ["xml"]):
        one_clear_error(world.armvm(*words, foreign), 4, "was not created by armvm")
    taken = world.armvm("create", "--name", foreign, "--image", image, "--no-start")
    one_clear_error(taken, 5, foreign)
    assert foreign not in world.armvm("list", "--json").ok().out
    assert virsh("dumpxml", foreign) == before
    assert (world.directory / f"{foreign}.qcow2").exists()
    (world.directory / f"{foreign}.qcow2").unlink()


def test_delete_asks(world: World, image: Path, name: str) -> None:
    world.held(name, image)
    one_clear_error(world.armvm("delete", name), 2, "permanently")
    assert len(world.traces(name)) == 4  # overlay, seed, domain, address


@pytest.fixture
def ordinary_user() -> Iterator[str]:
    """An account that may not use the system daemon."""
    user = fresh_name("armvmt")
    subprocess.run(["useradd", "--create-home", user], check=True)
    yield user
    subprocess.run(["userdel", "--remove", user], check=True, capture_output=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes an account")
def test_no_permission(ordinary_user: str) -> None:
    home = {"HOME": f"/home/{ordinary_user}"}
    own = {
        f"XDG_{kind}_HOME": f"/home/{ordinary_user}/{kind}" for kind in ("CACHE", "DATA", "CONFIG")
    }
    prefix = ["runuser", "-u", ordinary_user, "--", *ARMVM]
    result = armvm("list", "--connect", SYSTEM, prefix=prefix, env={**home, **own}, cwd=ROOT)
    one_clear_error(result, 7, "permission denied")
    assert "qemu:///session" in result.err


def test_a_taken_name_is_told_before_an_image_host_is_asked(
    world: World, name: str, blank_image: Path
) -> None:
    world.held(name, blank_image)
    unreachable = {"ARMVM_MIRROR_UBUNTU": "http://127.0.0.1:1/"}
    told = armvm("create", "--name", name, "--image", "ubuntu:24.04", env=unreachable).failed(5)
    assert f"{name} already exists" in told.err


def test_a_directory_is_copied_only_when_asked_to(
    world: World, name: str, blank_image: Path, tmp_path: Path
) -> None:
    world.held(name, blank_image, "--network", "user")
    told = armvm("cp", tmp_path, f"{name}:").failed(2).err
    assert "use -r to copy it with its contents" in told
