"""Runs commands for the host in a clone, through virtio channels that only the host can open.

It is sent as text, after `clone_agent_tools` and before `clone_agent`. Needs only Python's standard
library, 3.7 or newer. The host's end is
`armvm.provision.access.channel_command`.

A channel carries one command at a time. The host sends MARK and a JSON object, as one line:

``command``  the words to run
``user``     the account that runs it
``env``      variables that are added to those of a login
``cwd``      the directory, relative to the user's home
``tty``      null, or ``[rows, columns]`` for a terminal; ``term`` is its type
``disk``     null, or the serial number of a disk that the host plugs in for this command; with
             ``output`` it takes the command's output, otherwise it is its input

The guest answers with a line, ``{"pid": N, "disk": bool}``, or ``{"error": "user"}`` for an unknown
account, ``{"error": "disk"}`` for a disk that does not appear. After that both sides send frames: a
letter, the length of the data (4 bytes, big endian), the data.

``i``  to the guest: input; empty at its end
``s``  to the guest: the number of a signal for the command's processes
``w``  to the guest: rows and columns of the terminal, 2 bytes each
``o``, ``e``  to the host: output, error output
``a``  in both directions: how many bytes of input or output were passed on (4 bytes)
``d``  to the host, at the end: how many bytes of output are on the disk (8 bytes)
``x``  to the host, at the end: the exit code, 128 + n for signal n (1 byte)

What a disk carries begins at START, so that the guest takes it for neither a file system nor a
partition table.

Each side sends at most WINDOW bytes that the other has not passed on. So both can always read what
arrives, and a slow reader stops only the stream that it does not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pwd
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import Any

from armvm.guest.agents.clone_agent_tools import read

CHANNELS = tuple(f"/dev/virtio-ports/org.armvm.{number}" for number in range(4))
HEADER = struct.Struct(">cI")
COUNT = struct.Struct(">I")
LENGTH = struct.Struct(">Q")
SIZE = struct.Struct(">HH")
#: Begins a request. JSON has no such character, so a request is found behind what is left of an
#: earlier one.
MARK = b"\x1e"
WINDOW = 1 << 20
#: Bytes in one frame. Linux passes on at most 32 KiB of a virtio port's data in one call
#: (drivers/char/virtio_console.c).
PIECE = (32 << 10) - HEADER.size
#: The longest request in bytes: what one argument list may hold on Linux, and some more.
LONGEST_LINE = 4 << 20
#: The first byte on a disk that carries input or output.
START = 1 << 20
#: Seconds for a disk to appear; it usually takes one or two.
PLUGGING = 30.0
BLOCK, SLOTS = "/sys/block", "/sys/bus/pci/slots"
#: Seconds between the first signal and SIGKILL if the host hangs up.
GRACE = 2.0
PATHS = {
    True: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    False: "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
}
#: Files with variables for every login (pam_env(8), locale.conf(5)).
ENVIRONMENT = ("/etc/environment", "/etc/default/locale", "/etc/locale.conf")


class HungUp(Exception):
    """The host closed the channel, or sent something that is not in the protocol."""


class Channel:
    """The guest's end of a channel, with what was read and not used yet."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self.events = select.epoll()
        # Edge-triggered: while no host is connected, the port always reports a hang-up.
        self.events.register(self.descriptor, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        self.received = bytearray()
        self.unsent = bytearray()

    def receive(self) -> bool:
        """Read what has arrived; return False if no host is connected and nothing was left."""
        before = len(self.received)
        while True:
            try:
                part = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return True
            if not part:
                return len(self.received) > before
            self.received += part

    def flush(self) -> None:
        """Send as much as the host's side takes now."""
        while self.unsent:
            try:
                sent = os.write(self.descriptor, self.unsent[: 1 << 15])
            except BlockingIOError:
                return
            except OSError as error:
                raise HungUp from error
            del self.unsent[:sent]

    def request(self) -> dict[str, Any]:
        """Wait for a request and return it; forget what a host did not complete.

        Raises ValueError if it is not a JSON object.
        """
        while True:
            connected = self.receive()
            end = self.received.find(b"\n")
            if end >= 0:
                line = bytes(self.received[:end])
                del self.received[: end + 1]
                if MARK in line:
                    return dict(json.loads(line.rpartition(MARK)[2]))
                continue
            if not connected or len(self.received) > LONGEST_LINE:
                self.received.clear()
            self.events.poll()

    def drain(self) -> None:
        """Send everything. Raises HungUp."""
        self.flush()
        while self.unsent:
            self.events.poll(1.0)
            if not self.receive():
                raise HungUp
            self.flush()

    def say(self, answer: dict[str, Any]) -> None:
        """Send an object as a line. Raises HungUp."""
        self.unsent += json.dumps(answer).encode() + b"\n"
        self.drain()

    def frame(self) -> tuple[bytes, bytes] | None:
        """Return the next complete frame's letter and data. Raises HungUp if it is invalid."""
        if len(self.received) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self.received)
        if kind not in (b"i", b"s", b"w", b"a") or length > WINDOW:
            raise HungUp
        end = HEADER.size + length
        if len(self.received) < end:
            return None
        data = bytes(self.received[HEADER.size : end])
        del self.received[:end]
        return kind, data

    def put(self, kind: bytes, data: bytes) -> None:
        """Add a frame to what is sent."""
        self.unsent += HEADER.pack(kind, len(data)) + data


