"""What runs inside a guest to make it another machine. This file is sent there as it is.

It has three verbs: ``wait`` is left running in the golden and becomes the clone's first act,
``rehearse`` does the same at once, ``facts`` tells who the machine is. It needs nothing but
Python's standard library, since 3.7.

``wait`` exists because starting a process is most of the cost of a new identity under
emulation: this one has started, and has imported all it needs, before the memory was saved.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import time
from typing import Any

DIRECTORY = "/run/armvm"
TIMERS = DIRECTORY + "/timers"
CHANNEL = "/dev/virtio-ports/org.armvm.rebirth.0"
CLOUD = "/var/lib/cloud"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: ioctls of random(4), linux/random.h: the same numbers on all of Linux's 64-bit architectures
#: that matter here.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
#: ioctls of netdevice(7), linux/sockios.h, and what they take.
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFHWADDR = 0x8913, 0x8914, 0x8924
IFF_UP, ARPHRD_ETHER = 1, 1
#: mount(2)'s flag for a bind mount.
MS_BIND = 4096
#: Seconds after which a clone starts its timers: not while its user logs in for the first time.
QUIET = 30


def main(words: list[str]) -> int:
    """Do what the first word says; the answer is JSON, on standard output or in the channel."""
    if words[0] == "wait":
        return wait()
    if words[0] == "rehearse":
        become(json.load(sys.stdin))
    sys.stdout.write(json.dumps(facts()))
    return 0


def wait() -> int:
    """Wait for an order in the channel, carry it out, and answer."""
    channel = os.open(CHANNEL, os.O_RDWR)
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(channel, 65536)
        if not part:  # nobody at the other end: Linux does not wait for one
            time.sleep(0.01)
        line += part
    try:
        answer = become(json.loads(line))
    except Exception as error:  # whatever it is, the host must hear of it
        answer = {"error": repr(error)}
    text = json.dumps(answer).encode() + b"\n"
    while text:
        text = text[os.write(channel, text) :]
    os.sync()  # a plug pulled soon must not bring the golden's identity back
    return afterwards()


def become(order: dict[str, Any]) -> dict[str, Any]:
    """Take on the identity in *order*, and return the facts as they are read back."""
    stir(bytes.fromhex(order["entropy"]))
    time.clock_settime(time.CLOCK_REALTIME, order["time"])
    rename(order["hostname"])
    new_machine_id(order["machine_id"])
    new_cloud_instance(order["instance_id"], order["hostname"])
    new_host_key(order["host_key_private"], order["host_key_public"])
    authorize(order["user"], order["authorized_keys"])
    if order.get("mac"):
        new_mac(*order["mac"])
    if order["boot_id"]:
        mask(BOOT_ID, order["boot_id"] + "\n")
    if os.path.isdir("/var/lib/systemd"):
        write_bytes("/var/lib/systemd/random-seed", os.urandom(512), 0o600)
    return facts()


def new_machine_id(machine_id: str) -> None:
    """Change the machine-id; the journal, which lies under it, comes along."""
    old = read("/etc/machine-id")
    write("/etc/machine-id", machine_id + "\n", 0o444)
    dbus = "/var/lib/dbus/machine-id"
    if os.path.exists(dbus) and not os.path.islink(dbus):
        write(dbus, machine_id + "\n", 0o444)
    for journal in ("/var/log/journal/", "/run/log/journal/"):
        if old and old != machine_id and os.path.isdir(journal + old):
            os.rename(journal + old, journal + machine_id)


def stir(entropy: bytes) -> None:
    """Feed the kernel's random number generator, and make every CPU's generator take it."""
    with open("/dev/urandom", "wb") as device:
        pool = struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
        fcntl.ioctl(device, RNDADDENTROPY, pool)
        fcntl.ioctl(device, RNDRESEEDCRNG)


def rename(name: str) -> None:
    """Change the host name, now and for good."""
    old = socket.gethostname()
    socket.sethostname(name)
    write("/etc/hostname", name + "\n", 0o644)
    write("/etc/hosts", hosts(read("/etc/hosts") or "", old, name), 0o644)


def hosts(text: str, old: str, new: str) -> str:
    """Return a hosts file's text with the name *new* where *old* stood.

    A file that names neither gets Debian's line for a host's own name, 127.0.1.1.
    """
    lines = []
    found = False
    for line in text.splitlines():
        words = line.split()
        if words and not line.startswith("#") and (old in words[1:] or new in words[1:]):
            names = list(dict.fromkeys(new if word == old else word for word in words[1:]))
            line, found = " ".join([words[0], *names]), True
        lines.append(line)
    if not found:
        lines.append("127.0.1.1 " + new)
    return "\n".join(lines) + "\n"


def new_cloud_instance(instance_id: str, name: str) -> None:
    """Let cloud-init take this machine for one that it has set up already.

    It compares the seed's instance-id with the one of the boot before, and keeps a mark for
    everything done once in the instance's directory.
    """
    if not os.path.isdir(CLOUD + "/instances"):
        return
    link = CLOUD + "/instance"
    old = os.path.realpath(link)
    new = CLOUD + "/instances/" + instance_id
    if old != new and os.path.isdir(old):
        os.rename(old, new)
    elif not os.path.isdir(new):
        os.makedirs(new)
    # The datasource as the golden saw it, with its secrets; the next boot reads the new seed.
    for stale in ("obj.pkl", "user-data.txt", "user-data.txt.i", "cloud-config.txt"):
        if os.path.exists(new + "/" + stale):
            os.unlink(new + "/" + stale)
    temporary = link + ".new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(new, temporary)
    os.rename(temporary, link)
    write(CLOUD + "/data/instance-id", instance_id + "\n", 0o644)
    write(CLOUD + "/data/previous-instance-id", instance_id + "\n", 0o644)
    write(CLOUD + "/data/previous-hostname", name + "\n", 0o644)
    write(CLOUD + "/data/set-hostname", json.dumps({"hostname": name, "fqdn": name}), 0o644)
    for stale in ("instance-data.json", "instance-data-sensitive.json"):
        if os.path.exists("/run/cloud-init/" + stale):
            os.unlink("/run/cloud-init/" + stale)
    write("/run/cloud-init/.instance-id", instance_id + "\n", 0o644)


def new_host_key(private: str, public: str) -> None:
    """Replace the ssh host key; a running sshd before OpenSSH 9.8 reads it for each connection."""
    write(HOST_KEY, private, 0o600)
    write(HOST_KEY + ".pub", public + "\n", 0o644)
    for session in ("/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session"):
        if os.path.exists(session):  # from 9.8 on, children get the keys the server has read
            run("systemctl", "try-restart", "ssh.service", "sshd.service")
            return


def authorize(user: str, keys: list[str]) -> None:
    """Let *keys* and no others log in as *user*."""
    import pwd

    account = pwd.getpwnam(user)
    directory = account.pw_dir + "/.ssh"
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
        os.chown(directory, account.pw_uid, account.pw_gid)
    path = directory + "/authorized_keys"
    write(path, "".join(key + "\n" for key in keys), 0o600)
    os.chown(path, account.pw_uid, account.pw_gid)


def new_mac(old: str, new: str) -> None:
    """Give the network card that has the address *old* the address *new*.

    Down and up again, so that the kernel makes a new link-local IPv6 address too.
    """
    for card in os.listdir("/sys/class/net"):
        if read("/sys/class/net/" + card + "/address") == old and old != new:
            name = card.encode().ljust(16, b"\0")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, name + bytes(16))
                (flags,) = struct.unpack_from("H", answer, 16)
                down, up = (struct.pack("16sH14x", name, one) for one in (flags & ~IFF_UP, flags))
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, down)
                address = bytes.fromhex(new.replace(":", ""))
                fcntl.ioctl(
                    any_socket, SIOCSIFHWADDR, struct.pack("16sH14s", name, ARPHRD_ETHER, address)
                )
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)


def mask(path: str, text: str) -> None:
    """Let *path*, a file of the kernel's, read as *text* until the next boot."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    over = DIRECTORY + "/" + os.path.basename(path)
    write(over, text, 0o444)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(over.encode(), path.encode(), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), "mount " + path)


