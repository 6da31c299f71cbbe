"""The cloud-init documents: armvm's own, and merging the user's."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from armvm.base.errors import ConfigError
from armvm.guest.cloudinit.documents import Documents, compose, installing, merge
from armvm.guest.cloudinit.user_data import MAX_USER_DATA, read_user_data
from armvm.guest.identity import Identity, KeyPair
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem

HOST_KEY = KeyPair(
    private="-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    public="ssh-ed25519 AAAAHOST root@arm64-01",
)
IDENTITY = Identity(
    uuid="11111111-1111-4111-8111-111111111111",
    instance_id="iid-1",
    mac="52:54:00:11:11:11",
    host_key=HOST_KEY,
)


def documents(user: str = "alice", **values: Any) -> Documents:
    return compose(Machine(name="arm64-01", **values), IDENTITY, user)


def config(user: str = "alice", **values: Any) -> dict[str, Any]:
    """Return the user-data of a machine as cloud-init reads it."""
    text = documents(user, **values).user_data
    assert text.startswith("#cloud-config\n")
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document


def theirs(body: str) -> dict[str, Any]:
    return config(user_data="#cloud-config\n" + body)


def test_the_user_can_log_in_and_use_sudo() -> None:
    (account,) = config(ssh_keys=("ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"))["users"]
    assert account["name"] == "alice"
    assert account["ssh_authorized_keys"] == ["ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"]
    assert account["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert account["lock_passwd"] is True
    assert account["shell"] == "/bin/bash"
    assert "hashed_passwd" not in account


def test_a_password_comes_hashed_and_opens_the_account() -> None:
    (account,) = config(password_hash="$2b$10$abc")["users"]
    assert account["hashed_passwd"] == "$2b$10$abc"
    assert account["lock_passwd"] is False
    assert config(password_hash="$2b$10$abc")["ssh_pwauth"] is False


def test_the_host_key_is_ours() -> None:
    told = config()
    assert told["ssh_keys"] == {
        "ed25519_private": HOST_KEY.private,
        "ed25519_public": HOST_KEY.public,
    }
    assert told["ssh_deletekeys"] is True


def test_the_name_is_told_twice() -> None:
    assert config()["hostname"] == "arm64-01"
    meta = yaml.safe_load(documents().meta_data)
    assert meta == {"instance-id": "iid-1", "local-hostname": "arm64-01", "dsmode": "local"}


@pytest.mark.parametrize(
    ("user_data", "local"),
    [
        (None, True),
        ("#cloud-config\npackages: [git]\nruncmd: [date]\n", True),
        ("#cloud-config\nbootcmd: [[curl, example.org]]\n", False),
        ("#cloud-config\nwrite_files: []\n", False),
        ("#cloud-config\nswap: {size: 1G}\n", False),
        ("#!/bin/sh\ntrue\n", False),
        ("#include\nhttps://example.org/x\n", False),
    ],
)
def test_the_first_stage_does_it_all_where_no_network_can_be_needed(
    user_data: str | None, local: bool
) -> None:
    found = documents(user_data=user_data)
    assert yaml.safe_load(found.meta_data).get("dsmode") == ("local" if local else None)
    assert ("systemctl --no-block stop cloud-init.service" in found.user_data) is local
    assert "cloud-init.service" not in found.vendor_data


def test_autologin_is_for_the_user_and_can_be_left_out() -> None:
    (file,) = config("bob")["write_files"]
    assert file["path"].startswith("/etc/systemd/system/serial-getty@ttyAMA0.service.d/")
    assert "--autologin bob " in file["content"]
    assert r"'-p -f -- \\u'" in file["content"]
    assert "%" not in file["content"]
    without = config("bob", autologin=False)
    assert "write_files" not in without
    assert "runcmd" not in without


def test_the_message_of_the_day_can_be_left_out() -> None:
    (_, _, away) = config(motd=False)["runcmd"]
    assert away[:2] == ["sh", "-c"]
    assert "mv -T /etc/update-motd.d /etc/update-motd.d.armvm" in away[2]
    assert len(config()["runcmd"]) == 2
    assert len(config(motd=False, autologin=False)["runcmd"]) == 1


def test_the_network_is_dhcp_by_mac_on_every_card() -> None:
    network = yaml.safe_load(documents().network_config or "")
    assert network["version"] == 2
    (card,) = network["ethernets"].values()
    assert card == {"match": {"name": "e*"}, "dhcp4": True, "dhcp-identifier": "mac"}


def test_the_seeds_files_have_cloud_inits_names() -> None:
    assert sorted(documents().files()) == [
        "meta-data",
        "network-config",
        "user-data",
        "vendor-data",
    ]
    assert yaml.safe_load(documents().vendor_data) == {}


def test_their_lists_are_appended_to_ours() -> None:
    told = theirs(
        "users: [{name: eve}]\nruncmd: [[touch, /x]]\nwrite_files: [{path: /a, content: b}]\n"
    )
    assert [user["name"] for user in told["users"]] == ["alice", "eve"]
    assert told["runcmd"][-1] == ["touch", "/x"]
    assert ["systemctl", "daemon-reload"] in told["runcmd"]
    assert [file["path"] for file in told["write_files"]][-1] == "/a"
    assert len(told["write_files"]) == 2


def test_their_values_replace_ours_and_mappings_are_merged() -> None:
    told = theirs("hostname: other\nssh_pwauth: true\nssh_keys: {ecdsa_public: x}\nlocale: C\n")
    assert told["hostname"] == "other"
    assert told["ssh_pwauth"] is True
    assert told["locale"] == "C"
    assert told["ssh_keys"] == {
        "ed25519_private": HOST_KEY.private,
        "ed25519_public": HOST_KEY.public,
        "ecdsa_public": "x",
    }


@pytest.mark.parametrize("script", [False, True])
def test_a_guest_that_installs_packages_also_does_what_the_user_asked_for(script: bool) -> None:
    own = "#!/bin/sh\ntouch /done\n" if script else "#cloud-config\npackages: [git]\n"
    for theirs, wanted in ((None, ["gcc", "make"]), (own, ["gcc", "make", "git"])):
        machine = installing(Machine(name="m", user_data=theirs), ("gcc", "make"))
        text = compose(machine, IDENTITY, "alice").user_data
        if theirs is not None and script:
            assert "packages:\n- gcc\n- make\n" in text
            assert "touch /done" in text
        else:
            data = yaml.safe_load(text)
            assert (data["packages"], data["package_update"]) == (wanted, True)


def test_merge_by_itself() -> None:
    below = {"a": 1, "m": {"x": 1, "n": {"p": 1}}, "packages": ["a"], "mounts": ["a"], "runcmd": 1}
    above = {"b": 2, "m": {"y": 2, "n": {"p": 2}}, "packages": ["b"], "mounts": ["b"], "runcmd": []}
    assert merge(below, above) == {
        "a": 1,
        "b": 2,
        "m": {"x": 1, "y": 2, "n": {"p": 2}},
        "packages": ["a", "b"],
        "mounts": ["b"],
        "runcmd": [],
    }
    assert below["packages"] == ["a"], "what is merged is left as it was"
    assert merge(below, {}) == below


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/sh\necho hello\n",
        "#cloud-boothook\necho\n",
    ],
    ids=lambda text: text.split("\n")[0],
)
def test_a_script_is_passed_on_and_ours_goes_below(script: str) -> None:
    made = documents(user_data=script)
    assert made.user_data == script
    assert made.vendor_data.startswith("#cloud-config\n")
    told = yaml.safe_load(made.vendor_data)
    assert told["users"][0]["name"] == "alice"
    assert told["ssh_keys"]["ed25519_public"] == HOST_KEY.public


def test_a_byte_order_mark_is_taken_off() -> None:
    """cloud-init knows no format behind one."""
    assert read_user_data("\ufeff#cloud-config\na: 1\n") == {"a": 1}
    assert read_user_data("\ufeff#!/bin/sh\n") == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("body", "document"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("---\n", {}),
        ("packages: [git]\n", {"packages": ["git"]}),
        ("packages:\r\n  - git\r\n", {"packages": ["git"]}),
        ("a: &x [1]\nb: *x\n", {"a": [1], "b": [1]}),
        ("text: |\n  é ü 日本\n", {"text": "é ü 日本\n"}),
        ('a: "x\\x85y\\u2028\\nz\\ufeff"\n', {"a": "x\x85y\u2028\nz\ufeff"}),
    ],
)
def test_documents_that_are_taken(body: str, document: dict[str, Any]) -> None:
    assert read_user_data("#cloud-config\n" + body) == document
    assert read_user_data("#cloud-config\r\n" + body) == document
    told = theirs(body)
    assert {key: told[key] for key in document} == document


@pytest.mark.parametrize(
    "text",
    ["", "\n", "packages: [git]\n", "hello", "#cloud-confi\n", "\x1b[31m\n"],
)
def test_text_without_a_known_first_line_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="unsupported format") as caught:
        read_user_data(text)
    assert caught.value.detail is not None
    assert caught.value.detail.isprintable()
    assert "#cloud-config" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("a: [1\n", "line 3"),
        ("a: b: c\n", "line 2, column 5"),
        ("a: 1\n\tb: 2\n", "line 3, column 1"),
        ("a: !!python/object:os.system {}\n", "line 2, column 4"),
        ("a: !!python/object/apply:os.system [id]\n", "line 2"),
        ("a: !custom 1\n", "line 2"),
        ("a: *nowhere\n", "line 2"),
        ("a: 'x\n", "line "),
        ("? [a, b]\n: c\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "line 3"),
        ("a: 1\nb: \x01\n", "line 3: invalid character 0x01"),
        ("a: 2024-13-45\n", "line 2, column 4: invalid timestamp"),
        ("a: !!int 'x'\n", "line 2, column 4: invalid int"),
        ('a: [!!int ""]\n', "line 2, column 5: invalid int"),
        ('a: !!float ""\n', "line 2, column 4: invalid float"),
        ("a: !!bool x\n", "line 2, column 4: invalid bool"),
        ("a: !!timestamp x\n", "line 2, column 4: invalid timestamp"),
        (f"a: 0x{'f' * 5000}\n", "line 2, column 4: integer out of range"),
        (f"users: 0x{'f' * 5000}\n", "line 2, column 8: integer out of range"),
        ("a: " + "[" * 5000 + "\n", ""),
        ("a: " + "[" * 3000 + "]" * 3000 + "\n", ""),
        ("{a: " * 3000 + "1" + "}" * 3000 + "\n", ""),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_no_yaml_is_told_with_its_line(body: str, where: str) -> None:
    with pytest.raises(ConfigError, match="invalid YAML") as caught:
        read_user_data("#cloud-config\n" + body)
    assert where in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("body", ["- a\n", "just text\n", "42\n", "1: 2\n", "true: 1\n"])
def test_yaml_that_is_no_mapping_of_names_is_refused(body: str) -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_user_data("#cloud-config\n" + body)


def test_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 MiB"):
        read_user_data("#!/bin/sh\n" + "#" * MAX_USER_DATA)


def test_a_billion_laughs_stay_small() -> None:
    """Aliases are one object many times; they must not be written out."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    made = documents(user_data="#cloud-config\n" + "\n".join(lines) + "\n")
    assert len(made.user_data) < 20_000


