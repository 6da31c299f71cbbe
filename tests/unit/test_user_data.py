"""The user's user-data: all that cloud-init takes is taken, and armvm's account is in the result.

What cloud-init makes of the archives was recorded with its version 22.4.2.
"""

from __future__ import annotations

import gzip
import tracemalloc
from email import message_from_string
from email.message import Message
from typing import Any

import pytest
import yaml

from armvm.base.errors import ConfigError
from armvm.guest.cloudinit.archive import taken_apart
from armvm.guest.cloudinit.documents import compose, together
from armvm.guest.cloudinit.user_data import MAX_USER_DATA, decode, read_user_data
from armvm.settings.machine import Machine
from armvm.settings.system import OperatingSystem
from tests.unit.host_tools import IDENTITY, PUBLIC_KEY

CONFIG = "#cloud-config\npackages: [git]\n"
MIME = """{headers}

--x
Content-Type: {type}

{body}
--x--
"""
HEADERS = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="x"'


def mime(body: str, type: str = "text/cloud-config", headers: str = HEADERS) -> str:
    return MIME.format(body=body, type=type, headers=headers)


def user_data(text: str) -> str:
    machine = Machine(name="m", ssh_keys=(PUBLIC_KEY,), user_data=text)
    return compose(machine, IDENTITY, "alice").user_data


def told(body: str) -> dict[str, Any]:
    text = user_data("#cloud-config\n" + body)
    assert text.startswith("#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@pytest.mark.parametrize(
    ("value", "others"),
    [
        ("bob", ["bob"]),
        ("bob, eve,", ["bob", "eve"]),
        ("{bob: {sudo: true}}", [{"name": "bob", "sudo": True}]),
        ("{bob: true, eve: 'yes', mallory: false}", ["bob", "eve"]),
        ("default", ["default"]),
        ("[default, [bob, eve], {name: x}]", ["default", ["bob", "eve"], {"name": "x"}]),
        ("", []),
        ("[]", []),
        ("{}", []),
        ("''", []),
    ],
)
def test_armvms_user_comes_first_whatever_users_is(value: str, others: list[Any]) -> None:
    account, *rest = told(f"users: {value}\n")["users"]
    assert account["name"] == "alice"
    assert account["ssh_authorized_keys"] == [PUBLIC_KEY]
    assert rest == others


@pytest.mark.parametrize("value", ["5", "true", "[5]", "[null]", "[{1: 2}]", "{bob: [x]}", "[[1]]"])
def test_users_over_which_cloud_init_would_stumble_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="users"):
        told(f"users: {value}\n")


@pytest.mark.parametrize(
    "key", ["users", "ssh_keys", "write_files", "runcmd", "bootcmd", "packages", "system_info"]
)
def test_a_null_takes_nothing_away(key: str) -> None:
    assert told(f"{key}:\n").get(key) == told("").get(key)


def test_a_null_that_would_stop_the_accounts_is_left_out() -> None:
    assert "groups" not in told("groups:\n")
    assert told("groups: [staff, {cloud: [eve]}]\n")["groups"] == ["staff", {"cloud": ["eve"]}]


def test_an_entry_for_armvms_user_is_merged_with_its_own() -> None:
    document = told("users: [{name: alice, shell: /bin/zsh, ssh-authorized-keys: ssh-rsa X}]\n")
    (account,) = document["users"]
    assert account["shell"] == "/bin/zsh"
    assert account["ssh_authorized_keys"] == [PUBLIC_KEY, "ssh-rsa X"]
    assert account["sudo"] == "ALL=(ALL) NOPASSWD:ALL"


def test_the_images_default_user_may_be_armvms_and_gets_its_key() -> None:
    """cloud-init takes the default user's keys before those of an entry of that name."""
    document = told("users: [{ssh_authorized_keys: [k]}]\nuser: {ssh_authorized_keys: [k]}\n")
    assert document["users"][1] == {"ssh_authorized_keys": [PUBLIC_KEY, "k"]}
    assert document["user"] == {"ssh_authorized_keys": [PUBLIC_KEY, "k"]}
    assert told("user: bob\nusers: [default]\n")["user"] == "bob"


