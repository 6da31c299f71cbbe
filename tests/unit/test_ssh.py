"""armvm's ssh beside a user's own files: a real ssh that reads them, and a real sshd."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import libvirt
import pytest

from armvm.base.errors import CommandFailed, ConfigError
from armvm.base.paths import data_dir, ssh_home
from armvm.base.progress import Plain, Progress, Quiet
from armvm.guest.cloudinit.credentials import own_key
from armvm.guest.ssh import options as ssh_options
from armvm.guest.ssh.scp import read_copy
from armvm.host.domain.handle import Handle
from armvm.host.domain.instance import Instance
from armvm.provision.access.cp import scp_command
from armvm.provision.access.jump import Jump
from armvm.provision.access.ssh import Endpoint, ssh_command
from armvm.provision.access.ssh_config import _line, host_block
from armvm.provision.access.ssh_include import include
from armvm.provision.machine import shared_connection
from armvm.provision.machine.known_hosts import ssh_config_file
from armvm.provision.monitor.login_check import assert_lets_in
from tests.ssh_tools import Server, at_home, make_key, server
from tests.unit.host_tools import IDENTITY, INSTANCE, RECORD, RecordedHost

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a password database of its own")

#: Settings for all hosts, each of which led away from a machine, or into it in another way.
HOSTILE = (
    "RemoteCommand tmux new -A -s main\n RequestTTY yes",
    "RemoteCommand echo no",
    "RequestTTY force",
    "SessionType none",
    "SessionType subsystem",
    "StdinNull yes",
    "ForkAfterAuthentication yes",
    "PermitLocalCommand yes\n LocalCommand echo local",
    "ProxyJump nobody@bastion.invalid",
    "ProxyCommand false",
    "ProxyUseFdpass yes",
    "HostName elsewhere.invalid",
    "User nobody",
    "Port 9",
    "BindAddress 192.0.2.1",
    "BindInterface none0",
    "AddressFamily inet6",
    "ConnectTimeout 1\n ConnectionAttempts 9",
    "CanonicalizeHostname always\n CanonicalDomains invalid\n CanonicalizeFallbackLocal no",
    "HostKeyAlias other",
    "HostKeyAlgorithms ssh-rsa",
    "StrictHostKeyChecking ask",
    "UserKnownHostsFile /dev/null",
    "GlobalKnownHostsFile /etc/none",
    "KnownHostsCommand /bin/false",
    "RevokedHostKeys /none",
    "VerifyHostKeyDNS yes",
    "UpdateHostKeys yes",
    "CheckHostIP yes",
    "VisualHostKey yes",
    "LogLevel DEBUG",
    "BatchMode yes\n NumberOfPasswordPrompts 0",
    "PreferredAuthentications password",
    "PubkeyAuthentication no",
    "PubkeyAcceptedAlgorithms rsa-sha2-512",
    "IdentityFile /none\n IdentitiesOnly yes",
    "IdentityAgent /none\n AddKeysToAgent confirm",
    "PKCS11Provider /none",
    "ControlMaster auto\n ControlPath {home}/shared-%h\n ControlPersist 60",
    "LocalForward 1 localhost:1\n ExitOnForwardFailure yes",
    "RemoteForward 1 localhost:1\n ExitOnForwardFailure yes",
    "DynamicForward 1\n ExitOnForwardFailure yes",
    "ForwardX11 yes\n ForwardX11Trusted yes\n ExitOnForwardFailure yes",
    "ForwardAgent yes",
    "SendEnv LANG LC_*\n SetEnv A=b",
    "Tunnel yes",
    "NoSuchOption x",
)  # fmt: skip
#: What stays the user's own for a host in his own ssh: forwards and the like; and a fault.
THEIRS = ("LocalForward", "RemoteForward", "DynamicForward", "ForwardX11", "Tunnel", "NoSuchOption")


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A machine as armvm knows it, an sshd in its place, and the home of who logs in."""

    instance: Instance
    where: Endpoint
    server: Server
    home: Path

    def config(self, text: str, name: str = "config") -> None:
        """Give the user's ssh a configuration."""
        (self.home / ".ssh").mkdir(exist_ok=True)
        (self.home / ".ssh" / name).write_text(text.replace("{home}", str(self.home)))

    def run(
        self,
        words: list[str],
        *,
        system: Path | None = None,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Run a command with the user's home; return its exit code and what it printed."""
        done = subprocess.run(
            [*at_home(self.home, system), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **(env or {})},
        )
        return done.returncode, done.stdout, done.stderr

    def ssh(self, *command: str, batch: bool = False) -> list[str]:
        """Return armvm's ssh."""
        return ssh_command(self.instance, self.where, command, batch=batch)

    def installed(self) -> list[str]:
        """Do what ssh-config --install does, and return how the user's ssh is called then.

        In the place of `armvm proxy`, which asks libvirt, stands what it does in the end.
        """
        file = ssh_config_file(self.instance.uuid)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(host_block(RecordedHost(name="none"), self.instance))
        include(self.home / ".ssh" / "config", _line())
        script = self.home / "proxy"
        script.write_text(
            f"#!{sys.executable}\n"
            "import socket, sys\n"
            "from armvm.provision.access.proxy import _join\n"
            f"with socket.create_connection(('127.0.0.1', {self.where.port})) as there:\n"
            "    _join(there, 0, 1)\n"
        )
        script.chmod(0o755)
        return ["ssh", "-o", f"ProxyCommand={ssh_options.proxy_command([str(script)])}"]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def machine(sshd: Server, home: Path, *, own: bool = True) -> Guest:
    """Return the guest that *sshd* stands for; armvm's own key may log in."""
    record = replace(RECORD, user="root", host_key=sshd.host_key, own_key=own)
    if own:
        sshd.authorized.write_text(own_key(data_dir())[1] + "\n")
    instance = replace(INSTANCE, name="arm64-01", uuid=IDENTITY.uuid, record=record)
    where = Endpoint(host="127.0.0.1", port=sshd.port)
    return Guest(instance=instance, where=where, server=sshd, home=home)


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    yield
    shared_connection.close(IDENTITY.uuid, forget=True)


@pytest.fixture
def guest(sshd: Server, tmp_path: Path) -> Guest:
    return machine(sshd, tmp_path)


@pytest.mark.parametrize("lines", HOSTILE)
def test_nothing_in_the_users_files_changes_armvms_ssh(guest: Guest, lines: str) -> None:
    guest.config(f"Host *\n {lines}\n")
    assert guest.run(guest.ssh("cat; echo hi"), stdin="in ") == (0, "in hi\n", "")


def test_nothing_in_the_hosts_file_does(guest: Guest, tmp_path: Path) -> None:
    system = tmp_path / "ssh_config"
    system.write_text(f"Host *\n {HOSTILE[0]}\n ProxyCommand false\n StrictHostKeyChecking no\n")
    assert guest.run(guest.ssh("echo hi"), system=system) == (0, "hi\n", "")


#: All of it in one file: what comes first holds, so each of two that are for one option does once.
ALL = [HOSTILE, tuple(reversed(HOSTILE))]


@pytest.mark.parametrize("lines", ALL, ids=["down", "up"])
def test_nothing_there_changes_a_call_without_questions_or_a_copy(
    guest: Guest, lines: tuple[str, ...], tmp_path: Path
) -> None:
    guest.config("Host *\n" + "".join(f" {one}\n" for one in lines))
    assert guest.run(guest.ssh("cat", batch=True), stdin="in") == (0, "in", "")
    assert copied(guest, tmp_path)


def copied(guest: Guest, directory: Path) -> bool:
    """Tell whether scp copies a file to the guest, and back, without a word."""
    (directory / "one").write_text("bytes")
    for words in (
        [f"{directory}/one", f"m:{directory}/two"],
        [f"m:{directory}/two", f"{directory}/3"],
    ):
        wanted = read_copy(words)
        told = scp_command(wanted, guest.instance, guest.where, recursive=False, quiet=True)
        assert guest.run(told) == (0, "", "")
    return (directory / "3").read_text() == "bytes"


@pytest.mark.parametrize("lines", ALL, ids=["down", "up"])
def test_nothing_there_changes_an_installed_machine(guest: Guest, lines: tuple[str, ...]) -> None:
    """What docker, rsync and git call: the name, and a command that has input."""
    mine = [one for one in lines if not one.startswith(THEIRS)]
    guest.config("Host *\n" + "".join(f" {one}\n" for one in mine))
    words = [*guest.installed(), "-S", "none", "-l", "root", "--", "arm64-01", "cat"]
    assert guest.run(words, stdin="in") == (0, "in", "")


def test_another_host_key_is_refused_whatever_the_files_allow(guest: Guest, tmp_path: Path) -> None:
    other = " ".join(make_key(tmp_path / "other").split()[:2])
    known = tmp_path / "known"
    known.write_text(f"* {guest.server.host_key}\n")
    guest.config(
        f"Host *\n StrictHostKeyChecking no\n UserKnownHostsFile {known}\n"
        f" GlobalKnownHostsFile {known}\n KnownHostsCommand /bin/cat {known}\n"
        " NoHostAuthenticationForLocalhost yes\n"
    )
    wrong = replace(guest, instance=replace(
        guest.instance, record=replace(guest.instance.record, host_key=other)
    ))  # fmt: skip
    for words in (wrong.ssh("echo in"), [*wrong.installed(), "arm64-01", "echo in"]):
        code, out, err = wrong.run(words)
        assert (code, out) == (255, "")
        assert "Host key verification failed" in err


@pytest.mark.parametrize("named", [False, True], ids=["agent", "agent-and-files"])
def test_an_agent_with_eight_keys_is_in_nobodys_way(
    guest: Guest, tmp_path: Path, named: bool
) -> None:
    keys = [tmp_path / f"key{number}" for number in range(8)]
    for key in keys:
        make_key(key)
    lines = "".join(f" IdentityFile {key}\n" for key in keys)
    guest.config(f"Host *\n{lines}" if named else "")
    agent = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL) as running:
        try:
            while not agent.exists():
                assert running.poll() is None
            env = {"SSH_AUTH_SOCK": str(agent)}
            add = subprocess.run(
                ["ssh-add", "-q", *keys], env={**os.environ, **env}, capture_output=True, check=True
            )
            assert not add.stderr
            assert guest.run(guest.ssh("echo hi"), env=env) == (0, "hi\n", "")
            if not named:  # those that the user names for all hosts are tried there
                words = [*guest.installed(), "arm64-01", "echo hi"]
                assert guest.run(words, env=env) == (0, "hi\n", "")
        finally:
            running.terminate()


