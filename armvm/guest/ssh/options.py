"""The ssh options for machines. They override ssh_config(5) files where armvm depends on a value.

ssh uses the first value that it reads for an option, and reads its command line before the user's
~/.ssh/config and the host's /etc/ssh/ssh_config. So this file sets every option that decides which
machine ssh reaches, by which route and key, which host key it accepts and what runs there, even if
the value is ssh's default.

The user's files may set all other options: keys that armvm does not have (IdentityFile,
CertificateFile, IdentityAgent, IdentitiesOnly, PKCS11Provider, if the machine does not use armvm's
own key), algorithms (Ciphers, MACs, KexAlgorithms, Compression, RekeyLimit), keepalive and traffic
class (ServerAlive…, TCPKeepAlive, IPQoS), and session settings (SendEnv, SetEnv, EscapeChar,
NumberOfPasswordPrompts). For hosts in the user's own ssh configuration (`armvm ssh-config`), they
may also set forwards, agent and X11 forwarding, BatchMode, LogLevel, and a shared connection when
armvm's cannot be used.

Some options accumulate in ssh: forwards are therefore cleared, and ssh tries identities from a file
after armvm's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from armvm.base import process
from armvm.base.errors import ArmvmError, ConfigError
from armvm.settings.names import shown

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Decides what runs, and what handles its input and output.
SESSION = {
    "RemoteCommand": "none",
    "RequestTTY": "auto",
    "SessionType": "default",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
    "PermitLocalCommand": "no",
    "Tunnel": "no",
}
#: Decides how ssh reaches a machine and verifies it: armvm generates its only host key. The long
#: timeout is for busy emulated guests, which send their banner late.
MACHINE = {
    **SESSION,
    "CanonicalizeHostname": "no",
    "ConnectTimeout": "60",
    "ProxyUseFdpass": "no",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "KnownHostsCommand": "none",
    "RevokedHostKeys": "none",
    "NoHostAuthenticationForLocalhost": "no",
    "VerifyHostKeyDNS": "no",
    "CheckHostIP": "no",
    "UpdateHostKeys": "no",
    "VisualHostKey": "no",
    "LogLevel": "ERROR",
    "PreferredAuthentications": "publickey,keyboard-interactive,password",
    "PubkeyAuthentication": "yes",
    "KbdInteractiveAuthentication": "yes",
    "PasswordAuthentication": "yes",
}
#: Additional options for ssh calls that armvm itself makes.
OWN = {
    "AddressFamily": "any",
    "ConnectionAttempts": "1",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ClearAllForwardings": "yes",
    "ExitOnForwardFailure": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
}
#: Options for machines that accept armvm's own key: ssh tries only that, and no agent's keys.
OWN_KEY = {
    "IdentitiesOnly": "yes",
    "AddKeysToAgent": "no",
    "PKCS11Provider": "none",
    "PubkeyAcceptedKeyTypes": "+ssh-ed25519",
}
#: Options for a libvirt host: the user's configuration decides how ssh reaches it.
JUMP = {
    **{key: value for key, value in SESSION.items() if key != "SessionType"},
    "RequestTTY": "no",
    "ControlMaster": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
}


def verified(
    *, user: str, host_key: str, alias: str, known_hosts: Path, identity: Path | None
) -> dict[str, str]:
    """Return the ssh options for a machine that do not depend on its address.

    ssh accepts only *host_key*, which the file *known_hosts* has under the name *alias*. If it is
    empty, because the machine was set up without armvm's seed, ssh accepts and keeps the first.
    *identity* is armvm's private key if the machine accepts that, else None.
    """
    kind = host_key.partition(" ")[0]
    told = {
        **MACHINE,
        "User": user,
        "UserKnownHostsFile": quoted(known_hosts),
        "HostKeyAlias": alias,
        **({"HostKeyAlgorithms": kind} if kind else {"StrictHostKeyChecking": "accept-new"}),
    }
    if identity is not None:
        told |= {**OWN_KEY, "IdentityFile": quoted(identity)}
    return told


def at_address(
    told: Mapping[str, str], host: str, port: int, *, way: str = "none", batch: bool = False
) -> dict[str, str]:
    """Return the options of `verified` with an address added, for ssh calls by armvm itself.

    *way* is a ProxyCommand. With *batch*, ssh never prompts.
    """
    found = {
        **told,
        **OWN,
        "HostName": host.replace("%", "%%"),
        "Port": str(port),
        "ProxyCommand": way,
        "BindAddress": "::" if ":" in host else "0.0.0.0",  # noqa: S104 - a client's: any
        "BatchMode": "yes" if batch else "no",
    }
    if batch:
        found["PreferredAuthentications"] = "publickey"
    if "IdentityFile" in found:
        # Otherwise ssh tries the agent's keys that the user's configuration names before armvm's.
        found["IdentityAgent"] = "none"
    return found


def words(options: Mapping[str, str]) -> list[str]:
    """Return options as words for ssh's command line. An older ssh ignores unknown ones."""
    told = {"IgnoreUnknown": "*", **options}
    return [word for key, value in told.items() for word in ("-o", f"{key}={value}")]


def quoted(path: Path | str) -> str:
    """Return a path quoted for ssh, in a file or after ``-o``. Raises ConfigError.

    Source: OpenSSH's argv_split (quotes and backslashes), then TOKENS and ENVIRONMENT VARIABLES
    in ssh_config(5): a % is doubled, and ``${`` cannot be escaped.
    """
    text = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", and ssh may run elsewhere
    if _CONTROL.search(text) or "${" in text:
        raise ConfigError(
            f"ssh cannot use the path {shown(text)}: it has a control character or '${{'",
            hint="move armvm's files: set XDG_CACHE_HOME and XDG_DATA_HOME",
        )
    escaped = re.sub(r'(["\\])', r"\\\1", text.replace("%", "%%"))
    return f'"{escaped}"'


def pattern(directory: Path) -> str:
    """Return the ``Include`` pattern for a directory's files. Raises ConfigError.

    It is a glob(7) pattern. Only newer versions of ssh expand tokens and variables in it, and
    versions differ in how they read quotes and backslashes. So wildcards match those characters.
    """
    text = os.path.abspath(directory)  # noqa: PTH100
    if _CONTROL.search(text):
        raise ConfigError(
            f"ssh cannot use the path {shown(text)}: it has a control character",
            hint="move armvm's files: set XDG_DATA_HOME",
        )
    # [%%] matches one % in every version: those that expand tokens read it as [%].
    odd = {"%": "[%%]", '"': "?", "\\": "?", "$": "[$]"}
    escaped = "".join(odd.get(one) or (f"[{one}]" if one in "*?[" else one) for one in text)
    return f'"{escaped}/*.conf"'


def understood(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that this host's ssh supports. No file can set the others either.

    One unknown option in a file would make every ssh call fail.
    """
    if _knows(options):
        return dict(options)
    return {key: value for key, value in options.items() if _knows({key: value})}


def proxy_command(command: Sequence[str]) -> str:
    """Return a command escaped for ssh's ProxyCommand, which passes it to the user's shell.

    It uses backslashes, because ssh first parses quotes by its own rules (OpenSSH's argv_split).
    """
    line = " ".join(re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", word) or "''" for word in command)
    return line.replace("%", "%%")  # a single % begins one of ssh's tokens


def _knows(options: Mapping[str, str]) -> bool:
    told = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        done = process.run(["ssh", "-F", "none", "-G", *told, "--", "x"], check=False, timeout=30)
    except ArmvmError:  # this host has no ssh; the file may be for another host
        return True
    return done.returncode == 0
