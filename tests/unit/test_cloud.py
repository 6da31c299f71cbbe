"""Machines on an OpenStack cloud: openstacksdk against a cloud in memory, real ssh and sshd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armvm.base.errors import (
    CommandFailed,
    ConfigError,
    Conflict,
    ConnectFailed,
    DomainError,
    HostError,
    NotFound,
    NotReady,
    PermissionDenied,
    StorageError,
)
from armvm.base.paths import data_dir
from armvm.base.progress import Quiet
from armvm.cloud import connection, login, power, snapshot
from armvm.cloud import image as images
from armvm.cloud.connection import Connection, connect, said
from armvm.cloud.create import Created, Plan, create_all, free_names, plan
from armvm.cloud.logs import console, read_log
from armvm.cloud.server import MARK, pick, pick_many, servers
from armvm.cloud.wait import wait_ready
from armvm.guest.cloudinit.credentials import own_key
from armvm.guest.identity import new_key_pair
from armvm.images.check.qcow2 import inspect
from armvm.images.digest import hash_file
from armvm.images.model import FromImage, Image
from armvm.settings.clouds import find_cloud
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem
from tests.cloud_api import LOG, NETWORK, PROJECT, Cloud, cloud, user_data
from tests.images_tools import qcow2_image
from tests.ssh_tools import at_home
from tests.support import ARMVM, Result, armvm, environment

pytest.importorskip("openstack", reason="pip install openstacksdk")
#: Servers' sshd need port 22 of loopback addresses, and a password database of their own.
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs sshd on port 22 of the loopback")
#: openstacksdk leaves its connections to the garbage collector, and warns of its own future.
pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

DEBIAN = OperatingSystem(distro="debian", version="12")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud; armvm's and openstacksdk's files are in the test's directory."""
    for name in ("cache", "data", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    with cloud(tmp_path) as found:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(found.config()))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "config/openstack/clouds.yaml"))
        yield found


def connected(state: Cloud) -> Connection:
    named = find_cloud("farm", [state.config() / "armvm/config.toml"])
    assert named is not None
    return connect(named)


