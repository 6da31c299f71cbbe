"""Take the pictures of docs/howto/virt-manager.md: virt-manager with one machine, on Xvfb.

.venv/bin/python docs/virt_manager.py arm64-01

The machine must have graphics (no ``--headless``) and a kernel with a driver for them, and be
booted. Needs virt-manager, xvfb, openbox, xdotool, imagemagick and dbus (Debian's names).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PICTURES = Path(__file__).resolve().parent / "pictures"
URI = "qemu:///system"
PROGRAMS = ("virt-manager", "Xvfb", "openbox", "xdotool", "import", "dbus-run-session", "virsh")
#: The pages of a machine's details in order, and the position of their names in pixels.
PAGES = ("overview", "os", "performance", "cpus", "memory", "boot", "disk", "seed", "nic")
FIRST, HEIGHT = 92, 26
#: Seconds for a window to appear, on a busy machine.
PATIENCE = 90.0


def output(*words: str) -> str:
    """Return a program's output, or an empty string if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else ""


@contextmanager
def running(words: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for as long as the block; its whole session ends with it."""
    quiet = subprocess.DEVNULL
    program = subprocess.Popen(
        words, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        yield program
    finally:
        os.killpg(program.pid, 15)
        program.wait(timeout=30)


def screen(stack: ExitStack) -> dict[str, str]:
    """Open a screen with a window manager, and return the environment for programs on it."""
    read, write = os.pipe()
    words = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x960x24"]
    server = subprocess.Popen(words, pass_fds=[write], stderr=subprocess.DEVNULL)
    stack.callback(server.wait)
    stack.callback(server.terminate)
    os.close(write)
    display = os.read(read, 16).decode().strip()
    environment = {**os.environ, "DISPLAY": f":{display}", "NO_AT_BRIDGE": "1", "LANG": "C.UTF-8"}
    os.environ["DISPLAY"] = environment["DISPLAY"]
    stack.enter_context(running(["openbox"], environment))
    return environment


def window(title: str) -> str:
    """Return the id of the visible window whose title contains *title*, once it is there."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = output("xdotool", "search", "--onlyvisible", "--name", re.escape(title)).split()
        if found:
            time.sleep(3)  # until it is drawn
            return found[-1]
        time.sleep(0.5)
    raise SystemExit(f"no window called {title} appeared within {PATIENCE:g} s")


def titles() -> list[str]:
    """Return the titles of all visible windows."""
    ids = output("xdotool", "search", "--onlyvisible", "--name", ".").split()
    return [output("xdotool", "getwindowname", one).strip() for one in ids]


def take(window_id: str, name: str) -> None:
    """Save a picture of a window."""
    path = PICTURES / f"{name}.png"
    subprocess.run(["import", "-window", window_id, "-strip", path], check=True, timeout=60)
    print(path)


def click(window_id: str, x: int, y: int, times: int = 1) -> None:
    """Click into a window, at a place counted from its upper left corner."""
    words = ["mousemove", "--window", window_id, str(x), str(y)]
    words += ["click", "--repeat", str(times), "--delay", "80", "1"]
    subprocess.run(["xdotool", *words], check=True, timeout=60)
    time.sleep(1.5)


def open_page(editor: str, page: str) -> None:
    """Show a page of a machine's details."""
    click(editor, 90, FIRST + HEIGHT * PAGES.index(page))


def manager(environment: dict[str, str], *flags: str) -> ExitStack:
    """Start virt-manager, and return the stack that ends it."""
    stack = ExitStack()
    words = ["dbus-run-session", "--", "virt-manager", "--no-fork", "--connect", URI, *flags]
    stack.enter_context(running(words, environment))
    return stack


def main() -> int:
    """Take all pictures; fail when virt-manager shows an error dialog."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("machine")
    name = parser.parse_args().machine
    missing = [one for one in PROGRAMS if shutil.which(one) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    title = f"{name} on QEMU/KVM"
    expected = {"Virtual Machine Manager", title}
    with ExitStack() as stack:
        environment = screen(stack)
        with manager(environment):
            take(window("Virtual Machine Manager"), "virt-manager-list")
        with manager(environment, "--show-domain-editor", name):
            editor = window(title)
            take(editor, "virt-manager-details")
            for page in PAGES[1:]:
                open_page(editor, page)
                if page == "memory":
                    take(editor, f"virt-manager-{page}")
            strange = set(titles()) - expected
        if strange:
            print(f"unexpected windows: {', '.join(strange)}", file=sys.stderr)
            return 1
        with manager(environment, "--show-domain-console", name):
            console = window(title)
            time.sleep(10)
            take(console, "virt-manager-console")
            strange = set(titles()) - expected
    if strange:
        print(f"unexpected windows: {', '.join(strange)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
