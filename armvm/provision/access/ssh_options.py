"""What ssh is told of a machine, so that no ssh_config(5) file changes what armvm depends on.

ssh takes the first value that it gets for an option: those of its command line come before the
user's ~/.ssh/config and the host's /etc/ssh/ssh_config. So every option that decides which machine
is reached, by which way and key, whose host key is accepted and what runs there has its value
here, also where that is ssh's default.

The user's files may still set the rest: keys that armvm does not have (IdentityFile,
CertificateFile, IdentityAgent, IdentitiesOnly, PKCS11Provider, where the machine does not have
armvm's own key), the algorithms of the connection (Ciphers, MACs, KexAlgorithms, Compression,
RekeyLimit), how it is kept alive and treated on its way (ServerAlive…, TCPKeepAlive, IPQoS), and
a session's comfort (SendEnv, SetEnv, EscapeChar, NumberOfPasswordPrompts). For hosts in the user's
own ssh (`armvm ssh-config`) also what the user's ssh may want there: forwards, agent and X11, a
shared connection, BatchMode, LogLevel's details.

Options that appear several times add up in ssh: forwards are cleared; an identity that comes from
a file is tried after armvm's own.
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

#: What runs, and what may come between it and its input and output.
SESSION = {
    "RemoteCommand": "none",
    "RequestTTY": "auto",
    "SessionType": "default",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
    "PermitLocalCommand": "no",
    "Tunnel": "no",
}
#: How a machine is reached, and that it is the one: its only host key is made by armvm. A guest
#: that is emulated and busy sends its banner late.
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
#: What holds besides where armvm itself runs ssh.
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
#: What holds where armvm's own key is let in: it alone is tried, whatever an agent has.
OWN_KEY = {
    "IdentitiesOnly": "yes",
    "AddKeysToAgent": "no",
    "PKCS11Provider": "none",
    "PubkeyAcceptedKeyTypes": "+ssh-ed25519",
}
#: The way to a host that is the user's own: all that leads there is the user's to set.
JUMP = {
    **{key: value for key, value in SESSION.items() if key != "SessionType"},
    "RequestTTY": "no",
    "ControlMaster": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
}


def words(options: Mapping[str, str]) -> list[str]:
    """Return options as words of ssh's command line. Those that an older ssh lacks are ignored."""
    told = {"IgnoreUnknown": "*", **options}
    return [word for key, value in told.items() for word in ("-o", f"{key}={value}")]


def quoted(path: Path | str) -> str:
    """Return a path as ssh reads one back, in a file or after ``-o``. Raises ConfigError.

    Source: OpenSSH's argv_split (quotes and backslashes), then TOKENS and ENVIRONMENT VARIABLES
    in ssh_config(5): a % is doubled, and nothing stands for ``${``.
    """
    text = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", and ssh may run elsewhere
    if _CONTROL.search(text) or "${" in text:
        raise ConfigError(
            f"ssh cannot name the path {shown(text)}",
            hint="XDG_CACHE_HOME and XDG_DATA_HOME move armvm's files elsewhere",
        )
    escaped = re.sub(r'(["\\])', r"\\\1", text.replace("%", "%%"))
    return f'"{escaped}"'


def pattern(directory: Path) -> str:
    """Return what ``Include`` is told of a directory's files. Raises ConfigError.

    It is a pattern of glob(7). Only newer versions of ssh expand tokens and variables in it, and
    each version reads quotes and backslashes by its own rules: these are matched, not written.
    """
    text = os.path.abspath(directory)  # noqa: PTH100
    if _CONTROL.search(text):
        raise ConfigError(
            f"ssh cannot name the path {shown(text)}", hint="XDG_DATA_HOME moves it elsewhere"
        )
    # [%%] is one % for every version: the one that expands tokens makes it [%].
    odd = {"%": "[%%]", '"': "?", "\\": "?", "$": "[$]"}
    escaped = "".join(odd.get(one) or (f"[{one}]" if one in "*?[" else one) for one in text)
    return f'"{escaped}/*.conf"'


def understood(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that this host's ssh knows. What it does not know, no file can set.

    In a file, one unknown option would end every call of ssh.
    """
    if _knows(options):
        return dict(options)
    return {key: value for key, value in options.items() if _knows({key: value})}


def proxy_command(command: Sequence[str]) -> str:
    """Return a command as ssh's ProxyCommand takes it, which hands it to the user's shell.

    Backslashes, no quotes: ssh counts quotes by rules of its own before (OpenSSH's argv_split).
    """
    line = " ".join(re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", word) or "''" for word in command)
    return line.replace("%", "%%")  # one begins a word of ssh's own


def _knows(options: Mapping[str, str]) -> bool:
    told = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        done = process.run(["ssh", "-F", "none", "-G", *told, "--", "x"], check=False, timeout=30)
    except ArmvmError:  # without ssh here, the file may be for another host's
        return True
    return done.returncode == 0