def rehearse_command() -> None:
    """Do once what a first command needs, so that the golden's memory has it."""
    login_environment(pwd.getpwuid(0))
    subprocess.Popen(["/bin/true"], start_new_session=True, cwd="/").wait()


def serve(channel: Channel, renew: Any = None) -> None:
    """Carry out requests, one after the other, for ever.

    *renew* carries out the order that a clone gets when it leaves a pool, and returns the answer.
    """
    while True:
        try:
            request = channel.request()
            if "time" in request:  # the host was slow, and sets the clock again
                time.clock_settime(time.CLOCK_REALTIME, request["time"])
                channel.say({"time": time.time()})
            elif "renew" in request and renew is not None:
                channel.say(renew(request["renew"]))
            elif "command" in request:
                Session(channel, request).run()
        except Exception:  # a bad request, or the host hung up: the next one is served all the same
            del channel.received[: max(0, channel.received.rfind(MARK))]
            channel.unsent.clear()


class Session:
    """A command, its pipes or terminal, and the frames that wait for them."""

    def __init__(self, channel: Channel, request: dict[str, Any]) -> None:
        self.channel = channel
        self.request = request
        self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.input = self.terminal = -1
        self.outputs: dict[int, bytes] = {}
        self.pending = bytearray()
        self.input_ended = False
        self.credit = WINDOW
        self.watched: dict[int, int] = {}
        self.disk = -1

    def run(self) -> None:
        """Run the command to its end. Raises HungUp if the host went away, and ends the command."""
        try:
            account = pwd.getpwnam(self.request["user"])
        except KeyError:
            self.channel.say({"error": "user"})
            return
        over, serial, place = -1, self.request.get("disk"), None
        try:
            if serial:
                place = find_disk(serial)
                if place is None:
                    self.channel.say({"error": "disk"})
                    return
                self.disk = open_disk(place)
            failure = self.start(account, self.request.get("cwd") or "")
            if failure is None:
                over = self.watch_end()
            self.channel.unsent += (
                json.dumps({"pid": self.pid, "disk": self.disk >= 0}).encode() + b"\n"
            )
            if failure is None:
                self.pump(over)
            else:
                self.channel.put(b"e", failure)
            if self.disk >= 0 and self.request.get("output"):
                self.finish_disk()
            self.channel.put(b"x", bytes([self.code or 0]))
            self.channel.drain()
        except BaseException:
            self.end()
            raise
        finally:
            self.watch({})
            for descriptor in {self.input, self.terminal, over, self.disk, *self.outputs} - {-1}:
                os.close(descriptor)
            if place is not None:
                with contextlib.suppress(OSError):  # the host unplugs it too
                    eject(place)

    def finish_disk(self) -> None:
        """Write all output to the disk, and tell the host how much it is."""
        try:
            os.fsync(self.disk)
        except OSError as error:
            self.channel.put(b"e", b"armvm: " + os.strerror(error.errno or 0).encode() + b"\n")
            self.code = self.code or 1
        end = os.lseek(self.disk, 0, os.SEEK_CUR)  # the command's descriptor shares it
        self.channel.put(b"d", LENGTH.pack(max(0, end - START)))

    def start(self, account: pwd.struct_passwd, below: str) -> bytes | None:
        """Start the command as a session leader, with pipes or a terminal.

        Returns the message if it cannot run; the exit code is then 127 or 126, as of a shell.
        """
        words = [os.fsencode(word) for word in self.request["command"]]
        variables = login_environment(account)
        options: dict[str, Any] = {}
        size = self.request.get("tty")
        if size:
            variables["TERM"] = self.request.get("term") or "xterm"
            self.terminal, theirs = os.openpty()
            set_size(self.terminal, *size)
            ends = [theirs, theirs, theirs]
            self.input, self.outputs = self.terminal, {self.terminal: b"o"}
            options["preexec_fn"] = take_terminal
        else:
            pipes = [os.pipe() for _ in range(3)]
            self.input, self.outputs = pipes[0][1], {pipes[1][0]: b"o", pipes[2][0]: b"e"}
            ends = [pipes[0][0], pipes[1][1], pipes[2][1]]
        opened = set(ends)
        for end in opened:  # so that the user may open /dev/stderr and the terminal
            os.fchown(end, account.pw_uid, account.pw_gid)
        if self.disk >= 0:
            ends[1 if self.request.get("output") else 0] = self.disk
        directory = os.path.join(account.pw_dir, below) if below else account.pw_dir
        variables.update(self.request.get("env", {}))
        if account.pw_uid:
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
            if sys.version_info >= (3, 9):  # noqa: UP036 - the guest's Python, not armvm's
                options.update(user=account.pw_uid, group=account.pw_gid, extra_groups=groups)
            else:
                options["preexec_fn"] = functools.partial(become_user, account, groups, bool(size))
        try:
            self.process = subprocess.Popen(  # quicker than os.fork: its child runs no Python
                words,
                stdin=ends[0],
                stdout=ends[1],
                stderr=ends[2],
                cwd=directory,
                env=variables,
                start_new_session=True,
                **options,
            )
        except OSError as error:
            self.code = 127 if isinstance(error, FileNotFoundError) else 126
            what = os.fsencode(error.filename or words[0])
            return b"armvm: " + what + b": " + os.strerror(error.errno or 0).encode() + b"\n"
        finally:
            for end in opened:
                os.close(end)
        self.pid = self.process.pid
        for end in {self.input, *self.outputs}:
            os.set_blocking(end, False)
        return None

    def watch_end(self) -> int:
        """Return a descriptor that becomes readable when the command ends."""
        try:
            return os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # Python before 3.9, Linux before 5.3
            over, ended = os.pipe()
            threading.Thread(target=self.wait, args=(ended,), daemon=True).start()
            return over

    def wait(self, ended: int) -> None:
        """Wait for the command's end in a thread, and close *ended*."""
        self.look(block=True)
        os.close(ended)

    def look(self, *, block: bool = False) -> None:
        """Note the exit code if the command has ended."""
        assert self.process is not None  # noqa: S101
        status = self.process.wait() if block else self.process.poll()
        if status is not None:
            self.code = status if status >= 0 else 128 - status

    def pump(self, over: int) -> None:
        """Pass data on until the command has ended and its output was sent."""
        while True:
            if not self.channel.receive():
                raise HungUp
            self.obey()
            self.feed()
            self.look()
            ended = self.code is not None
            room = self.credit > 0 and len(self.channel.unsent) < WINDOW
            came = room and self.collect()
            self.channel.flush()
            if ended and room and not came:
                break
            if not came:
                wanted = dict.fromkeys(self.outputs, select.EPOLLIN) if room else {}
                if self.pending and self.input >= 0:
                    wanted[self.input] = wanted.get(self.input, 0) | select.EPOLLOUT
                if not ended:
                    wanted[over] = select.EPOLLIN
                self.watch(wanted)
                self.channel.events.poll()

    def watch(self, wanted: dict[int, int]) -> None:
        """Wait for these events of the command's descriptors, and for no others."""
        for descriptor in self.watched.keys() - wanted.keys():
            self.channel.events.unregister(descriptor)
        for descriptor, mask in wanted.items():
            before = self.watched.get(descriptor)
            if before is None:
                self.channel.events.register(descriptor, mask)
            elif before != mask:
                self.channel.events.modify(descriptor, mask)
        self.watched = wanted

    def release(self, descriptor: int) -> None:
        """Close one of the command's descriptors."""
        self.watch({one: mask for one, mask in self.watched.items() if one != descriptor})
        os.close(descriptor)

    def obey(self) -> None:
        """Carry out the host's frames."""
        while True:
            frame = self.channel.frame()
            if frame is None:
                return
            kind, data = frame
            if kind == b"a":
                self.credit += COUNT.unpack(data)[0]
            elif kind == b"s":
                self.signal(data[0])
            elif kind == b"w" and self.terminal >= 0:
                set_size(self.terminal, *SIZE.unpack(data))
            elif kind == b"i" and data:
                self.pending += data
            elif kind == b"i":
                self.input_ended = True

    def feed(self) -> None:
        """Write waiting input to the command, and tell the host how much it took."""
        taken = 0
        while self.pending:
            try:
                written = os.write(self.input, self.pending[: 1 << 16])
            except BlockingIOError:
                break
            except OSError:  # it does not read any more
                written = len(self.pending)
            del self.pending[:written]
            taken += written
        if taken:
            self.channel.put(b"a", COUNT.pack(taken))
        if self.input_ended and not self.pending and self.input >= 0 and self.terminal < 0:
            self.release(self.input)
            self.input = -1

    def collect(self) -> bool:
        """Read output into frames; return whether there was any."""
        came = False
        for output, kind in list(self.outputs.items()):
            try:
                data = os.read(output, min(PIECE, self.credit)) if self.credit else None
            except BlockingIOError:
                data = None
            except OSError:  # a terminal whose last process has ended (EIO)
                data = b""
            if data:
                self.channel.put(kind, data)
                self.credit -= len(data)
                came = True
            elif data is not None:
                del self.outputs[output]
                if output != self.terminal:
                    self.release(output)
        return came

    def signal(self, number: int) -> None:
        """Send a signal to the command's processes."""
        if self.code is None and self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)

    def end(self) -> None:
        """End the command: SIGTERM (for a terminal SIGHUP), and SIGKILL if it does not end."""
        self.signal(signal.SIGTERM if self.terminal < 0 else signal.SIGHUP)
        limit = time.monotonic() + GRACE
        while self.pid and self.code is None and time.monotonic() < limit:
            time.sleep(0.05)
            self.look()
        self.signal(signal.SIGKILL)


