"""Answers the explainer's requests one after the other, until the client closes the pipe."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from typing import BinaryIO, Final

from sdtui.protocol import (
    ExplainerReply,
    ExplainerRequest,
    ExplainingFailed,
    Message,
    ProtocolError,
    StartExplaining,
    encode,
)
from sdtui.settings import Settings
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.wire import read_commands

_log: Final = logging.getLogger(__name__)
_EXIT_GARBAGE: Final = 65
"""EX_DATAERR of sysexits.h."""


class Service:
    """Reads in a thread, so that a new run and the end of the client stop what is going on; answers in the main one."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO, settings: Settings) -> None:
        self._requests, self._replies, self._settings = requests, replies, settings
        self._queue: queue.SimpleQueue[tuple[Message, CancelToken]] = queue.SimpleQueue()
        self._token = CancelToken()

    def start_reading(self) -> None:
        """From now on the process ends with its client, whatever it is doing."""
        arguments = (self._requests, self._on_request, _leave)
        threading.Thread(target=read_commands, args=arguments, name="reader", daemon=True).start()

    def _on_request(self, message: Message) -> None:
        if isinstance(message, StartExplaining):
            self._token.cancel()
            self._token = CancelToken()
        self._queue.put((message, self._token))

    def run(self) -> None:
        """Import the libraries, then answer; never returns."""
        from sdtui.worker.explainer.explaining import Explaining

        explaining = Explaining(self._settings, self._tell)
        while True:
            message, token = self._queue.get()
            if isinstance(message, ExplainerRequest):
                self._reply(explaining.answer(message, token))
            else:
                _log.warning("a %s is nothing to ask an explainer", type(message).__name__)

    def _reply(self, reply: ExplainerReply) -> None:
        try:
            frame = encode(reply)
        except ProtocolError as error:
            frame = encode(ExplainingFailed(request=reply.request, message=f"The answer cannot be sent: {error}"))
        self._write(frame)

    def _tell(self, message: Message) -> None:
        """Something that answers no request; from any thread that does not answer at the same time."""
        self._write(encode(message))

    def _write(self, frame: bytes) -> None:
        try:
            self._replies.write(frame)
            self._replies.flush()
        except OSError:
            _leave(None)


def _leave(error: ProtocolError | None) -> None:
    if error is not None:
        _log.error("%s: %s", type(error).__name__, error)
    sys.stderr.flush()
    os._exit(0 if error is None else _EXIT_GARBAGE)
