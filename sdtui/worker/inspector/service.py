"""Answers requests one after the other, until the client closes the pipe."""

from __future__ import annotations

import logging
import queue
from functools import partial
from typing import Final

from sdtui.protocol import (
    CompareWeights,
    InspectionFailed,
    InspectorReply,
    InspectorRequest,
    MeasureWeight,
    Message,
    ModulesRead,
    PickleRead,
    ReadModules,
    ReadPickle,
    ReadSource,
    RunDry,
)
from sdtui.text import safe_text
from sdtui.worker.companion import Client

_log: Final = logging.getLogger(__name__)


class Service:
    """Requests come in another thread, so that the end of the client ends a long answer too."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: queue.Queue[Message] = queue.Queue()

    def on_request(self, message: Message) -> None:
        """Take a request, in the reader's thread."""
        self._queue.put(message)

    def run(self) -> None:
        """Answer; never returns."""
        while True:
            request = self._queue.get()
            if isinstance(request, InspectorRequest):
                self._client.send(answer(request), partial(_failed, request.request))
            else:
                _log.warning("a %s is nothing to ask an inspector", type(request).__name__)


def _failed(request: int, why: str) -> InspectionFailed:
    return InspectionFailed(request=request, message=why)


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
