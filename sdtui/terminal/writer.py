"""Writes to the terminal in a thread, so that a slow line never stops who writes.

Text goes first, in order, and as one; pictures go in parts, one part whenever no text waits. So what the user types is
echoed between the parts of a large picture.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

_MOST_WAITING_BYTES: Final = 1 << 23
"""Text that a dead line keeps; beyond it the writer waits, as writing to a terminal does."""
_END_S: Final = 1.0
"""How long leaving waits for a line that takes no more."""


class Burst:
    """The parts of one picture on their way to the terminal."""

    def __init__(self, parts: Sequence[bytes], written: Callable[[], None], *, divisible: bool, last: bytes = b"") -> None:
        """`written` is called in the writer's thread after the last part; `divisible`: parts may be left out, all of them
        too: whoever made them does not believe that the terminal has them.

        `last` is always written, such as the question that the terminal answers when it has the rest.
        """
        self._parts = deque(parts)
        self._last = last
        self._written = written
        self._divisible = divisible
        self._begun = False

    def next_part(self) -> bytes:
        """Take the next part, or what comes last."""
        self._begun = True
        if self._parts:
            return self._parts.popleft()
        last, self._last = self._last, b""
        return last

    @property
    def is_done(self) -> bool:
        """Whether all parts were taken."""
        return not self._parts and not self._last

    def tell(self) -> None:
        """Say that it is written."""
        self._written()

    def drop(self, *, by_force: bool = False) -> bool:
        """Leave out what was not taken yet, if parts may be left out or must be; whether half a picture is in the terminal."""
        half = self._begun and not self._divisible and bool(self._parts)
        if self._divisible or by_force:
            self._parts.clear()
        return half and by_force


class TerminalWriter(threading.Thread):
    """One for each time a program takes the terminal."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="terminal-writer", daemon=True)
        self._descriptor = descriptor
        self._text: deque[bytes] = deque()
        self._text_bytes = 0
        self._bursts: deque[Burst] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False

    def write(self, text: bytes) -> None:
        """Queue text behind all text before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._text_bytes < _MOST_WAITING_BYTES or self._broken)
            self._text.append(text)
            self._text_bytes += len(text)
            self._changed.notify_all()

    def draw(self, burst: Burst) -> None:
        """Queue a picture behind all pictures before it."""
        with self._changed:
            self._bursts.append(burst)
            self._changed.notify_all()

    def drop(self, burst: Burst) -> None:
        """Leave out what was not written of a picture, if that leaves nothing half; `written` is still called."""
        with self._changed:
            burst.drop()

    def drop_all(self) -> bool:
        """Leave out every picture that waits, as the program ends; whether one was cut in the middle."""
        with self._changed:
            return any([burst.drop(by_force=True) for burst in self._bursts])

    def flush(self, timeout_s: float = _END_S) -> bool:
        """Wait until everything is written; whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_idle, timeout_s)

    def close(self) -> None:
        """Write what waits, if the line takes it in time, and end the thread."""
        self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.join(_END_S)

    @property
    def _is_idle(self) -> bool:
        return self._broken or not (self._text or self._bursts or self._text_bytes)

    def run(self) -> None:
        """Write until closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._text or self._bursts)
                if self._closing:
                    return
                data, burst = self._take()
            self._write(data)
            with self._changed:
                if burst is None:
                    self._text_bytes -= len(data)
                elif burst.is_done:
                    if self._bursts and self._bursts[0] is burst:
                        self._bursts.popleft()
                    burst.tell()
                self._changed.notify_all()

    def _take(self) -> tuple[bytes, Burst | None]:
        """All text that waits, or else the next part of a picture."""
        if self._text:
            data = b"".join(self._text)
            self._text.clear()
            return data, None
        burst = self._bursts[0]
        return (b"" if burst.is_done else burst.next_part()), burst

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._broken:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # the shell left the terminal non-blocking
                select.select([], [self._descriptor], [], 0.5)
            except OSError:
                self._broken = True  # hung up: the input side says so to the program
