"""A companion process's end of the pipes: requests of one client, replies to it, and the end with it; see `server.companion`."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO, Final

from sdtui.protocol import FrameTooLarge, Message, ProtocolError, encode
from sdtui.worker.wire import read_commands

EXIT_GARBAGE: Final = 65
"""EX_DATAERR of sysexits.h: what came in was no message."""
_log: Final = logging.getLogger(__name__)


class Client:
    """Who started this process, and whom it outlives by no moment."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests, self._replies = requests, replies

    def start_reading(self, on_request: Callable[[Message], None]) -> None:
        """From now on the process ends with its client, whatever it is doing; requests are handed on in a thread."""
        arguments = (self._requests, on_request, leave)
        threading.Thread(target=read_commands, args=arguments, name="reader", daemon=True).start()

    def send(self, reply: Message, failed: Callable[[str], Message]) -> None:
        """Send a reply; what cannot be sent becomes what `failed` makes of the reason."""
        try:
            frame = encode(reply)
        except FrameTooLarge as error:
            frame = encode(failed(f"The answer is too large to be sent. {error}"))
        except ProtocolError as error:
            frame = encode(failed(f"The answer cannot be sent: {error}"))
        self._write(frame)

    def tell(self, message: Message) -> None:
        """Something that answers no request; not while a reply is sent."""
        self._write(encode(message))

    def _write(self, frame: bytes) -> None:
        try:
            self._replies.write(frame)
            self._replies.flush()
        except OSError:
            leave(None)


def leave(error: ProtocolError | None) -> None:
    """The client has gone, or sent what is no message: end at once."""
    if error is not None:
        _log.error("%s: %s", type(error).__name__, error)
    sys.stderr.flush()
    os._exit(0 if error is None else EXIT_GARBAGE)