def test_the_users_own_key_is_found_where_his_files_name_it(sshd: Server, tmp_path: Path) -> None:
    """Of a login, and of a copy, by the machine's address."""
    public = make_key(tmp_path / "work key")
    guest = machine(sshd, tmp_path, own=False)
    sshd.authorized.write_text(f"{public}\n")
    guest.config(f'Host 127.0.0.1\n IdentityFile "{tmp_path}/work key"\n')
    assert guest.run(guest.ssh("echo hi")) == (0, "hi\n", "")
    assert copied(guest, tmp_path)


@pytest.mark.parametrize(
    "odd", ["a b", "100%", "%h %%", "it's #1", 'say "x"', "$HOME", "~", "\\ [x]*?ä", " -o"]
)
def test_any_path_will_do(
    sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    for kind in ("CACHE", "DATA"):
        (tmp_path / odd).mkdir(exist_ok=True)
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / odd / odd))
    guest = machine(sshd, tmp_path)
    assert guest.run(guest.ssh("echo hi")) == (0, "hi\n", "")
    assert copied(guest, tmp_path)
    assert guest.run([*guest.installed(), "arm64-01", "echo hi"]) == (0, "hi\n", "")


def test_a_relative_path_is_made_whole(
    sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ssh_options.quoted("~x/y") == f'"{tmp_path}/~x/y"'


@pytest.mark.parametrize("odd", ["${HOME}", "a\nb", "a\x7fb"])
def test_a_path_that_ssh_cannot_name_is_refused(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / odd))
    with pytest.raises(ConfigError, match="ssh cannot use the path") as caught:
        guest.ssh()
    assert "XDG_CACHE_HOME" in str(caught.value.hint)