@pytest.mark.timeout(60)
def test_a_value_that_aliases_make_huge_is_refused_at_once() -> None:
    lines = ["a0: &a0 [5]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(ConfigError, match="users"):
        told("\n".join([*lines, "users: [*a29]", ""]))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("ssh_keys: x", "ssh_keys"),
        ("ssh_keys: {ed25519_private: x}", "armvm sets that host key"),
        ("ssh_keys: {ed25519_public: x}", "armvm sets that host key"),
        ("ssh_keys: {rsa_private: }", "ssh_keys"),
        ("write_files: {path: /x}", "write_files"),
        ("write_files: [x]", "write_files"),
        ("runcmd: date", "runcmd"),
        ("runcmd: [echo a: b]", "runcmd"),
        ("bootcmd: [5]", "bootcmd"),
        ("packages: {a: b}", "packages"),
        ("user: {1: x}", "user: expected a name or a mapping"),
        ("user: [eve]", "user: expected a name or a mapping"),
        ("groups: 5", "groups"),
        ("groups: {staff: }", "groups"),
    ],
)
def test_what_would_cost_armvm_its_part_is_refused(body: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        told(body + "\n")
    assert caught.value.hint


def test_single_values_of_lists_are_appended() -> None:
    assert told("packages: git\n")["packages"] == ["git"]
    assert told("ssh_authorized_keys: ssh-rsa X\n")["ssh_authorized_keys"] == ["ssh-rsa X"]


@pytest.mark.parametrize(
    "text",
    [
        "\n" + CONFIG,
        "  \r\n  " + CONFIG,
        "#Cloud-Config\npackages: [git]\n",
        "#cloud-config # mine\npackages: [git]\n",
        "#cloud-config: x\npackages: [git]\n",
        "#cloud-config\n# mime-version: none\npackages: [git]\n",
    ],
)
def test_a_cloud_config_is_found_as_cloud_init_finds_it(text: str) -> None:
    assert read_user_data(text) == {"packages": ["git"]}


@pytest.mark.parametrize(
    "text",
    ["\n#!/bin/sh\n", "#CLOUD-BOOTHOOK\n", " #Include https://x\n", "\n## Template: Jinja\n"],
)
def test_other_formats_are_found_so_too_and_begin_at_once(text: str) -> None:
    """cloud-init finds them behind white space, but could not run them."""
    assert read_user_data(text) == text.lstrip()


def test_lines_are_counted_from_the_files_first() -> None:
    with pytest.raises(ConfigError, match="line 5"):
        read_user_data("\n\n#cloud-config\na: 1\n\tb: 2\n")


@pytest.mark.parametrize(
    "text",
    [
        mime("users: [bob]"),
        mime("users: [bob]", headers=f"From: me\nsubject: x\n{HEADERS}"),
        mime("users: [bob]", headers=HEADERS.replace("MIME-Version", "mime-VERSION")),
        mime("#cloud-config\nusers: [bob]", "text/plain"),
        mime("#!/bin/sh", "text/x-shellscript"),
        "MIME-Version: 1.0\n\n#cloud-config\nusers: [bob]\n",
        "## template: jinja\n#cloud-config\nusers: [bob]\n",
        "## template: jinja\n#cloud-config\n{% if x %}\nusers: bob é\n{% endif %}\n",
        "#cloud-config-archive\n- type: text/cloud-config\n  content: 'users: [bob]'\n",
        "#include\nhttps://example.org/x\n",
        '#cloud-config-jsonp\n[{"op": "add", "path": "/users", "value": ["bob"]}]\n',
        "#part-handler\r\n",
    ],
)
def test_what_may_hold_a_cloud_config_becomes_part_of_an_archive(text: str) -> None:
    made = message_from_string(user_data(text))
    assert made.get_content_type() == "multipart/mixed"
    payload = made.get_payload()
    assert isinstance(payload, list)
    theirs, ours = payload
    assert isinstance(theirs, Message) and isinstance(ours, Message)
    assert ours.get_content_type() == "text/cloud-config"
    parts = taken_apart(made.as_string())
    assert parts is not None
    document = yaml.safe_load(parts[1])
    assert [one["name"] for one in document["users"]] == ["alice"]
    assert document["merge_how"] == "dict(no_replace,recurse_list)+list(prepend)+str()"
    if "MIME" not in text.upper():
        assert theirs.get_content_type() == "text/plain", "cloud-init looks at its beginning"
        assert parts[0] == text


@pytest.mark.parametrize(
    "text",
    [
        mime("users: bob"),
        mime("users:"),
        mime("groups:"),
        mime("runcmd: date"),
        mime("ssh_keys: {ed25519_public: x}"),
        mime("#cloud-config\nusers: {bob: true}", "text/plain"),
        mime("## template: jinja\n#cloud-config\nusers: bob", "text/jinja2"),
        "## template: jinja\n#cloud-config\nusers: bob\n",
        "#cloud-config-archive\n- 'users: bob'\n",
        "#cloud-config-archive\n- type: text/cloud-config\n  content: 'users: '\n",
    ],
)
def test_what_cloud_inits_rules_cannot_merge_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        user_data(text)


def test_a_message_without_its_version_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError) as caught:
        read_user_data('Content-Type: multipart/mixed; boundary="x"\n\n--x--\n')
    assert "MIME-Version" in str(caught.value.hint)


