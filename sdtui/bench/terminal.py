"""A program in a pseudo-terminal, as a bench sees it: what it writes, when, and how it answers keys."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

_ANSWERS: Final = {
    b"\x1b[c": b"\x1b[?62;22c",  # DA1: a VT220 with colours, no sixel
    b"\x1b[16t": b"\x1b[6;20;10t",  # a cell is 10 by 20 pixels
}
"""A terminal answers these at once; a program that waits for them would otherwise be timed waiting."""
_SIZE: Final = (40, 120)
_END_S: Final = 5.0
_KEPT_BYTES: Final = 1 << 16
"""Some frames of a large screen; what is waited for is looked for in these."""


class Terminal:
    """The outside of a pseudo-terminal with a program in it."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._seen = b""

    def type(self, text: str) -> float:
        """Send keys; the monotonic time just before."""
        now = time.monotonic()
        os.write(self._descriptor, text.encode())
        return now

    def wait_for(self, text: str, timeout_s: float) -> float:
        """Read until `text` has been written since the last wait; the monotonic time then. Raises `TimeoutError`."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout_s
        while wanted not in self._seen:
            if not self.drain(deadline - time.monotonic()):
                ended = self.process.poll() is not None
                raise TimeoutError(f"The program {'ended without showing' if ended else 'did not show'} {text!r}.")
        now = time.monotonic()
        self._seen = self._seen.partition(wanted)[2]
        return now

    def drain(self, timeout_s: float) -> bool:
        """Take what was written, waiting at most so long for something; whether there was any."""
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, timeout_s))
        if not ready:
            return False
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        for query, answer in _ANSWERS.items():
            if query in data:
                os.write(self._descriptor, answer)
        self._seen = (self._seen + data)[-_KEPT_BYTES:]
        return bool(data)


@contextmanager
def in_terminal(command: Sequence[str], pass_fds: Sequence[int] = ()) -> Iterator[Terminal]:
    """Run a program in a pseudo-terminal of 120x40 cells; it is ended when the block is left."""
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", *_SIZE, 1200, 800))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True, env=environment, pass_fds=pass_fds
    )
    os.close(inside)
    terminal = Terminal(process, outside)
    try:
        yield terminal
    finally:
        _end(terminal)
        os.close(outside)


def _end(terminal: Terminal) -> None:
    """Ask, then insist; the terminal is drained meanwhile, since a program cannot end while its output is stuck."""
    for stop in (terminal.process.terminate, terminal.process.kill):
        stop()
        deadline = time.monotonic() + _END_S
        while terminal.process.poll() is None and time.monotonic() < deadline:
            terminal.drain(0.05)
        if terminal.process.poll() is not None:
            return
    terminal.process.wait()