def test_an_option_that_ssh_lacks_is_in_no_file(guest: Guest) -> None:
    known = {"User": "x", "RemoteCommand": "none"}
    assert ssh_options.understood({**known, "NoSuchOption": "x"}) == known
    words = ["ssh", *ssh_options.words({"NoSuchOption": "x"}), "-G", "--", "x"]
    assert guest.run(words)[0] == 0


#: What a user may have for all hosts, and what would break a way that only carries bytes.
SESSIONS = (
    "RemoteCommand echo no",
    "RequestTTY force\n SessionType none",
    "PermitLocalCommand yes\n LocalCommand echo local",
    "StdinNull yes\n ForkAfterAuthentication yes",
    "ControlMaster auto\n ControlPath {home}/c-%h",
    "ClearAllForwardings no\n LocalForward 1 localhost:1",
)


@pytest.mark.parametrize("lines", SESSIONS)
def test_the_way_through_a_host_is_one(guest: Guest, tmp_path: Path, lines: str) -> None:
    """How that host is reached is the user's to say; what the way is used for is not."""
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{guest.where.port} {guest.server.host_key}\n")
    guest.config(
        f"Host lab\n HostName 127.0.0.1\n Port {guest.where.port}\n User root\n"
        f" UserKnownHostsFile {known}\n IdentityFile {own_key(data_dir())[0]}\n"
        f"Host *\n {lines}\n"
    )
    jump = Jump(host="lab")
    words = jump.own("-W", f"127.0.0.1:{guest.where.port}")
    code, out, _ = guest.run(words, stdin="no ssh\n")
    assert (code, out.partition("-")[0]) == (0, "SSH")
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    through = replace(guest, where=replace(guest.where, jump=jump))
    assert guest.run(through.ssh("cat"), stdin="in", env=env) == (0, "in", "")