def test_gzip_is_taken() -> None:
    assert decode(gzip.compress(CONFIG.encode())) == CONFIG
    assert decode(gzip.compress(b"#cloud-config\n") + gzip.compress(b"a: 1\n")).endswith("a: 1\n")
    assert decode(CONFIG.encode()) == CONFIG


@pytest.mark.parametrize("cut", [3, 12, -9, -1])
def test_damaged_gzip_is_refused(cut: int) -> None:
    with pytest.raises(ConfigError, match="gzip"):
        decode(gzip.compress(CONFIG.encode())[:cut])
    with pytest.raises(ConfigError, match="gzip"):
        decode(gzip.compress(CONFIG.encode()) + b"junk")


@pytest.mark.parametrize("members", [1, 50])
def test_a_gzip_bomb_costs_little_memory(members: int) -> None:
    bomb = gzip.compress(b"#" * (100 * MAX_USER_DATA // members)) * members
    tracemalloc.start()
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        decode(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * MAX_USER_DATA


def test_several_are_merged_in_order() -> None:
    text = together([CONFIG + "users: bob\nhostname: a\n", "#cloud-config\nusers: {eve: true}\n"])
    text = together([text, "#cloud-config\nhostname: b\npackages: [vim]\n"])
    assert read_user_data(text) == {
        "packages": ["git", "vim"],
        "users": ["bob", "eve"],
        "hostname": "b",
    }
    assert together(["#!/bin/sh\n"]) == "#!/bin/sh\n"


def test_scripts_come_after_all_cloud_configs() -> None:
    text = together(["#!/bin/sh\n", CONFIG, "#!/bin/bash\n", "#cloud-config\npackages: [vim]\n"])
    payload = message_from_string(text).get_payload()
    assert isinstance(payload, list)
    config, *scripts = payload
    assert isinstance(config, Message)
    assert yaml.safe_load(str(config.get_payload())) == {"packages": ["git", "vim"]}
    assert [str(one.get_payload()) for one in scripts if isinstance(one, Message)] == [
        "#!/bin/sh\n",
        "#!/bin/bash\n",
    ]
    assert taken_apart(user_data(text)) is not None


def test_several_that_cloud_init_would_merge_by_replacing_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be used with other files"):
        together([CONFIG, "#include\nhttps://example.org/x\n"])


def account_of(text: str, name: str = "debian", password: str | None = "$2b$x") -> dict[str, Any]:
    """Return the cloud-config of a Debian machine whose user is *name*, with a password."""
    machine = Machine(name="m", ssh_keys=(PUBLIC_KEY,), user_data=text, password_hash=password)
    debian = OperatingSystem(distro="debian", version="12")
    document: dict[str, Any] = yaml.safe_load(
        compose(machine, IDENTITY, name, system=debian).user_data
    )
    return document


@pytest.mark.parametrize(
    ("theirs", "user"),
    [
        ("users: [default]", {}),
        ("users: 'eve, default'", {}),
        ("users: [[eve, default]]", {}),
        ("users: [{name: default, shell: /bin/sh}]", {}),
        ("user: {shell: /bin/zsh}", {"shell": "/bin/zsh"}),
        ("user: debian", {"name": "debian"}),
        ("user: {lock_passwd: true}", {"lock_passwd": True}),
    ],
)
def test_the_images_default_user_does_not_lock_the_password(
    theirs: str, user: dict[str, Any]
) -> None:
    """Of two entries for one user, cloud-init takes the image's, which locks it."""
    wanted = {"lock_passwd": False, "hashed_passwd": "$2b$x", **user}
    assert account_of(f"#cloud-config\n{theirs}\n")["user"] == wanted


@pytest.mark.parametrize(
    ("theirs", "name", "password"),
    [
        ("users: [eve]", "debian", "$2b$x"),
        ("users: [default]", "alice", "$2b$x"),
        ("users: [default]", "debian", None),
        ("packages: [git]", "debian", "$2b$x"),
    ],
)
def test_nobody_else_gets_the_password(theirs: str, name: str, password: str | None) -> None:
    document = account_of(f"#cloud-config\n{theirs}\n", name, password)
    assert "user" not in document
    others = [one for one in document["users"] if isinstance(one, dict) and one["name"] != name]
    assert not any("hashed_passwd" in one for one in others)


def test_another_default_user_stays_without_the_password() -> None:
    document = account_of("#cloud-config\nuser: bob\nusers: [default]\n")
    assert document["user"] == "bob"
