"""The line to a terminal: made quiet and restored, read and written without ever waiting longer than told."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

_READ_BYTES: Final = 1 << 16
_CHUNK_BYTES: Final = 64
"""Where no descriptor of our own can be had: little enough that a terminal that takes anything takes all of it."""
_INPUT_FLAGS: Final = 0
_LOCAL_FLAGS: Final = 3
_CONTROL: Final = 6


class Line:
    """Two descriptors of one terminal. No method raises for any state of it."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.before: list[Any] | None = None
        """The attributes before `quiet`, None when there is nothing to restore."""
        self.gone = False
        """Whether the terminal was hung up."""
        self._own = _own_descriptor(writing)
        self._writing = self._own if self._own is not None else writing

    def quiet(self) -> bool:
        """No echo, and each key at once as an app would read it; signals stay. Whether the terminal let itself be changed."""
        try:
            before = termios.tcgetattr(self.reading)
            now = termios.tcgetattr(self.reading)
            now[_INPUT_FLAGS] &= ~termios.ICRNL
            now[_LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
            now[_CONTROL][termios.VMIN], now[_CONTROL][termios.VTIME] = 1, 0
            with unstopped():
                termios.tcsetattr(self.reading, termios.TCSANOW, now)
        except (termios.error, OSError):
            return False
        self.before = before
        return True

    def restore(self) -> None:
        """Exactly as before; not where another process has the terminal by now."""
        before, self.before = self.before, None
        if before is not None and is_foreground(self.reading):
            drained = self._writable(0.0)
            with suppress(termios.error, OSError), unstopped():
                termios.tcsetattr(self.reading, termios.TCSADRAIN if drained else termios.TCSANOW, before)
        self.close()

    def close(self) -> None:
        """Give the descriptor of our own back."""
        own, self._own = self._own, None
        if own is not None:
            with suppress(OSError):
                os.close(own)

    def waiting(self) -> int:
        """How many bytes could be read now."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self.reading, termios.FIONREAD, bytes(4)))[0])
        except OSError:
            return 0

    def read(self, timeout_s: float, limit: int = _READ_BYTES) -> bytes:
        """What comes within the time; empty when nothing does, or when the terminal is gone."""
        try:
            with unstopped():
                ready = select.select([self.reading], [], [], max(0.0, timeout_s))[0]
                data = os.read(self.reading, limit) if ready else b""
        except (OSError, ValueError):
            self.gone = True
            return b""
        self.gone = bool(ready) and not data
        return data

    def write(self, data: bytes, timeout_s: float) -> bytes:
        """Send as much as the terminal takes within the time; what is left."""
        deadline = time.monotonic() + timeout_s
        try:
            with unstopped():
                while data and self._writable(deadline - time.monotonic()):
                    try:
                        sent = os.write(self._writing, data if self._own is not None else data[:_CHUNK_BYTES])
                    except BlockingIOError:
                        if time.monotonic() >= deadline:
                            break
                        sent = 0
                    data = data[sent:]
        except OSError:
            self.gone = True
        return data

    def push_back(self, data: bytes) -> bytes:
        """Put keys back into the terminal's input, where the system allows that; what it did not take."""
        for index in range(len(data)):
            try:
                fcntl.ioctl(self.reading, termios.TIOCSTI, data[index : index + 1])
            except OSError:
                return data[index:]
        return b""

    def _writable(self, timeout_s: float) -> bool:
        try:
            return bool(select.select([], [self._writing], [], max(0.0, timeout_s))[1])
        except (OSError, ValueError):
            return False


def is_foreground(descriptor: int) -> bool:
    """Whether we may use the terminal: a process of the background would be stopped by it."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError as error:
        # Not our controlling terminal: then there is no job control on it.
        return error.errno == errno.ENOTTY and os.isatty(descriptor)


def may_push_back() -> bool:
    """Whether Linux lets programs put keys back (`dev.tty.legacy_tiocsti`, since 6.2; before, it always did)."""
    try:
        with open("/proc/sys/dev/tty/legacy_tiocsti", "rb") as setting:  # noqa: PTH123 - pathlib would be another import
            return setting.read().strip() != b"0" or os.geteuid() == 0
    except OSError:
        return True


@contextmanager
def unstopped() -> Iterator[None]:
    """Using the terminal from the background fails instead of stopping the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU, signal.SIGTTIN})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own_descriptor(writing: int) -> int | None:
    """The same terminal opened once more, so that not waiting is our own affair: the flag is shared with the shell otherwise."""
    try:
        own = os.open(os.ttyname(writing), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(own).st_rdev != os.fstat(writing).st_rdev:
        os.close(own)
        return None
    return own
