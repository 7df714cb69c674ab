"""What the explainer holds: a model, and the run that is explained."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import diffusers
import torch

from sdtui import __version__
from sdtui.metadata import ImageRecord, OutputError, save_png
from sdtui.params import GenerationParams
from sdtui.protocol import (
    Advance,
    ExplainedSaved,
    ExplainerReply,
    ExplainerRequest,
    ExplainingFailed,
    ExplainingStarted,
    LinesRan,
    SaveExplained,
    StartExplaining,
)
from sdtui.settings import Settings
from sdtui.text import safe_text
from sdtui.worker import memory
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled, JobProblem
from sdtui.worker.explainer import opening
from sdtui.worker.explainer.problem import ExplainingProblem, problem_of
from sdtui.worker.hardware import choose_hardware
from sdtui.worker.models import LoadedModel, ModelRequest

_PNG: Final = ".png"
_DROPPED: Final = "This run was dropped, as another one was asked for."
_NONE: Final = "Nothing is explained yet, or the process that did it has ended; start it again."
_log: Final = logging.getLogger(__name__)


class Explaining:
    """Answers requests, one at a time."""

    def __init__(self, settings: Settings, emit: opening.Emit) -> None:
        """`emit` is told of a model that is fetched."""
        self._settings = settings
        self._emit = emit
        self._model: LoadedModel | None = None
        self._opened: opening.Opened | None = None
        self._began = 0.0
        self._device: torch.device | None = None

    def answer(self, request: ExplainerRequest, token: CancelToken) -> ExplainerReply:
        """What a request is answered; whatever goes wrong is an `ExplainingFailed`. `token` stops the run it belongs to."""
        try:
            return self._answer(request, token)
        except Cancelled:
            self._drop()
            return ExplainingFailed(request=request.request, message=_DROPPED)
        except ExplainingProblem as found:
            problem = found
        except (OutputError, JobProblem) as error:
            _log.error("%s", error, exc_info=error.__cause__)
            problem = self._problem_of(error)
        except Exception as error:
            _log.exception("a %s failed", type(request).__name__)
            problem = self._problem_of(error)
        return ExplainingFailed(
            request=request.request, message=str(problem), field=problem.field, line=problem.line, detail=problem.detail
        )

    def _answer(self, request: ExplainerRequest, token: CancelToken) -> ExplainerReply:
        match request:
            case StartExplaining():
                return self._start(request, token)
            case Advance():
                return self._advance(request)
            case SaveExplained():
                return self._save(request)

    def _problem_of(self, error: Exception) -> ExplainingProblem:
        if isinstance(error, OutputError):
            return ExplainingProblem(str(error), field=error.field)
        return problem_of(error, self._device)

    def _drop(self) -> None:
        if self._opened is not None:
            self._opened.session.drop()
            self._opened = None
            memory.free_memory()

    # --- starting -----------------------------------------------------------------------------------------------------

    def _start(self, request: StartExplaining, token: CancelToken) -> ExplainingStarted:
        self._drop()
        opening.check(request.params, allow_pickle=self._settings.worker.allow_pickle)
        self._device = choose_hardware(request.params.device, request.params.dtype).device
        model = self._model_for(request.params, token)
        allow_private = self._settings.network.private_addresses
        opened = opening.open_session(model, request.params, token, allow_private=allow_private)
        session, params = opened.session, opened.params
        next_line = session.start()
        self._opened, self._began = opened, time.perf_counter()
        listing = session.listing
        return ExplainingStarted(
            request=request.request,
            function=listing.name,
            file=listing.file,
            first_line=listing.first_line,
            source=listing.source,
            next_line=next_line,
            lines=listing.lines,
            notes=listing.notes(),
            stages=listing.stages,
            given=session.given,
            params=params,
            total_steps=session.total_steps,
            device=model.info.device,
            device_name=model.hardware.device_name,
            dtype=model.info.dtype,
        )

    def _model_for(self, params: GenerationParams, token: CancelToken) -> LoadedModel:
        if self._model is not None and self._model.serves(ModelRequest.of(params)):
            return self._model
        self._model = None
        memory.free_memory()
        worker = self._settings.worker
        self._model = opening.load(params, offline=worker.offline, allow_pickle=worker.allow_pickle, emit=self._emit, token=token)
        return self._model

    # --- going on -----------------------------------------------------------------------------------------------------

    def _advance(self, request: Advance) -> LinesRan:
        if self._opened is None:
            raise ExplainingProblem(_NONE)
        ran = self._opened.session.advance(request.to, request.guidance_scale, pictures=request.pictures)
        return LinesRan(
            request=request.request,
            lines=tuple(ran.lines),
            stopped=ran.stopped,
            finished=ran.finished,
            picture=ran.picture,
        )

    def _save(self, request: SaveExplained) -> ExplainedSaved:
        image = self._opened.session.result if self._opened is not None else None
        if image is None:
            raise ExplainingProblem("There is no picture yet: the function has not returned.")
        path = Path(request.path)
        if not path.is_absolute() or path.suffix.lower() != _PNG:
            shown = safe_text(request.path, limit=200)
            raise ExplainingProblem(f"{shown} is no absolute path of a PNG file.", field="path")
        stem = path.stem.replace("{", "{{").replace("}", "}}")
        return ExplainedSaved(request=request.request, path=str(save_png(image, path.parent, stem, self._record())))

    def _record(self) -> ImageRecord:
        if self._model is None or self._opened is None:
            raise ExplainingProblem(_NONE)
        (session, params, image_digest), info = self._opened, self._model.info
        return ImageRecord(
            params=params,
            model_name=info.model,
            scheduler_class=type(self._model.pipe.scheduler).__name__,
            first_seed=params.seed or 0,
            version=__version__,
            torch=str(torch.__version__),
            diffusers=diffusers.__version__,
            device=info.device,
            dtype=info.dtype,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            elapsed_s=time.perf_counter() - self._began,
            inexact=tuple(session.changes),
            init_image_digest=image_digest,
        )
