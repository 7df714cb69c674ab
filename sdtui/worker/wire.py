"""The worker's end of the pipes: a thread that reads commands, a thread that writes events.

The work never waits for the server: events queue in memory, and of the previews only the newest one waits.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, Final

from sdtui.protocol import Message, PreviewReady, ProtocolError, encode, read_message_blocking

_log: Final = logging.getLogger(__name__)
FLUSH_S: Final = 2.0
"""How long the last events may take to go out when the worker ends; a server that reads takes milliseconds."""


class Sender:
    """Writes events to the server, in order, from a thread of its own; an unsent preview gives way to a newer one."""

    def __init__(self, stream: BinaryIO, on_broken: Callable[[], None]) -> None:
        self._stream = stream
        self._on_broken = on_broken
        self._queue: deque[Message] = deque()
        self._preview: PreviewReady | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def send(self, message: Message) -> None:
        """Queue an event; returns at once, whatever the server does."""
        with self._changed:
            if isinstance(message, PreviewReady):
                self._replace_preview(message)
            self._queue.append(message)
            self._changed.notify()

    def _replace_preview(self, preview: PreviewReady) -> None:
        if self._preview is not None:
            self._queue = deque(message for message in self._queue if message is not self._preview)
        self._preview = preview

    def close(self) -> None:
        """Wait, but not for long, until all is written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(FLUSH_S)

    def _next(self) -> Message | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            message = self._queue.popleft()
            if message is self._preview:
                self._preview = None
            return message

    def _run(self) -> None:
        while (message := self._next()) is not None:
            try:
                frame = encode(message)
            except (ProtocolError, TypeError, ValueError):  # one event too large or ill made must not silence the rest
                _log.exception("%s was not sent", type(message).__name__)
                continue
            try:
                self._stream.write(frame)
                self._stream.flush()
            except OSError:
                self._on_broken()
                return


def read_commands(
    stream: BinaryIO, on_command: Callable[[Message], None], on_end: Callable[[ProtocolError | None], None]
) -> None:
    """Hand over each command until the server closes the pipe or sends what is no message; runs in the reading thread."""
    try:
        while (message := read_message_blocking(stream)) is not None:
            on_command(message)
    except ProtocolError as error:
        on_end(error)
        return
    except (OSError, ValueError):
        pass
    on_end(None)
