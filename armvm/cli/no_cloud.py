"""Why a command cannot be used on a cloud, and what to use instead."""

from __future__ import annotations

from collections.abc import Mapping

_GUEST = "it needs libvirt's own channels to the guest, which OpenStack does not offer"
_OWNED = "Nova owns the definition of its servers"
_GOLDEN = "a golden is a saved libvirt machine"
_LOCAL = "it needs a libvirt host"

_REASONS: Mapping[str, tuple[str, str]] = {
    "apply": ("a fleet file names libvirt hosts", "use armvm create --count"),
    "autostart": (_OWNED, "servers start with their host if the cloud is set up so"),
    "boot-report": (_GUEST, "use armvm ssh NAME -- systemd-analyze"),
    "clone": (_OWNED, "take a snapshot, or create another machine"),
    "console": (
        "OpenStack gives the serial console to a browser only",
        "use armvm ssh, or armvm logs --follow",
    ),
    "docker-context": (_LOCAL, "use docker -H ssh://USER@ADDRESS; armvm ip prints the address"),
    "doctor": (_LOCAL, "check the cloud with: armvm list --on NAME"),
    "edit": (_OWNED, "use the openstack client: openstack server set"),
    "events": (_GUEST, "use armvm show"),
    "exec": (_GUEST, "use armvm ssh NAME -- COMMAND"),
    "explain": (_LOCAL, "leave out --on"),
    "forward": ("a server has an address of its own", "allow the port in its security group"),
    "golden": (_GOLDEN, "create machines on a cloud from images"),
    "image": ("the images of a cloud are Glance's", "use the openstack client: openstack image"),
    "mount": (_GUEST, "use armvm cp, or sshfs"),
    "pool": (_GOLDEN, "create machines on a cloud from images"),
    "proxy": (_LOCAL, "use armvm ssh"),
    "rename": (_OWNED, "use the openstack client: openstack server set --name"),
    "resize": (
        "the flavor decides the size",
        "use the openstack client: openstack server resize --flavor",
    ),
    "resume": (_OWNED, "use the openstack client: openstack server resume"),
    "run": (
        "a boot of a server per command takes minutes",
        "create a machine, then use armvm ssh NAME -- COMMAND",
    ),
    "screenshot": (_GUEST, "use armvm logs"),
    "ssh-config": (_LOCAL, "use armvm ssh and armvm cp"),
    "suspend": (_OWNED, "use the openstack client: openstack server suspend"),
    "top": (_GUEST, "use armvm ssh NAME -- top"),
    "umount": (_GUEST, "use armvm cp, or sshfs"),
    "xml": ("Nova writes the XML", "use armvm show"),
}


def reason(verb: str) -> tuple[str, str]:
    """Return why a command (``exec``, ``golden list``) cannot be used, and a hint."""
    return _REASONS.get(verb.partition(" ")[0], (_LOCAL, "use --on with the name of a host"))