def become_user(account: pwd.struct_passwd, groups: list[int], terminal: bool) -> None:
    """Do what Popen does for ``user`` since Python 3.9, and `take_terminal`."""
    if terminal:
        take_terminal()
    os.setgroups(groups)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def take_terminal() -> None:
    """Make standard input the controlling terminal; a session leader's first step."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def login_environment(account: pwd.struct_passwd) -> dict[str, str]:
    """Return the variables of a login, as far as files and the account give them."""
    variables = {
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "PATH": PATHS[account.pw_uid == 0],
    }
    for path in ENVIRONMENT:
        for line in (read(path) or "").splitlines():
            name, _, value = line.strip().partition("=")
            if name.isidentifier():
                variables[name] = value.strip().strip("\"'")
    runtime = "/run/user/" + str(account.pw_uid)
    if os.path.isdir(runtime):
        variables["XDG_RUNTIME_DIR"] = runtime
        if os.path.exists(runtime + "/bus"):
            variables["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=" + runtime + "/bus"
    return variables


def find_disk(serial: str, *, patience: float = PLUGGING, block: str = BLOCK) -> str | None:
    """Wait for the disk with a serial number, and return its name; None if it does not appear."""
    end = time.monotonic() + patience
    while True:
        for name in os.listdir(block):
            if read(block + "/" + name + "/serial") == serial:
                return name
        if time.monotonic() > end:
            return None
        time.sleep(0.05)


def open_disk(name: str) -> int:
    """Open a disk at START, for writing too unless it is read-only."""
    only = read(BLOCK + "/" + name + "/ro") == "1"
    disk = os.open("/dev/" + name, os.O_RDONLY if only else os.O_RDWR)
    os.lseek(disk, START, os.SEEK_SET)
    return disk


def eject(name: str, *, block: str = BLOCK, slots: str = SLOTS) -> None:
    """Power off a disk's PCIe slot: QEMU then unplugs it at once.

    If the host unplugs it, the kernel waits 5 seconds first (pciehp_ctrl.c).
    """
    device = os.path.dirname(os.path.realpath(block + "/" + name + "/device"))
    address = os.path.basename(device).rpartition(".")[0]
    for slot in os.listdir(slots):
        if read(slots + "/" + slot + "/address") == address:
            with open(slots + "/" + slot + "/power", "w") as power:
                power.write("0")


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set a terminal's size."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
