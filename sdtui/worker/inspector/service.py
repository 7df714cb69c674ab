"""Answers requests one after the other, until the client closes the pipe."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from typing import BinaryIO, Final

from sdtui.protocol import (
    CompareWeights,
    FrameTooLarge,
    InspectionFailed,
    InspectorReply,
    InspectorRequest,
    MeasureWeight,
    Message,
    ModulesRead,
    PickleRead,
    ProtocolError,
    ReadModules,
    ReadPickle,
    ReadSource,
    RunDry,
    encode,
)
from sdtui.text import safe_text
from sdtui.worker.wire import read_commands

_log: Final = logging.getLogger(__name__)
_EXIT_GARBAGE: Final = 65
"""EX_DATAERR of sysexits.h."""


class Service:
    """Reads in a thread, so that the end of the client ends a long answer too; answers in the main one."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies
        self._queue: queue.Queue[Message] = queue.Queue()

    def start_reading(self) -> None:
        """From now on the process ends with its client, whatever it is doing."""
        arguments = (self._requests, self._queue.put, _leave)
        threading.Thread(target=read_commands, args=arguments, name="reader", daemon=True).start()

    def run(self) -> None:
        """Answer; never returns."""
        while True:
            request = self._queue.get()
            if isinstance(request, InspectorRequest):
                self._send(answer(request))
            else:
                _log.warning("a %s is nothing to ask an inspector", type(request).__name__)

    def _send(self, reply: InspectorReply) -> None:
        try:
            frame = encode(reply)
        except FrameTooLarge as error:
            frame = encode(InspectionFailed(request=reply.request, message=f"The answer is too large to be sent. {error}"))
        except ProtocolError as error:
            frame = encode(InspectionFailed(request=reply.request, message=f"The answer cannot be sent: {error}"))
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


def answer(request: InspectorRequest) -> InspectorReply:
    """What a request is answered; whatever goes wrong is an `InspectionFailed`."""
    from sdtui.worker.errors import one_line
    from sdtui.worker.inspector.problem import InspectionProblem

    try:
        return _answer(request)
    except InspectionProblem as problem:
        return InspectionFailed(request=request.request, message=str(problem))
    except Exception as error:
        _log.exception("a %s failed", type(request).__name__)
        what = f"{safe_text(request.model, limit=120)} could not be looked into"
        return InspectionFailed(request=request.request, message=f"{what}: {one_line(error)}")


def _answer(request: InspectorRequest) -> InspectorReply:
    from sdtui.worker.inspector.dry_run import run_dry
    from sdtui.worker.inspector.meta import read_modules
    from sdtui.worker.inspector.opened import open_model
    from sdtui.worker.inspector.pickles import read_pickle
    from sdtui.worker.inspector.source import read_source
    from sdtui.worker.inspector.weights import measure
    from sdtui.worker.inspector.weights_diff import compare

    if isinstance(request, ReadPickle):
        return PickleRead(request=request.request, anatomy=read_pickle(request.model))
    anatomy = open_model(request.model)
    match request:
        case ReadModules():
            return ModulesRead(request=request.request, component=read_modules(anatomy, request.component))
        case RunDry():
            return run_dry(anatomy, request)
        case MeasureWeight():
            return measure(anatomy, request)
        case CompareWeights():
            return compare(anatomy, open_model(request.other), request)
        case ReadSource():
            return read_source(anatomy, request)