@pytest.fixture
def farm(state: Cloud) -> Connection:
    """The connection to the cloud."""
    return connected(state)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A small image with a valid format."""
    path = qcow2_image(tmp_path / "image.qcow2", payload=1 << 20)
    digest = hash_file(path)
    source = FromImage(reference="debian:12", location=str(path), system=DEBIAN, digest=digest)
    return Image(
        source=source,
        path=path,
        digest=digest,
        size=path.stat().st_size,
        virtual_size=inspect(path).virtual_size,
    )


def machine(**changes: Any) -> Machine:
    key = own_key(data_dir())[1]
    given = {"name": "arm64-01", "ssh_keys": (key,), "own_key": True, **changes}
    return Machine(**given)


def planned(farm: Connection, image: Image, **changes: Any) -> Plan:
    return plan(farm, machine(**changes), image.source, Quiet())


def make(
    farm: Connection, image: Image, *names: str, wait: bool = False, **changes: Any
) -> list[Created]:
    made: list[Created] = []
    create_all(
        farm, planned(farm, image, **changes), image, names or ["arm64-01"],
        wait=wait, timeout=30, progress=Quiet(), tell=made.append,
    )  # fmt: skip
    return made


@as_root
def test_a_server_becomes_ready_and_is_as_requested(
    state: Cloud, farm: Connection, image: Image
) -> None:
    (made,) = make(farm, image, wait=True)
    assert made.ready is not None
    assert made.ready.server.name == "arm64-01"
    assert made.ready.boot.seconds < 30
    body = state.bodies["arm64-01"]
    assert body["config_drive"] is True
    assert body["networks"] == [{"uuid": NETWORK}]
    (stored,) = state.images.values()
    assert body["imageRef"] == stored["id"]
    assert stored["name"] == "armvm-" + image.digest.replace(":", "-")
    assert {key: stored[key] for key in images.PROPERTIES} == images.PROPERTIES
    assert images.PROPERTIES["hw_scsi_model"] == "virtio-scsi"
    assert f"sha256:{stored['sha256']}" == image.digest
    told = body["metadata"]
    assert told["armvm-user"] == "debian"
    assert told["armvm-digest"] == image.digest
    assert all(len(value) <= 255 for value in told.values())


@as_root
def test_the_user_data_needs_no_seed(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image)
    body = state.bodies["arm64-01"]
    config = user_data(body)
    # The bootcmd of armvm's seed stops cloud-init.service: here it would stop the stage it runs in.
    assert "bootcmd" not in config
    assert config["hostname"] == "arm64-01"
    assert config["ssh_keys"]["ed25519_public"].startswith(body["metadata"]["armvm-host-key"])
    assert "PRIVATE" not in json.dumps(body["metadata"])


@as_root
@pytest.mark.parametrize("text", ["#!/bin/sh\necho hello\n", "#include\nhttps://example.org/x\n"])
def test_user_data_of_other_kinds_is_combined(
    state: Cloud, farm: Connection, image: Image, text: str
) -> None:
    make(farm, image, user_data=text)
    assert user_data(state.bodies["arm64-01"])["hostname"] == "arm64-01"


def test_user_data_that_nova_refuses_is_refused_before(
    state: Cloud, farm: Connection, image: Image
) -> None:
    large = "#cloud-config\nwrite_files:\n- {path: /x, content: " + 60000 * "x" + "}\n"
    with pytest.raises(ConfigError, match="too large for a cloud"):
        make(farm, image, user_data=large)
    assert state.servers == {}


@as_root
def test_an_image_is_uploaded_once(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image, "one")
    make(farm, image, "two", "three")
    assert len(state.images) == 1
    assert sum(one.startswith("PUT ") for one in state.asked) == 1


@as_root
def test_the_image_of_another_project_is_not_used(
    state: Cloud, farm: Connection, image: Image
) -> None:
    theirs = {
        "id": str(uuid.uuid4()), "name": images.name_of(image.digest), "status": "active",
        "owner": "f" * 32, "visibility": "public", **images.PROPERTIES,
    }  # fmt: skip
    state.images[theirs["id"]] = theirs
    # Nor one that cannot boot, or is incomplete.
    for change in ({"hw_firmware_type": "bios"}, {"status": "queued"}):
        other = {**theirs, "id": str(uuid.uuid4()), "owner": PROJECT, **change}
        state.images[other["id"]] = other
    make(farm, image)
    used = state.bodies["arm64-01"]["imageRef"]
    assert state.images[used]["sha256"] == image.digest.removeprefix("sha256:")
    assert len(state.images) == 4


def test_an_upload_that_arrives_changed_is_deleted(
    state: Cloud, farm: Connection, image: Image
) -> None:
    state.other_bytes = True
    with pytest.raises(StorageError, match="other bytes"):
        make(farm, image)
    assert state.images == {}
    assert state.servers == {}


@pytest.mark.parametrize("loses_ports", [False, True])
def test_a_server_that_cannot_run_is_removed_with_its_port(
    state: Cloud, farm: Connection, image: Image, loses_ports: bool
) -> None:
    state.fault, state.loses_ports = "No valid host was found.\x1b[2J", loses_ports
    with pytest.raises(DomainError) as caught:
        make(farm, image)
    assert caught.value.detail == "No valid host was found."
    assert state.servers == state.ports == {}
    assert len(state.images) == 1, "a cache"


@as_root
def test_a_quota_ends_a_series_and_what_runs_is_kept(
    state: Cloud, farm: Connection, image: Image
) -> None:
    names = free_names(farm, "ci", 3)
    made: list[Created] = []

    def tell(one: Created) -> None:
        made.append(one)
        text = "Quota exceeded for cores: Requested 2, but already used 20 of 20 cores"
        state.refusals = [(403, text)]

    with pytest.raises(HostError, match="the quota is exceeded") as caught:
        create_all(
            farm, planned(farm, image), image, names,
            wait=False, timeout=None, progress=Quiet(), tell=tell,
        )  # fmt: skip
    assert "20 of 20 cores" in str(caught.value.detail)
    assert [one.server.name for one in made] == ["ci-01"]
    assert [one.name for one in servers(farm)] == ["ci-01"]
    assert free_names(farm, "ci", 2) == ["ci-02", "ci-03"]


@pytest.mark.parametrize(
    ("code", "kind"), [(400, HostError), (403, PermissionDenied), (409, Conflict), (503, HostError)]
)
def test_other_refusals(
    state: Cloud, farm: Connection, image: Image, code: int, kind: type[Exception]
) -> None:
    state.refusals = [(code, "no\x1b]0;title\x07 way\n\x9bthere")] * 9
    with pytest.raises(kind) as caught:
        make(farm, image)
    error: Any = caught.value
    assert (error.message + str(error.detail)).isprintable()
    assert state.servers == {}


def test_names_in_the_configuration_have_to_exist(
    state: Cloud, farm: Connection, image: Image
) -> None:
    state.networks = [{"id": NETWORK, "name": "other\x1b[31m"}]
    with pytest.raises(NotFound, match="network 'net' not found") as caught:
        planned(farm, image)
    assert caught.value.hint == "known: other"
    state.networks = [{"id": str(uuid.uuid4()), "name": "net"} for _ in range(2)]
    with pytest.raises(Conflict, match="2 networks are called 'net'"):
        planned(farm, image)
    state.networks = []
    with pytest.raises(NotFound, match="not found"):
        planned(farm, image)
    state.flavors = []
    with pytest.raises(NotFound, match=r"flavor 'arm\.small' not found"):
        planned(farm, image)


def test_a_flavor_has_to_fit(state: Cloud, farm: Connection, image: Image) -> None:
    class Heard(Quiet):
        def warn(self, text: str) -> None:
            heard.append(text)

    heard: list[str] = []
    state.flavors[0] |= {"vcpus": 16, "disk": 1}
    plan(farm, machine(), image.source, Heard())
    assert "at most 8" in heard[0]
    with pytest.raises(ConfigError, match="smaller than the image's disk"):
        create_all(
            farm, planned(farm, image), replace(image, virtual_size=2 << 30), ["arm64-01"],
            wait=False, timeout=None, progress=Quiet(), tell=lambda _one: None,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="tuned"):
        planned(farm, image, tuned=True)


HOSTILE_KEY = "ssh-ed25519 AAAA\nother ssh-rsa BBBB"


@as_root
def test_what_a_cloud_tells_is_untrusted(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image)
    server = state.named("arm64-01")
    changes: tuple[dict[str, Any], ...] = (
        {"name": "\x1b[2Jevil\nname", "status": "ACTIVE; x"},
        {"name": "-oProxyCommand=x"},
        {"addresses": {"net\x1b[1m": [{"addr": "-oProxyCommand=x", "version": 4}, 7, {}]}},
        {"addresses": []},
        {"flavor": {"original_name": "f\x9b1m", "vcpus": "many", "ram": -1}},
        {"fault": {"message": 3}},
        {"metadata": {MARK: "1", "armvm-host-key": HOSTILE_KEY, "armvm-user": "-oX=y",
                      "armvm-digest": "../x", "armvm-image": 9000 * "i"}},
        {"metadata": {}},
        {"metadata": None},
        {"id": "../../etc/passwd"},
    )  # fmt: skip
    for change in changes:
        state.servers = {"x": {**server, **change}}
        for one in servers(farm):
            texts = [one.name, one.status, one.flavor, one.image, one.state, str(one.fault)]
            assert all(text.isprintable() and len(text) <= 600 for text in texts)
            assert uuid.UUID(one.id)
            assert one.cpus is None or one.cpus > 0
            for address in one.addresses:
                assert not address.address.startswith("-")
            if one.host_key is None:
                with pytest.raises(DomainError, match="no valid ssh host key"):
                    login.ssh_command(one, "127.0.0.1")


def test_servers_of_others_are_not_touched(state: Cloud, farm: Connection) -> None:
    state.servers["x"] = {"id": str(uuid.uuid4()), "name": "arm64-01", "status": "ACTIVE",
                          "metadata": {}, "addresses": {}}  # fmt: skip
    assert servers(farm) == []
    assert free_names(farm, "arm64", 1) == ["arm64-02"], "the name is taken all the same"
    with pytest.raises(NotFound):
        pick(farm, "arm64-01")
    assert pick_many(farm, [], every=True) == []


@as_root
def test_machines_are_chosen_as_elsewhere(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image, "ci-01", "ci-02", "db")
    assert [one.name for one in pick_many(farm, ["ci-*", "db"], every=False)] == [
        "ci-01", "ci-02", "db",
    ]  # fmt: skip
    with pytest.raises(NotFound, match="matches 'x-\\*'"):
        pick_many(farm, ["x-*"], every=False)
    with pytest.raises(ConfigError, match="NAME is required"):
        pick(farm, None)
    state.named("ci-02")["name"] = "ci-01"
    with pytest.raises(Conflict, match="2 servers are called ci-01"):
        pick(farm, "ci-01")


@as_root
def test_another_host_key_is_refused(state: Cloud, farm: Connection, image: Image) -> None:
    (made,) = make(farm, image, wait=True)
    assert made.ready is not None
    assert login.log_in(made.ready.server, made.ready.address) is None
    other = " ".join(new_key_pair("x").public.split()[:2])
    state.named("arm64-01")["metadata"]["armvm-host-key"] = other
    changed = pick(farm, "arm64-01")
    assert "Host key verification failed" in str(login.log_in(changed, made.ready.address))
    with pytest.raises(CommandFailed, match="cannot log in by ssh") as caught:
        state.log = LOG + "\n[ 1.0] Cloud-init v. 22.4.2 finished at now\n"
        wait_ready(farm, changed, timeout=60, progress=Quiet())
    assert "Host key verification failed" in str(caught.value.detail)


@as_root
def test_errors_of_cloud_init_are_reported_and_the_server_stays(
    state: Cloud, farm: Connection, image: Image
) -> None:
    state.result = '{"v1": {"errors": ["no such \\u001b[2Jpackage"]}}'
    with pytest.raises(CommandFailed, match="cloud-init failed") as caught:
        make(farm, image, wait=True)
    assert "no such package" in str(caught.value.detail)
    assert "armvm ssh arm64-01 --on farm" in str(caught.value.hint)
    assert [one.name for one in servers(farm)] == ["arm64-01"]


@as_root
def test_a_server_that_is_not_ready_shows_its_log(
    state: Cloud, farm: Connection, image: Image
) -> None:
    make(farm, image)
    server = pick(farm, "arm64-01")
    state.log = LOG[: LOG.index("Linux version") + 40]
    address = state.named("arm64-01")["addresses"]["net"][0]
    address["addr"] = "127.255.255.254"  # nothing listens there
    with pytest.raises(NotReady, match="last stage reached: kernel") as caught:
        wait_ready(farm, server, timeout=2, progress=Quiet())
    assert "Linux" in str(caught.value.detail)
    state.named("arm64-01")["status"] = "SHUTOFF"
    with pytest.raises(DomainError, match="stopped while armvm waited"):
        wait_ready(farm, server, timeout=5, progress=Quiet())


@as_root
def test_logs_are_cleaned(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image)
    server = pick(farm, "arm64-01")
    state.log = "one\r\n\x1b]0;title\x07two\x1b[31m red\nthree\n"

    def read(**changes: Any) -> bytes:
        given = {"lines": None, "follow": False, "raw": False, "colours": False, **changes}
        return b"".join(read_log(farm, server, **given))

    assert read() == b"one\ntwo red\nthree\n"
    assert read(lines=1) == b"three\n"
    assert read(raw=True) == state.log.encode() == console(farm, server)


@as_root
def test_a_followed_log_ends_with_the_server(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image)
    server = pick(farm, "arm64-01")
    state.log = "one\n"
    found = b""
    for part in read_log(farm, server, lines=None, follow=True, raw=False, colours=False):
        found += part
        state.log += "two\n" if b"two" not in found else ""
        if b"two" in found:
            state.named("arm64-01")["status"] = "SHUTOFF"
    assert found == b"one\ntwo\n"


@as_root
def test_power_and_snapshots(state: Cloud, farm: Connection, image: Image) -> None:
    make(farm, image)
    server = pick(farm, "arm64-01")
    with pytest.raises(Conflict, match="already running"):
        power.start(farm, server)
    taken = snapshot.create(farm, server, None, Quiet())
    assert (taken.name, taken.state, taken.status) == ("snap-01", "running", "active")
    with pytest.raises(Conflict, match="already exists"):
        snapshot.create(farm, server, "snap-01", Quiet())
    with pytest.raises(DomainError, match="is not off"):
        snapshot.revert(farm, server, "snap-01", Quiet())
    server = power.stop(farm, server)
    assert server.state == "shut off"
    with pytest.raises(DomainError, match="is not running"):
        login.reach(farm, server)
    snapshot.revert(farm, server, "snap-01", Quiet())
    assert state.named("arm64-01")["image"]["id"] == taken.image
    assert power.start(farm, server).running
    assert power.restart(farm, pick(farm, None), force=True).running
    snapshot.delete(farm, server, "snap-01")
    assert snapshot.snapshots(farm, server) == []
    power.delete(farm, server)
    power.wait_gone(farm, server)
    assert state.servers == state.ports == {}


def test_a_cloud_that_cannot_be_used_says_why(
    state: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = state.config() / "openstack/clouds.yaml"
    right = file.read_text()
    file.write_text(right.replace("secret of the tests", "wrong"))
    named = find_cloud("farm", [tmp_path / "config/armvm/config.toml"])
    assert named is not None
    with pytest.raises(PermissionDenied, match="rejected the credentials"):
        connect(named)
    file.write_text(right.replace(state.url, "http://127.0.0.1:9"))
    with pytest.raises(ConnectFailed, match="does not answer"):
        connect(named)
    file.write_text(right)
    with pytest.raises(ConfigError, match="Cloud nowhere was not found"):
        connect(replace(named, openstack="nowhere"))


@pytest.mark.parametrize(
    "text",
    [
        "clouds: 5", "clouds: [farm]", "clouds: {mycloud: 5}", "clouds: {mycloud: {auth: 5}}",
        "clouds: {mycloud: {auth: {auth_url: 5}}}", "clouds: {mycloud: {auth: {}}}",
        "clouds: {mycloud: {auth_type: nope, auth: {}}}", "clouds: {mycloud: {profile: 5}}",
        "cache: 5\nclouds: {mycloud: {auth: {}}}", "[", "\x00",
    ],
)  # fmt: skip
def test_an_invalid_file_of_clouds_is_an_error(state: Cloud, text: str) -> None:
    named = find_cloud("farm", [state.config() / "armvm/config.toml"])
    assert named is not None
    (state.config() / "openstack/clouds.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        connect(replace(named, openstack="mycloud"))
    assert "clouds.yaml needs an entry mycloud" in str(caught.value.hint)


@pytest.mark.parametrize("answer", [{}, [], "text", None, {"id": None}])
def test_an_answer_of_another_form_is_an_error(
    farm: Connection, image: Image, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told:
        status_code, headers = 200, {"content-type": "application/json"}

        def json(self) -> Any:
            return answer

    # The cloud in memory has no such fault.
    monkeypatch.setattr(farm.api.image, "post", lambda *_words, **_more: Told())
    with pytest.raises((HostError, StorageError)):
        images.ensure(farm, image, Quiet())


@as_root
def test_a_lost_answer_is_requested_again(
    state: Cloud, farm: Connection, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAUSES", (0.01, 0.01, 0.01))
    make(farm, image)
    state.drops = 3
    assert pick(farm, None).name == "arm64-01"
    state.drops = 9
    with pytest.raises(ConnectFailed):
        pick(farm, None)


def test_texts_are_shortened() -> None:
    assert said("a\x1b[2Jb\n\tc\u202ed") == "ab c?d"
    assert len(said(9000 * "x")) == 501


# The command line.


@pytest.fixture
def run(state: Cloud, tmp_path: Path) -> Callable[..., Result]:
    """Runs armvm with that cloud; ssh has no files of whoever tests."""
    home = tmp_path / "home"
    home.mkdir()
    prefix = [*at_home(home), *ARMVM] if os.geteuid() == 0 else ARMVM
    config = str(state.config())

    def run(*args: str | Path, **env: str) -> Result:
        return armvm(*args, env={"XDG_CONFIG_HOME": config, **env}, prefix=prefix)

    return run


@as_root
@pytest.mark.timeout(400)  # each command imports openstacksdk
def test_the_commands(
    state: Cloud, run: Callable[..., Result], image: Image, tmp_path: Path
) -> None:
    made = run("create", "--on", "farm", "--image", image.path, "--user", "alice", "--json").ok()
    (made,) = [made.json]
    assert (made["name"], made["state"], made["on"]) == ("arm64-01", "running", "farm")
    assert made["stages"]["ready"] == made["ready_seconds"]
    run("list", "--on", "farm", "--json").ok()
    assert "arm.small" in run("list", ARMVM_ON="farm").ok().out
    assert run("show", "--on", "farm", "--json").ok().json["host_key"].startswith("SHA256:")
    address = state.named("arm64-01")["addresses"]["net"][0]["addr"]
    assert run("ip", "--on", "farm").ok().out == f"{address}\n"
    done = run("ssh", "--on", "farm", "--", "echo $USER; exit 7")
    assert (done.code, done.out) == (7, "alice\n")
    run("cp", "--on", "farm", image.path, f"arm64-01:{tmp_path}/copied").ok()
    assert (tmp_path / "copied").read_bytes() == image.path.read_bytes()
    assert "finished at" in run("logs", "--on", "farm", "-n", "1").ok().out
    run("snapshot", "create", "arm64-01", "--on", "farm", "--json").ok()
    assert "snap-01" in run("snapshot", "list", "--on", "farm").ok().out
    assert "arm64-01 is off" in run("stop", "--on", "farm").ok().out
    assert "arm64-01 is ready" in run("start", "--on", "farm").ok().out
    assert "deletes arm64-01" in run("delete", "arm64-01", "--on", "farm").failed(2).err
    assert run("delete", "arm64-01", "--on", "farm", "--yes").ok().out == "arm64-01 deleted\n"
    assert state.servers == {}


def test_a_plan_creates_nothing(state: Cloud, run: Callable[..., Result], image: Image) -> None:
    words = ("create", "--on", "farm", "--image", image.path, "--dry-run", "--json")
    assert run(*words).ok().json["flavor"] == "arm.small"
    assert [one["name"] for one in run(*words, "--count", "2").ok().json] == [
        "arm64-01", "arm64-02",
    ]  # fmt: skip
    assert not any(one.startswith("POST /compute") for one in state.asked)
    assert state.images == {}
    assert "invalid machine name" in run(*words, "--name", "No").failed(3).err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("exec", "x", "--", "true"), "armvm exec cannot be used on farm, a cloud"),
        (("golden", "list"), "armvm golden list cannot be used on farm"),
        (("pool", "list"), "armvm pool list cannot be used on farm, a cloud: a golden is a saved"),
        (("console", "x"), "armvm console cannot be used"),
        (("create", "--cpus", "4"), "--cpus cannot be used on farm"),
        (("create", "--pool", "p"), "--pool cannot be used on farm"),
        (("create", "--no-start"), "--no-start cannot be used on farm"),
        (("stop", "x", "--force"), "--force cannot be used on farm"),
        (("list", "--connect", "qemu:///system"), "--on and --connect cannot be used together"),
    ],
)
def test_what_is_refused(run: Callable[..., Result], words: tuple[str, ...], why: str) -> None:
    at = words.index("--") if "--" in words else len(words)
    done = run(*words[:at], "--on", "farm", *words[at:]).failed(2)
    assert why in done.err
    if "--connect" not in words:
        assert why in run(*words, ARMVM_ON="farm").failed(2).err


def test_without_openstacksdk(state: Cloud) -> None:
    code = (
        "import sys; sys.modules['openstack'] = None\n"
        "from armvm.cli.main import main; main(['list', '--on', 'farm'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=60,
        env=environment(XDG_CONFIG_HOME=str(state.config())),
    )  # fmt: skip
    assert done.returncode == 6
    assert "pip install openstacksdk" in done.stderr


def test_an_interruption_leaves_nothing(state: Cloud, tmp_path: Path, image: Image) -> None:
    state.hung = True
    words = [*ARMVM, "create", "--on", "farm", "--image", str(image.path), "--user", "alice"]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, env=environment(XDG_CONFIG_HOME=str(state.config()))
    ) as running:
        end = time.monotonic() + 60
        while not state.servers and time.monotonic() < end:
            time.sleep(0.05)
        assert state.servers
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 130
    assert state.servers == state.ports == {}
    assert len(state.images) == 1
