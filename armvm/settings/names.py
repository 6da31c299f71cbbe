"""Check the names of machines, hosts, users, snapshots, networks and pools.

A machine's name becomes a host name, a file name, an XML value and a shell argument, so the
strictest of their rules applies: an RFC 1123 host name label in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from armvm.base.errors import ConfigError

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: What Debian's useradd accepts (its NAME_REGEX), capped at the 32 bytes of utmp.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
#: A part of a file name.
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
#: Names that the resolver answers itself (RFC 6761, /etc/hosts, nss-myhostname(8)), and ssh's
#: keywords: an ssh-config entry would redirect them.
_TAKEN_NAMES = frozenset(
    "localhost localhost4 localhost6 ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix "
    "ip6-allnodes ip6-allrouters ip6-allhosts ipv6-localhost ipv6-loopback ipv6-localnet "
    "ipv6-mcastprefix ipv6-allnodes ipv6-allrouters ipv6-allhosts broadcasthost localdomain "
    "local invalid none".split()
)
#: What inet_aton(3) reads as an IPv4 address: ``ssh 7`` connects to 0.0.0.7.
_ADDRESS = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Accounts and groups that exist in the guests' distributions (base-passwd, setup, and what
#: cloud images and armvm's presets install). cloud-init would change such an account, and
#: useradd rejects the name of an existing group.
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
    """Return *name* if it is a valid machine name, else raise ConfigError."""
    if _LABEL.fullmatch(name):
        return name
    raise ConfigError(
        f"invalid machine name {shown(name)}",
        hint="use 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends (arm64-01)",
    )


def check_new_name(name: str) -> str:
    """Return *name* if a new machine can have it, else raise ConfigError.

    Existing machines may have names that ssh or the resolver use otherwise.
    """
    if check_machine_name(name) in _TAKEN_NAMES or _ADDRESS.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} cannot be used as a machine name: ssh or the resolver has another "
            "meaning for it",
            hint="choose another name, with a letter in it (example: arm64-01)",
        )
    return name


def check_host_name(name: str) -> str:
    """Return *name* if a libvirt host can have it in the configuration, else raise ConfigError."""
    if _LABEL.fullmatch(name) and name != "all":
        return name
    if name == "all":
        raise ConfigError("'all' cannot be used as a host name", hint="it means every host")
    raise ConfigError(
        f"invalid host name {shown(name)}",
        hint="use 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends (lab1)",
    )


def check_user_name(name: str) -> str:
    """Return *name* if it is a valid name for the guest's user, else raise ConfigError."""
    if not _USER.fullmatch(name):
        raise ConfigError(
            f"invalid user name {shown(name)}",
            hint="use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or '_'",
        )
    if name in _TAKEN_USERS or name.startswith("systemd-"):
        raise ConfigError(
            f"user {name} already exists in the guest, as an account or a group",
            hint="choose another --user; that user can run sudo without a password",
        )
    return name


def check_snapshot_name(name: str) -> str:
    """Return *name* if it is a valid snapshot name, else raise ConfigError."""
    if _SNAPSHOT.fullmatch(name):
        return name
    raise ConfigError(
        f"invalid snapshot name {shown(name)}",
        hint="use 1 to 60 of letters, digits, '.', '_' and '-', starting with a letter or digit",
    )


def check_object_name(kind: str, name: str) -> str:
    """Return *name* if it is a valid libvirt network or pool name, else raise ConfigError."""
    if name and len(name) <= 255 and name.isprintable() and "/" not in name and name != "..":
        return name
    raise ConfigError(f"invalid {kind} name {shown(name)}")


def next_name(taken: Collection[str], prefix: str = "arm64") -> str:
    """Return the first of ``arm64-01``, ``arm64-02``, … that is not *taken*."""
    number = 1
    while f"{prefix}-{number:02d}" in taken:
        number += 1
    return f"{prefix}-{number:02d}"


def shown(text: str, limit: int = 60) -> str:
    """Return untrusted text in a printable form: quoted, escaped, truncated."""
    quoted = ascii(text) if not text.isprintable() else f"'{text}'"
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}…"


def derived_name(kind: str, words: Sequence[str], reference: str) -> str:
    """Return the name of an image made from the image *reference*: ``tuned-docker-debian-12``."""
    file = reference.rpartition("/")[2].lower().removeprefix("local:").removesuffix(".qcow2")
    slug = re.sub(r"[^a-z0-9.]+", "-", file).strip("-.")
    return "-".join([kind, *words, slug])[:63].rstrip("-.")