@pytest.mark.timeout(60)
def test_merge_keys_cannot_be_stacked_to_a_bomb() -> None:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
    made = documents(user_data="#cloud-config\n" + "\n".join(lines) + "\n")
    assert yaml.safe_load(made.user_data)["a39"] == {"k": 1}
    assert len(made.user_data) < 20_000


@pytest.mark.parametrize("depth", [10, 60, 90, 120, 150, 200, 300, 500])
def test_deep_documents_are_written_or_refused(depth: int) -> None:
    """Reading and writing recurse differently: what can be read must be writable."""
    text = "#cloud-config\na: " + "[" * depth + "]" * depth + "\n"
    try:
        made = documents(user_data=text)
    except ConfigError:
        assert depth > 100
    else:
        assert yaml.safe_load(made.user_data)["a"] is not None


@pytest.mark.parametrize(
    "body",
    [
        "a: 2024-01-01\n",
        "a: 2024-01-01 10:00:00+02:00\n",
        "a: !!binary aGVsbG8=\n",
        "a: !!set {x, y}\n",
        "a: !!omap [x: 1]\n",
        "a: .nan\n",
        "a: 0o17\n",
        'a: "\\ud800"\n',
        'a: "\\0"\n',
        "a: &x [*x]\n",
        "a: ~\n",
    ],
)
def test_odd_values_are_written_back(body: str) -> None:
    files = documents(user_data="#cloud-config\n" + body).files()
    text = files["user-data"].decode()
    assert "a" in yaml.safe_load(text)


