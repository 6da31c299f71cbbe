"""The program that gives a clone its identity, inside the guest.

It is sent as text, after `clone_agent_tools` and `command_server`.

It has three verbs. ``wait`` runs in the golden and is the first thing that a clone continues with,
``rehearse`` does the same at once, ``facts`` prints the machine's identity.

``wait`` exists because starting a process is most of the cost of a new identity under
emulation: this one was started, and imported all it needs, before the memory was saved. Then it
runs commands for the host, until the machine boots again.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import sys
import threading
import time
from typing import Any

from armvm.guest.agents.clone_agent_tools import (
    DIRECTORY,
    forget_blocks,
    mask,
    new_mac,
    read,
    run,
    stir,
    write,
    write_bytes,
)
from armvm.guest.agents.command_server import CHANNELS, Channel, HungUp, rehearse_command, serve

TIMERS = DIRECTORY + "/timers"
CLOUD = "/var/lib/cloud"
RESULTS = ("/run/cloud-init/result.json", "/run/cloud-init/status.json")
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: cloud-init's units in boot order, including those of version 24.3 and newer, which run all
#: stages in one process (-main) and rename the second one (-network).
STAGES = (
    "cloud-init-main", "cloud-init-local", "cloud-init-network", "cloud-init",
    "cloud-config", "cloud-final",
)  # fmt: skip
IN_BACKGROUND = (
    "systemd-run", "--no-block", "--collect", "--unit=armvm-cloud-init", "/bin/sh", "-c",
)  # fmt: skip
#: Seconds after which a clone starts its timers, so that they do not slow down the first login.
QUIET = 30
#: The most seconds that they wait for cloud-init.
LONGEST = 3600


def main(words: list[str]) -> int:
    """Run the verb in the first word; print the answer as JSON or write it to the channel."""
    if words[0] == "wait":
        return wait()
    if words[0] == "rehearse":
        become(json.load(sys.stdin))
    sys.stdout.write(json.dumps(facts()))
    return 0


def wait() -> int:
    """Wait for a request in the first channel, carry it out, answer, and serve all channels."""
    channels = [Channel(os.open(path, os.O_RDWR)) for path in CHANNELS if os.path.exists(path)]
    rehearse_command()
    order = channels[0].request()
    try:
        answer = become(order)
    except Exception as error:  # the host must learn about any failure
        answer = {"error": repr(error)}
    with contextlib.suppress(HungUp):
        channels[0].say(answer)
    full = order["full"] and "error" not in answer
    for channel in channels[1:]:
        threading.Thread(target=serve, args=(channel,), daemon=True).start()
    threading.Thread(target=afterwards, kwargs={"full": full}, daemon=True).start()
    serve(channels[0], renew)
    return 0


def become(order: dict[str, Any]) -> dict[str, Any]:
    """Take on the identity in *order*; return the facts as read back."""
    stir(bytes.fromhex(order["entropy"]))
    time.clock_settime(time.CLOCK_REALTIME, order["time"])
    rename(order["hostname"])
    new_machine_id(order["machine_id"])
    new_cloud_instance(order["instance_id"], order["hostname"], full=order["full"])
    new_host_key(order["host_key_private"], order["host_key_public"])
    authorize(order["user"], order["authorized_keys"])
    if order["password_hash"]:
        new_password(order["user"], order["password_hash"])
    for pair in (order.get("mac"), *order.get("other_macs", ())):
        if pair:
            new_mac(*pair)
    if order["boot_id"]:
        mask(BOOT_ID, order["boot_id"] + "\n")
    if os.path.isdir("/var/lib/systemd"):
        write_bytes("/var/lib/systemd/random-seed", os.urandom(512), 0o600)
    # These cannot be read back, so the answer confirms that they were received. The process in an
    # older golden supports neither.
    return {**identity(), "full": order["full"], "password": bool(order["password_hash"])}


def renew(order: dict[str, Any]) -> dict[str, Any]:
    """Renew what becomes old in a suspended clone; return what `clone_identity.renew` checks."""
    try:
        stir(bytes.fromhex(order["entropy"]))
        time.clock_settime(time.CLOCK_REALTIME, order["time"])
        authorize(order["user"], order["authorized_keys"])
    except Exception as error:  # the host must learn about any failure
        return {"error": repr(error)}
    return {"renewed": True, "time": time.time()}


def new_machine_id(machine_id: str) -> None:
    """Change the machine-id; move the journal, whose path contains it."""
    old = read("/etc/machine-id")
    write("/etc/machine-id", machine_id + "\n", 0o444)
    dbus = "/var/lib/dbus/machine-id"
    if os.path.exists(dbus) and not os.path.islink(dbus):
        write(dbus, machine_id + "\n", 0o444)
    for journal in ("/var/log/journal/", "/run/log/journal/"):
        if old and old != machine_id and os.path.isdir(journal + old):
            os.rename(journal + old, journal + machine_id)


def rename(name: str) -> None:
    """Change the host name, now and permanently."""
    old = socket.gethostname()
    socket.sethostname(name)
    write("/etc/hostname", name + "\n", 0o644)
    write("/etc/hosts", hosts(read("/etc/hosts") or "", old, name), 0o644)


def hosts(text: str, old: str, new: str) -> str:
    """Return a hosts file's text with *old* replaced by *new*.

    A file with neither name gets Debian's line for a host's own name, 127.0.1.1.
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