def test_ssh_looks_in_the_home_of_the_password_database(guest: Guest, tmp_path: Path) -> None:
    """Also armvm: what it writes for ssh, and the keys that it takes for the user's own."""
    script = "from armvm.base.paths import ssh_home; print(ssh_home())"
    words = [sys.executable, "-c", script]
    assert guest.run(words, env={"HOME": "/none"}) == (0, f"{tmp_path}\n", "")
    assert ssh_home().is_dir()
    guest.installed()
    told = guest.run(["ssh", "-G", "arm64-01"], env={"HOME": "/none"})[1]
    assert f"hostkeyalias armvm-{IDENTITY.uuid}" in told
    (tmp_path / ".ssh" / "id_x.pub").write_text(make_key(tmp_path / "x"))
    script = "from armvm.provision.machine.credentials import login_keys; print(login_keys([])[1])"
    assert guest.run([sys.executable, "-c", script], env={"HOME": "/none"}) == (0, "False\n", "")


def admitted(guest: Guest, progress: Progress, *, session: bool = True) -> None:
    """Log in as the end of a wait does. The domain has no agent to explain anything."""
    connection = libvirt.open("test:///default")
    try:
        assert_lets_in(
            Handle(
                connection=connection,
                domain=connection.lookupByName("test"),
                instance=guest.instance,
            ),
            guest.where,
            log=lambda: (
                "[ 9.1] ci-info: no authorized SSH keys fingerprints found for user root.\n"
            ),
            progress=progress,
            session=session,
        )
    finally:
        connection.close()


@pytest.mark.parametrize("session", [True, False], ids=["a login", "authentication alone"])
def test_ready_means_that_armvms_key_is_let_in(guest: Guest, session: bool) -> None:
    known = replace(
        guest.instance.record, key=guest.server.authorized.read_text().rpartition(" ")[0]
    )
    guest = replace(guest, instance=replace(guest.instance, record=known))
    admitted(guest, Quiet(), session=session)
    guest.server.authorized.write_text("")
    with pytest.raises(CommandFailed, match="root cannot log in by ssh") as caught:
        admitted(guest, Quiet(), session=session)
    assert caught.value.exit_code == 12
    assert "Permission denied" in str(caught.value.detail)
    assert "ci-info: no authorized SSH keys" in str(caught.value.detail)


@pytest.mark.parametrize("key", ["", "ssh-ed25519 AAAA"], ids=["older", "another user's"])
def test_a_key_that_is_not_known_to_be_here_is_no_error(guest: Guest, key: str) -> None:
    record = replace(guest.instance.record, key=key)
    guest = replace(guest, instance=replace(guest.instance, record=record))
    guest.server.authorized.write_text("")
    said = io.StringIO()
    admitted(guest, Plain(said))
    assert "cannot log in to" in said.getvalue()
    assert ("IdentitiesOnly=yes" in guest.ssh()) == (not key)
