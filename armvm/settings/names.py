"""Which names machines and users may have.

A machine's name becomes a host name, a file name, an XML value and a shell argument, so it is
held to the strictest of these: an RFC 1123 host name label in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from armvm.base.errors import ConfigError

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: What Debian's useradd accepts (its NAME_REGEX), capped at the 32 bytes of utmp.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
#: A part of a file's name.
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
#: Names that the resolver answers itself (RFC 6761, /etc/hosts, nss-myhostname(8)), and what ssh
#: has as a word: an ssh-config entry would take them over.
_TAKEN_NAMES = frozenset(
    "localhost localhost4 localhost6 ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix "
    "ip6-allnodes ip6-allrouters ip6-allhosts ipv6-localhost ipv6-loopback ipv6-localnet "
    "ipv6-mcastprefix ipv6-allnodes ipv6-allrouters ipv6-allhosts broadcasthost localdomain "
    "local invalid none".split()
)
#: What inet_aton(3) takes for an IPv4 address: ``ssh 7`` goes to 0.0.0.7.
_ADDRESS = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Accounts and groups that the guests' distributions have already (base-passwd, setup, and what
#: cloud images and armvm's presets install). cloud-init would change such an account, and
#: useradd refuses a name that is a group's.
_TAKEN_USERS = frozenset(
    # Debian, Ubuntu
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats "
    "nobody nogroup adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator "
    "src shadow utmp video sasl plugdev staff users input sgx kvm render crontab netdev lxd "
    "messagebus dbus syslog uuidd tcpdump landscape pollinate polkitd sshd _ssh _apt _chrony "
    "chrony dhcpcd dnsmasq usbmux tss rdma ssl-cert fwupd-refresh unattended-upgrades docker "
    # Fedora, openSUSE, Alpine
    "wheel shutdown halt ftp lock utempter sssd unbound rpc rpcuser printadmin nscd trusted "
    "maildrop postfix squid ntp guest cyrus vpopmail smmsp xfs svn at cron readproc".split()
)


def check_machine_name(name: str) -> str:
    """Return *name* if a machine can be called that, else raise ConfigError."""
    if _LABEL.fullmatch(name):
        return name
    raise ConfigError(
        f"{shown(name)} cannot be a machine's name",
        hint="use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends: arm64-01",
    )


def check_new_name(name: str) -> str:
    """Return *name* if a machine can be made with it, else raise ConfigError.

    An older machine may have one that ssh and the resolver own.
    """
    if check_machine_name(name) in _TAKEN_NAMES or _ADDRESS.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} cannot be a machine's name: ssh or the resolver has another meaning "
            "for it",
            hint="choose another one, with a letter in it: arm64-01",
        )
    return name


def check_user_name(name: str) -> str:
    """Return *name* if it can be the guest's user, else raise ConfigError."""
    if not _USER.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} cannot be a user name",
            hint="use 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or '_'",
        )
    if name in _TAKEN_USERS or name.startswith("systemd-"):
        raise ConfigError(
            f"the guest has an account or a group called {name} already",
            hint="choose another --user; it may use sudo without a password",
        )
    return name


def check_snapshot_name(name: str) -> str:
    """Return *name* if a snapshot can be called that, else raise ConfigError."""
    if _SNAPSHOT.fullmatch(name):
        return name
    raise ConfigError(
        f"{shown(name)} cannot be a snapshot's name",
        hint="use 1 to 60 of letters, digits, '.', '_' and '-', beginning with a letter or digit",
    )


def check_object_name(kind: str, name: str) -> str:
    """Return *name* if it can name a libvirt network or pool, else raise ConfigError."""
    if name and len(name) <= 255 and name.isprintable() and "/" not in name and name != "..":
        return name
    raise ConfigError(f"{shown(name)} cannot be the name of a {kind}")


def next_name(taken: Collection[str], prefix: str = "arm64") -> str:
    """Return the first of ``arm64-01``, ``arm64-02``, … that is not *taken*."""
    number = 1
    while f"{prefix}-{number:02d}" in taken:
        number += 1
    return f"{prefix}-{number:02d}"


def shown(text: str, limit: int = 60) -> str:
    """Return outside text in a form that is safe to print: quoted, escaped, cut."""
    quoted = ascii(text) if not text.isprintable() else f"'{text}'"
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}…"