def facts() -> dict[str, Any]:
    """Return who this machine is, as far as its guest can tell."""
    cards = sorted(card for card in os.listdir("/sys/class/net") if card != "lo")
    return {
        "hostname": socket.gethostname(),
        "hostname_file": read("/etc/hostname"),
        "machine_id": read("/etc/machine-id"),
        "dbus_id": read("/var/lib/dbus/machine-id"),
        "boot_id": read(BOOT_ID),
        "instance_id": read(CLOUD + "/data/instance-id"),
        "host_key": read(HOST_KEY + ".pub"),
        "system_uuid": read("/sys/class/dmi/id/product_uuid"),
        "mac": [read("/sys/class/net/%s/address" % card) for card in cards],  # noqa: UP031
        "random": os.urandom(16).hex(),
        "random_uuid": read("/proc/sys/kernel/random/uuid"),
        "time": time.time(),
    }


def afterwards() -> int:
    """Start the journal and the timers again, a little later."""
    time.sleep(QUIET)
    # It keeps the ids it has started with: entries from now on carry the new ones.
    run("systemctl", "try-restart", "systemd-journald.service")
    timers = (read(TIMERS) or "").split()
    if timers:
        run("systemctl", "start", "--no-block", *timers)
    return 0


def run(*words: str) -> str:
    """Run a program and return its output; how it ended does not matter here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def read(path: str) -> str | None:
    """Return a file's text without the white space around it; None where there is none."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def write(path: str, text: str, mode: int) -> None:
    """Replace a file; a reader sees the old text or the new."""
    write_bytes(path, text.encode(), mode)


def write_bytes(path: str, data: bytes, mode: int) -> None:
    """Replace a file; a reader sees the old bytes or the new."""
    target = path + ".armvm-new"
    with open(target, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
    os.rename(target, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