@given(st.text())
def test_any_text_is_refused_or_gives_valid_documents(text: str) -> None:
    for candidate in (text, "#cloud-config\n" + text):
        try:
            made = documents(user_data=candidate)
        except ConfigError as error:
            assert error.message.isprintable()
        else:
            yaml.safe_load(made.vendor_data)
            assert made.files()["user-data"]
            if candidate.startswith("#cloud-config\n"):
                assert isinstance(yaml.safe_load(made.user_data), dict)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), YAML_VALUES, max_size=4))
def test_what_a_user_asks_for_arrives_unchanged(wanted: dict[str, Any]) -> None:
    ours = config()
    told = config(user_data="#cloud-config\n" + yaml.safe_dump(wanted))
    for key, value in wanted.items():
        if key not in ours:
            assert told[key] == value


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=30))
def test_every_user_name_arrives(user: str) -> None:
    assert config(user)["users"][0]["name"] == user


LISTS = {"cloud_init_modules", "cloud_config_modules"}


def test_the_disk_grows_after_ssh() -> None:
    early, late = (config()[key] for key in ("cloud_init_modules", "cloud_config_modules"))
    assert early[-1] == "ssh" and late[:2] == ["growpart", "resizefs"]
    assert set(early) & set(late) == set()
    assert "cloud_final_modules" not in config()


