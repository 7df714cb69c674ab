"""Answers the explainer's requests one after the other, until the client closes the pipe."""

from __future__ import annotations

import logging
import queue
from functools import partial
from typing import Final

from sdtui.protocol import ExplainerRequest, ExplainingFailed, Message, StartExplaining
from sdtui.settings import Settings
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.companion import Client

_log: Final = logging.getLogger(__name__)


class Service:
    """Requests come in another thread, so that a new run and the end of the client stop what is going on."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client, self._settings = client, settings
        self._queue: queue.SimpleQueue[tuple[Message, CancelToken]] = queue.SimpleQueue()
        self._token = CancelToken()

    def on_request(self, message: Message) -> None:
        """Take a request, in the reader's thread."""
        if isinstance(message, StartExplaining):
            self._token.cancel()
            self._token = CancelToken()
        self._queue.put((message, self._token))

    def run(self) -> None:
        """Import the libraries, then answer; never returns."""
        from sdtui.worker.explainer.explaining import Explaining

        explaining = Explaining(self._settings, self._client.tell)
        while True:
            message, token = self._queue.get()
            if isinstance(message, ExplainerRequest):
                self._client.send(explaining.answer(message, token), partial(_failed, message.request))
            else:
                _log.warning("a %s is nothing to ask an explainer", type(message).__name__)


def _failed(request: int, why: str) -> ExplainingFailed:
    return ExplainingFailed(request=request, message=why)
