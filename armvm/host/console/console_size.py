"""Tell the guest the size of the console's terminal.

A serial line does not transmit it, so the guest agent tells the guest's kernel, which notifies
the programs there (SIGWINCH). Without an agent nothing happens: armvm does not type commands into
the user's session.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import libvirt

from armvm.base.errors import ArmvmError
from armvm.host.agent import agent
from armvm.host.connection import Domain

#: The guest's side of the console (see templates/domain.xml).
_DEVICE = "/dev/ttyAMA0"
#: Seconds between two checks for an agent; a guest that reboots forgets the size.
_POLL = 3.0
#: Seconds to wait for a window resize to finish.
_REST = 0.2
#: How often armvm retries if the guest refuses.
_TRIES = 3


class Sizer:
    """Sends a guest the terminal's size, in a thread: at once, on changes, and after a boot."""

    def __init__(self, domain: Domain, size: Callable[[], tuple[int, int] | None]) -> None:
        self._domain, self._size = domain, size
        self._changed, self._over = threading.Event(), threading.Event()
        self._told: tuple[int, int] | None = None
        self._failures = 0

    def changed(self) -> None:
        """Note that the terminal's size may have changed. Safe in a signal handler."""
        self._failures = 0
        self._changed.set()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(ArmvmError, libvirt.libvirtError):  # the next check retries
                self._look()
            if self._changed.wait(_POLL):
                self._changed.clear()
                self._over.wait(_REST)

    def _look(self) -> None:
        if not agent.connected(self._domain):
            self._told, self._failures = None, 0
            return
        size = self._size()
        if size is None or size == self._told or self._failures >= _TRIES:
            return
        self._failures += 1
        rows, columns = map(str, size)
        agent.output(
            self._domain, ["stty", "-F", _DEVICE, "rows", rows, "cols", columns], timeout=30
        )
        self._told, self._failures = size, 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run during the block. An outstanding answer is not waited for."""
        threading.Thread(target=self._run, name="terminal size", daemon=True).start()
        try:
            yield
        finally:
            self._over.set()
            self._changed.set()