@pytest.mark.parametrize("key", ["packages", "write_files", "runcmd", "ntp", "timezone", "apt"])
def test_a_users_keys_have_their_modules(key: str) -> None:
    """Where our lists stand, they have the module; the final stage's are the image's own."""
    document = theirs(f"{key}: []")
    module = {"write_files": "write-files", "apt": "apt-configure"}.get(key, key)
    listed = document["cloud_init_modules"] + document["cloud_config_modules"]
    assert module in listed or key == "packages"


@pytest.mark.parametrize(
    "body",
    ["swap: {size: 1G}", "cloud_config_modules: [runcmd]", "snap: {}", "mounts: []", "zypper: {}"],
)
def test_with_any_other_key_the_images_own_lists_stand(body: str) -> None:
    key = body.partition(":")[0]
    assert theirs(body).keys() & LISTS == {key} & LISTS


def test_with_a_script_the_images_own_lists_stand() -> None:
    made = documents(user_data="#!/bin/sh\n")
    assert not LISTS & yaml.safe_load(made.vendor_data).keys()


def of_system(distro: str, **values: Any) -> Documents:
    machine = Machine(name="arm64-01", ssh_keys=("ssh-ed25519 AAAA a",), **values)
    return compose(machine, IDENTITY, "alice", system=OperatingSystem(distro=distro, version="1"))


def test_debian_and_ubuntu_are_told_the_same_as_the_unknown() -> None:
    unknown = documents(ssh_keys=("ssh-ed25519 AAAA a",))
    for distro in ("debian", "ubuntu", "other"):
        assert of_system(distro) == unknown


def test_releases_before_netplan_find_their_network() -> None:
    for distro, version, netplan in (
        ("debian", "11", False),
        ("debian", "12", True),
        ("ubuntu", "16.04", False),
        ("ubuntu", "18.04", True),
    ):
        system = OperatingSystem(distro=distro, version=version)
        found = compose(Machine(name="arm64-01"), IDENTITY, "alice", system=system)
        assert (found.network_config is not None) == netplan
        assert "cloud_init_modules" in yaml.safe_load(found.user_data)


@pytest.mark.parametrize("distro", ["fedora", "opensuse", "alpine"])
def test_other_systems_keep_their_modules_and_find_their_network(distro: str) -> None:
    found = of_system(distro)
    assert found.network_config is None
    assert sorted(found.files()) == ["meta-data", "user-data", "vendor-data"]
    config = yaml.safe_load(found.user_data)
    assert "cloud_init_modules" not in config
    assert config["ssh_keys"]["ed25519_public"] == HOST_KEY.public
    (account,) = config["users"]
    assert account["name"] == "alice"
    assert account["ssh_authorized_keys"] == ["ssh-ed25519 AAAA a"]
    autologin = [file["path"] for file in config.get("write_files", [])]
    assert bool(autologin) == (distro != "alpine")


def test_alpine_has_a_user_that_can_log_in_there() -> None:
    config = yaml.safe_load(of_system("alpine").user_data)
    (account,) = config["users"]
    assert account["shell"] == "/bin/ash"
    assert account["groups"] == ["adm", "wheel"]
    assert account["doas"] == ["permit nopass alice"]
    assert (account["lock_passwd"], account["hashed_passwd"]) == (False, "*")
    # Nothing of systemd's: a command that fails would fail the whole run of cloud-init.
    assert "systemctl" not in of_system("alpine").user_data
    with_password = yaml.safe_load(of_system("alpine", password_hash="$2b$10$abc").user_data)
    assert with_password["users"][0]["hashed_passwd"] == "$2b$10$abc"
