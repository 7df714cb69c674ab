"""The outside of a pseudo-terminal: what the probe sends arrives here, and a thread answers as it was told."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress

DEADLINE_S = 20.0


class Outside:
    """A terminal that reads all it is sent, and calls `react(outside, all_so_far)` whenever something came."""

    def __init__(
        self, react: Callable[[Outside, bytes], None] | None = None, size: tuple[int, int, int, int] = (24, 80, 800, 480)
    ) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
        self.before = termios.tcgetattr(self.slave)
        self.received = b""
        self._react = react
        self._stop = threading.Event()
        self.sent_all = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Outside:
        if self._react is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._react is not None:
            self._thread.join(DEADLINE_S)
        for descriptor in (self.master, self.slave):
            with suppress(OSError):
                os.close(descriptor)

    def send(self, data: bytes) -> None:
        """Let the terminal send bytes; gives up when nobody reads and the test is over."""
        while data and not self._stop.is_set():
            if select.select([], [self.master], [], 0.02)[1]:
                data = data[os.write(self.master, data[:1024]) :]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                ready = select.select([self.master], [], [], 0.02)[0]
                data = os.read(self.master, 1 << 16) if ready else b""
            except (OSError, ValueError):
                return
            if data:
                self.received += data
                with suppress(OSError):
                    self._react(self, self.received)

    def waiting(self) -> bytes:
        """What is in the input of the inside now, read without waiting."""
        found = b""
        now = termios.tcgetattr(self.slave)
        raw = termios.tcgetattr(self.slave)
        raw[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.slave, termios.TCSANOW, raw)
        while select.select([self.slave], [], [], 0.05)[0]:
            found += os.read(self.slave, 4096)
        termios.tcsetattr(self.slave, termios.TCSANOW, now)
        return found


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raises AssertionError that names `what` when it did not become true."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