def new_cloud_instance(instance_id: str, name: str, *, full: bool) -> None:
    """Make cloud-init treat this machine as one that it has already set up.

    It compares the seed's instance-id with that of the previous boot to decide whether to set
    up the network, and keeps a marker for each once-per-instance task in the instance's directory.
    With *full*, it finds the seed's user-data without markers; `afterwards` starts it.
    """
    if not os.path.isdir(CLOUD + "/instances"):
        return
    link = CLOUD + "/instance"
    old = os.path.realpath(link)
    new = CLOUD + "/instances/" + instance_id
    if full:
        forget_blocks()
        shutil.rmtree(CLOUD + "/instances")
        # A program that waits for cloud-init must not take the golden's run for this machine's.
        for stale in (*RESULTS, CLOUD + "/data/result.json", CLOUD + "/data/status.json"):
            if os.path.lexists(stale):
                os.unlink(stale)
        os.makedirs(new)
    elif old != new and os.path.isdir(old):
        os.rename(old, new)
    elif not os.path.isdir(new):
        os.makedirs(new)
    # This is the golden's datasource, with its secrets; the next boot reads the new seed.
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
        if os.path.exists(session):  # since 9.8, child processes get the keys the server has read
            run("systemctl", "try-restart", "ssh.service", "sshd.service")
            return


def authorize(user: str, keys: list[str]) -> None:
    """Allow only *keys* to log in as *user*."""
    account = pwd.getpwnam(user)
    directory = account.pw_dir + "/.ssh"
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
        os.chown(directory, account.pw_uid, account.pw_gid)
    path = directory + "/authorized_keys"
    write(path, "".join(key + "\n" for key in keys), 0o600)
    os.chown(path, account.pw_uid, account.pw_gid)


def new_password(user: str, password_hash: str) -> None:
    """Set *user*'s password, given as a crypt(5) hash."""
    if run("/usr/sbin/chpasswd", "-e", stdin=user + ":" + password_hash + "\n") != 0:
        raise OSError("chpasswd failed")


def facts() -> dict[str, Any]:
    """Return this machine's identity as seen in the guest, and some random values."""
    return {
        **identity(),
        "system_uuid": read("/sys/class/dmi/id/product_uuid"),
        "random": os.urandom(16).hex(),
        "random_uuid": read("/proc/sys/kernel/random/uuid"),
    }


def identity() -> dict[str, Any]:
    """Return what `become` changes, as seen in the guest."""
    cards = sorted(card for card in os.listdir("/sys/class/net") if card != "lo")
    return {
        "hostname": socket.gethostname(),
        "hostname_file": read("/etc/hostname"),
        "machine_id": read("/etc/machine-id"),
        "dbus_id": read("/var/lib/dbus/machine-id"),
        "boot_id": read(BOOT_ID),
        "instance_id": read(CLOUD + "/data/instance-id"),
        "host_key": read(HOST_KEY + ".pub"),
        "mac": [read("/sys/class/net/%s/address" % card) for card in cards],  # noqa: UP031
        "time": time.time(),
    }


def afterwards(*, full: bool) -> None:
    """Run cloud-init if *full*; restart the journal and start the timers."""
    os.sync()  # a forced stop soon after must not bring back the golden's identity
    if full:
        # One after the other: started together, they would not keep boot order. In a unit of its
        # own: packages that cloud-init installs may restart the guest agent, this process's parent.
        run(*IN_BACKGROUND, "for unit; do systemctl restart $unit; done", "sh", *units())
    time.sleep(QUIET)
    # The journal daemon keeps the ids it started with; entries from now on carry the new ones.
    run("systemctl", "try-restart", "systemd-journald.service")
    # As in a boot, apt's own timers must not run while cloud-init installs packages.
    end = time.monotonic() + LONGEST
    while full and not os.path.exists(RESULTS[0]) and time.monotonic() < end:
        time.sleep(5)
    timers = (read(TIMERS) or "").split()
    if timers:
        run("systemctl", "start", "--no-block", *timers)


def units() -> list[str]:
    """Return the units that run cloud-init's stages on this system."""
    places = ("/lib/systemd/system/", "/usr/lib/systemd/system/", "/etc/systemd/system/")
    names = [stage + ".service" for stage in STAGES]
    return [name for name in names if any(os.path.exists(place + name) for place in places)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
