"""A program in a pseudo-terminal, seen from outside: what it writes and when, how it looks, how it answers keys.

The terminal answers as its personality says. It can be far away, where answers and keys take their time, and slow, where it
reads no more than so many bytes a second: then the pseudo-terminal fills and the program waits, as on a slow line.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Literal, NamedTuple, Self

from PIL import Image

from sdtui.bench.personalities import PLAIN, Personality, needs_screen
from sdtui.bench.screen import Event, Parser, Screen

_END_S: Final = 5.0
_SLICE_S: Final = 0.01
"""A slow line is read in slices of this time."""
_READ_BYTES: Final = 1 << 16
_KEPT_BYTES: Final = 1 << 16
"""Some frames of a large screen; what `wait_for` waits for is looked for in these."""
_USUAL_CELL: Final = (8, 17)
_OF_ANOTHER_TERMINAL: Final = ("TERM", "COLORTERM", "TMUX", "TMUX_PANE", "STY", "COLUMNS", "LINES", "NO_COLOR", "KITTY_WINDOW_ID")
_OF_ANOTHER_PROGRAM: Final = (
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "XTERM_VERSION",
    "VTE_VERSION",
    "KONSOLE_VERSION",
    "LC_TERMINAL",
)


class Happening(NamedTuple):
    """Bytes on the line: `read` from the program, or `sent` to it; `at_s` is monotonic."""

    at_s: float
    kind: Literal["read", "sent"]
    data: bytes


class Terminal:
    """Starts a program; use it in a `with` block, which ends the program."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 120,
        rows: int = 40,
        cell_px: tuple[int, int] | None = _USUAL_CELL,
        personality: Personality = PLAIN,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
        dies_after_bytes: int | None = None,
        decode_at_once: bool = True,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: str | None = None,
    ) -> None:
        """`cell_px` None: the window says it has 0 x 0 pixels. `latency_s`: how much later answers and keys arrive.

        `bytes_per_s`: the most it reads. `dies_after_bytes`: it hangs up after so many. Without `decode_at_once` the screen
        is only brought up to date when somebody looks, so that it takes no time from what is measured.
        """
        self.personality, self.latency_s, self.bytes_per_s = personality, latency_s, bytes_per_s
        self.happenings: list[Happening] = []
        self._dies_after, self._at_once = dies_after_bytes, decode_at_once
        self._screen = personality.screen(columns or 80, rows or 24, cell_px or _USUAL_CELL)
        self._parser = Parser()
        self._backlog: list[Event] = []
        self._unseen = b""
        self._due: deque[tuple[float, bytes]] = deque()
        self._outbox = bytearray()
        self._ended = self._closing = False
        self._read_bytes = 0
        self._may_read_at = 0.0
        self._changed = threading.Condition(threading.RLock())
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._wake_out, self._wake_in = os.pipe()
        _set_size(slave, columns, rows, cell_px)
        try:
            # The program is to be hung up with its terminal, so this must be its controlling one.
            self.process = subprocess.Popen(
                ["setsid", "--ctty", *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=_environment(personality, environment),
                pass_fds=pass_fds,
                cwd=cwd,
            )
        except OSError:
            for descriptor in (self._master, self._wake_in, self._wake_out):
                os.close(descriptor)
            raise
        finally:
            os.close(slave)
        self._thread = threading.Thread(target=self._run, name="scripted-terminal", daemon=True)
        self._thread.start()

    def type(self, text: str | bytes) -> float:
        """Send keys, which arrive after the latency; the monotonic time now."""
        now = time.monotonic()
        with self._changed:
            self._send(text.encode() if isinstance(text, str) else text, now)
        self._wake()
        return now

    def resize(self, columns: int, rows: int, cell_px: tuple[int, int] | None = None) -> None:
        """Another size of the window, or of its font."""
        with self._changed:
            self._catch_up()
            self._screen.resize(columns, rows, cell_px)
            _set_size(self._master, columns, rows, self._screen.cell_px)

    def wait_for(self, text: str, timeout_s: float) -> float:
        """Wait until `text` has been written since the last wait; the monotonic time then. Raises `TimeoutError`."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while wanted not in self._unseen:
                left_s = deadline - time.monotonic()
                if self._ended or left_s <= 0:
                    raise TimeoutError(f"The program {'ended without showing' if self._ended else 'did not show'} {text!r}.")
                self._changed.wait(left_s)
            self._unseen = self._unseen.partition(wanted)[2]
            return self.happenings[-1].at_s

    def wait_until(self, condition: Callable[[Screen], object], what: str, timeout_s: float = 20.0) -> None:
        """Wait until the screen is so; `condition` is asked whenever something was written. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self._up_to_date()):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or (self._ended and not condition(self._up_to_date())):
                    raise TimeoutError(f"Not on the screen: {what}.\n{self._screen.text()}")
                self._changed.wait(left_s)

    def look(self) -> Screen:
        """The screen as it is; while the program writes, use `wait_until`, `text` or `picture`."""
        with self._changed:
            return self._up_to_date()

    def text(self) -> str:
        """The characters, line by line."""
        with self._changed:
            return self._up_to_date().text()

    def picture(self, region: tuple[int, int, int, int] | None = None) -> Image.Image:
        """What is seen, as `Screen.picture`."""
        with self._changed:
            return self._up_to_date().picture(region)

    def output(self) -> bytes:
        """All that was read."""
        with self._changed:
            return b"".join(happening.data for happening in self.happenings if happening.kind == "read")

    @property
    def read_bytes(self) -> int:
        """How much was read."""
        return self._read_bytes

    def wait_for_end(self, timeout_s: float = 20.0) -> int:
        """Wait until the program has ended and all it wrote is read; its exit status. Raises `subprocess.TimeoutExpired`."""
        status = self.process.wait(timeout_s)
        with self._changed:
            self._changed.wait_for(lambda: self._ended, timeout_s)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ask the program to end, then insist; what it writes meanwhile is read, since it cannot end while that is stuck."""
        if self._closing:
            return
        self.bytes_per_s = None
        self._wake()
        for stop in (signal.SIGTERM, signal.SIGKILL):
            self._signal(stop)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_S)
                break
        self._signal(signal.SIGKILL)  # what it started and left
        self._closing = True
        self._wake()
        self._thread.join()
        for descriptor in (self._wake_in, self._wake_out):
            os.close(descriptor)
        self._hang_up()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:  # it has ended, or it has not become a group of its own yet
            self.process.send_signal(number)

    def _hang_up(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def _wake(self) -> None:
        os.write(self._wake_in, b"x")

    def _send(self, data: bytes, now: float) -> None:
        """Let bytes arrive after the latency, behind all before them."""
        earliest = self._due[-1][0] if self._due else 0.0
        self._due.append((max(earliest, now + self.latency_s), data))

    def _run(self) -> None:
        while not self._closing:
            now = time.monotonic()
            with self._changed:
                while self._due and self._due[0][0] <= now:
                    self._outbox += self._due.popleft()[1]
                next_s = self._due[0][0] - now if self._due else None
            reading = [self._wake_out]
            if not self._ended and self._master >= 0:
                if self.bytes_per_s is None or now >= self._may_read_at:
                    reading.append(self._master)
                else:
                    next_s = min(next_s if next_s is not None else 1e9, self._may_read_at - now)
            writing = [self._master] if self._outbox and self._master >= 0 else []
            readable, writable, _ = select.select(reading, writing, [], next_s)
            if self._wake_out in readable:
                os.read(self._wake_out, 1 << 10)
            if self._master in writable:
                self._write()
            if self._master in readable:
                self._read()

    def _write(self) -> None:
        try:
            sent = os.write(self._master, self._outbox[:_READ_BYTES])
        except BlockingIOError:
            return
        except OSError:
            self._outbox.clear()
            return
        with self._changed:
            self.happenings.append(Happening(time.monotonic(), "sent", bytes(self._outbox[:sent])))
            del self._outbox[:sent]

    def _read(self) -> None:
        rate = self.bytes_per_s
        limit = _READ_BYTES if rate is None else max(1, min(_READ_BYTES, int(rate * _SLICE_S)))
        if self._dies_after is not None:
            limit = min(limit, self._dies_after - self._read_bytes)
        try:
            data = os.read(self._master, limit)
        except BlockingIOError:
            return
        except OSError:  # Linux says EIO when the other side is closed
            data = b""
        now = time.monotonic()
        with self._changed:
            if data:
                self._take(data, now)
            else:
                self._ended = True
            self._changed.notify_all()
        if rate is not None:
            self._may_read_at = max(self._may_read_at, now - _SLICE_S) + len(data) / rate
        if self._dies_after is not None and self._read_bytes >= self._dies_after:
            self._hang_up()
            self._ended = True

    def _take(self, data: bytes, now: float) -> None:
        self._read_bytes += len(data)
        self.happenings.append(Happening(now, "read", data))
        self._unseen = (self._unseen + data)[-_KEPT_BYTES:]
        for event in self._parser.feed(data):
            answer = b""
            if self._at_once or needs_screen(event):
                self._catch_up()
                answer = self._screen.apply(event)
            else:
                self._backlog.append(event)
            answer += self.personality.answer(event, self._screen)
            if answer:
                self._send(self.personality.spoil(answer), now)

    def _catch_up(self) -> None:
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            self._screen.apply(event)

    def _up_to_date(self) -> Screen:
        self._catch_up()
        return self._screen


def _set_size(descriptor: int, columns: int, rows: int, cell_px: tuple[int, int] | None) -> None:
    width, height = cell_px or (0, 0)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width * columns, height * rows))


def _environment(personality: Personality, more: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment, but of the other terminal's kind."""
    foreign = {*_OF_ANOTHER_TERMINAL, *_OF_ANOTHER_PROGRAM}
    return {
        **{name: value for name, value in os.environ.items() if name not in foreign},
        **personality.environment,
        **(more or {}),
    }


def in_terminal(command: Sequence[str], pass_fds: Sequence[int] = ()) -> Terminal:
    """A program in a plain terminal of 120x40 cells, whose screen takes no time from what is measured."""
    return Terminal(command, cell_px=(10, 20), decode_at_once=False, pass_fds=pass_fds)
