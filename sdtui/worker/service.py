"""The worker's life: start in stages, then take commands one after the other until the server goes.

Three threads serve the main one, which computes: a reader, so that `Cancel` is seen in the middle of a step, a sender,
so that a stalled server never stalls the work, and a heartbeat, so that busy and dead can be told apart.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

from sdtui.metadata import OutputError
from sdtui.protocol import (
    Cancel,
    DecodeStep,
    JobCancelled,
    JobFailed,
    JobPaused,
    LoadModel,
    Message,
    ModelFailed,
    ModelLoaded,
    Pause,
    ProtocolError,
    Shutdown,
    StageFinished,
    StageStarted,
    Submit,
    WorkerReady,
    WorkerStage,
)
from sdtui.settings import Settings, tapes_dir
from sdtui.worker import memory
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import (
    Cancelled,
    JobProblem,
    Stop,
    is_device_broken,
    is_out_of_memory,
    one_line,
    traceback_text,
)
from sdtui.worker.wire import Sender, read_commands

if TYPE_CHECKING:
    from sdtui.params import GenerationParams
    from sdtui.worker.decode_step import Decodings
    from sdtui.worker.journal import Journal
    from sdtui.worker.models import LoadedModel, ModelRequest

HEARTBEAT_S: Final = 1.0
LEAVE_S: Final = 5.0
"""How long a cancelled job may take to stop when the server has gone; then the process ends without it."""
CPU_NICENESS: Final = 5
"""On a CPU the worker takes every core; the terminal and the server must still get theirs at once."""
EXIT_BAD_COMMAND: Final = 65
"""EX_DATAERR of sysexits.h: what came in was no message."""
EXIT_DEVICE_BROKEN: Final = 71
"""EX_OSERR of sysexits.h: the GPU gives this process nothing but errors; a new one may do."""
_log: Final = logging.getLogger(__name__)


class Worker:
    """Holds the model that is loaded and runs the commands of one server."""

    def __init__(self, commands: BinaryIO, events: BinaryIO, settings: Settings) -> None:
        self._settings = settings
        self._commands = commands
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._tokens: dict[str, CancelToken] = {}
        self._tokens_lock = threading.Lock()
        self._asked: deque[DecodeStep] = deque()
        """Steps that somebody wants to see decoded."""
        self._model: LoadedModel | None = None
        self._exit_code = 0
        self._sender = Sender(events, on_broken=self._leave)
        self.emit = self._sender.send

    # --- threads ------------------------------------------------------------------------------------------------

    def _start_threads(self) -> None:
        reader = threading.Thread(
            target=read_commands, args=(self._commands, self._on_command, self._on_end), name="reader", daemon=True
        )
        reader.start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _on_command(self, message: Message) -> None:
        """In the reader's thread: cancelling must not wait for the work."""
        if isinstance(message, Cancel):
            self._stop(message.job, message.when)
        elif isinstance(message, Pause):
            self._stop(message.job, "pause")
        elif isinstance(message, Shutdown):
            self._leave()
        else:
            if isinstance(message, Submit):
                with self._tokens_lock:
                    self._tokens[message.job] = CancelToken()
            elif isinstance(message, DecodeStep):
                self._asked.append(message)
            self._queue.put(message)

    def _stop(self, job: str, stop: Stop) -> None:
        with self._tokens_lock:
            token = self._tokens.get(job)
        if token is not None:
            token.request(stop)

    def _on_end(self, error: ProtocolError | None) -> None:
        if error is not None:
            _log.error("%s: %s", type(error).__name__, error)
            self._exit_code = EXIT_BAD_COMMAND
        self._leave()

    def _leave(self) -> None:
        """Stop the running job and end, at once where there is none; an orphan would keep the GPU's memory."""
        with self._tokens_lock:
            tokens = list(self._tokens.values())
        for token in tokens:
            token.cancel()
        if not tokens:
            self._sender.close()
            sys.stderr.flush()
            os._exit(self._exit_code)
        self._queue.put(None)
        timer = threading.Timer(LEAVE_S, lambda: os._exit(self._exit_code or 1))
        timer.daemon = True
        timer.start()

    def _beat(self) -> None:
        while True:
            model = self._model
            self.emit(memory.heartbeat(model.hardware.device if model is not None else None))
            time.sleep(HEARTBEAT_S)

    # --- start --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start, then work until the server goes; returns the exit code."""
        with self._stage("handshake"):
            self._start_threads()
        self._import_libraries()
        while (message := self._queue.get()) is not None:
            if isinstance(message, LoadModel):
                self._on_load_model(message)
            elif isinstance(message, Submit):
                self._on_submit(message)
            elif isinstance(message, DecodeStep):
                self._on_decode_step()
            else:
                _log.warning("%s is no command for a worker", type(message).__name__)
        self._sender.close()
        return self._exit_code

    @contextmanager
    def _stage(self, stage: str, detail: str = "") -> Iterator[None]:
        self.emit(WorkerStage(stage=stage, state="started", detail=detail))
        began = time.perf_counter()
        yield
        self.emit(WorkerStage(stage=stage, state="finished", elapsed_s=time.perf_counter() - began, detail=detail))

    def _import_libraries(self) -> None:
        with self._stage("torch"):
            import torch

            torch.set_num_threads(self._settings.worker.threads or len(os.sched_getaffinity(0)))
        with self._stage("diffusers"):
            import diffusers
            import transformers
            from diffusers import StableDiffusionPipeline  # noqa: F401  # the import that costs; the model needs it at once

            from sdtui.worker import generate  # noqa: F401
            from sdtui.worker.hardware import choose_hardware
            from sdtui.worker.quiet import quieten_libraries

            quieten_libraries()
        hardware = choose_hardware("auto", "auto")
        _log.info("%s, %s: %s", hardware.device_name, hardware.dtype_name, hardware.why)
        if hardware.device.type == "cpu":
            os.nice(CPU_NICENESS)  # of this thread and those it will start: the computing ones, not the wire's
        self.emit(
            WorkerReady(
                pid=os.getpid(),
                torch=str(torch.__version__),
                diffusers=diffusers.__version__,
                transformers=transformers.__version__,
                device=str(hardware.device),
                device_name=hardware.device_name,
                dtype=hardware.dtype_name,
                why=hardware.why,
            )
        )

    # --- models -------------------------------------------------------------------------------------------------

    def _on_load_model(self, command: LoadModel) -> None:
        from sdtui.worker.models import ModelRequest

        request = ModelRequest.of(command)
        if self._model is not None and self._model.serves(request):
            self.emit(ModelLoaded(info=self._model.info, elapsed_s=0.0))
            return
        try:
            self._load(request, lambda: False)
        except JobProblem as problem:
            _log.error("%s", problem, exc_info=problem.__cause__)
        except Exception as error:
            _log.exception("loading %s", command.model)
            self.emit(ModelFailed(model=command.model, message=one_line(error)))

    def _how(self) -> dict[str, bool]:
        return {"offline": self._settings.worker.offline, "allow_pickle": self._settings.worker.allow_pickle}

    def _load(self, request: ModelRequest, cancelled: Callable[[], bool]) -> LoadedModel:
        """Load and warm up a model in the place of the one before. Raises `JobProblem` after `ModelFailed`, or `Cancelled`."""
        from sdtui.worker.models import load_model
        from sdtui.worker.warm_up import warm_up

        self._model = None
        memory.free_memory()
        began = time.perf_counter()
        try:
            with self._stage("model", request.model):
                model = load_model(request, emit=self.emit, cancelled=cancelled, **self._how())
        except JobProblem as problem:
            self.emit(ModelFailed(model=request.model, message=str(problem)))
            raise
        with self._stage("warm_up", request.model):
            warm_up(model, functools.partial(cancelled))  # not the token itself: a pause lets the model come up
        self._model = model
        _log.info("%s on %s, %s: %s", request.model, model.info.device, model.info.dtype, model.hardware.why)
        self.emit(ModelLoaded(info=model.info, elapsed_s=time.perf_counter() - began))
        return model

    # --- steps of jobs -------------------------------------------------------------------------------------------

    def _decodings(self) -> Decodings:
        from sdtui.worker.decode_step import Decodings

        return Decodings(tapes_dir(), self._asked, self.emit)

    def _on_decode_step(self) -> None:
        """Between jobs; what a job has answered already is not asked any more. A job that waits may be stopped meanwhile."""
        try:
            self._decodings().serve_all(self._model_of, self._is_any_cancelled)
        except Cancelled:
            self._queue.put(self._asked[0])  # after the job, which is to stop at once
        except Exception as error:
            _log.exception("decoding a step")
            if is_device_broken(error):
                self._leave_broken()

    def _is_any_cancelled(self) -> bool:
        with self._tokens_lock:
            return any(token.wanted == "now" for token in self._tokens.values())

    def _model_of(self, params: GenerationParams) -> LoadedModel:
        from sdtui.worker.models import ModelRequest, find_local_problem

        request = ModelRequest.of(params)
        if self._model is not None and self._model.serves(request):
            return self._model
        find_local_problem(request, allow_pickle=self._settings.worker.allow_pickle)
        return self._load(request, lambda: False)

    # --- jobs ---------------------------------------------------------------------------------------------------

    def _on_submit(self, submit: Submit) -> None:
        with self._tokens_lock:
            token = self._tokens[submit.job]
        try:
            end = self._run(submit, token)
        finally:
            with self._tokens_lock:
                self._tokens.pop(submit.job, None)
        if end is not None:
            self.emit(end)
            memory.free_memory()

    def _run(self, submit: Submit, token: CancelToken) -> Message | None:
        """Run a job; returns the event that ends it where it did not finish. Its traceback is gone by then, and what it held."""
        journal: Journal | None = None
        try:
            token.stop_between_batches()
            journal = self._journal(submit, token)
            self._run_with(submit, token, journal)
        except Cancelled as stopped:
            return _stopped(submit, stopped, token)
        except (JobProblem, OutputError) as problem:
            _log.error("job %s: %s", submit.job, problem, exc_info=problem.__cause__)
            return JobFailed(job=submit.job, message=str(problem), field=problem.field)
        except Exception as error:
            _log.exception("job %s", submit.job)
            if is_device_broken(error):
                self._leave_broken()
            detail = traceback_text(error)
            message, field = _explain(error, self._model, submit)
            return JobFailed(job=submit.job, message=message, field=field, detail=detail)
        finally:
            if journal is not None:
                journal.close()
        return None

    def _run_with(self, submit: Submit, token: CancelToken, journal: Journal | None) -> None:
        from sdtui.worker.generate import run_job

        began, offline = time.perf_counter(), self._settings.worker.offline
        model = self._model_for(submit, token)
        decodings = self._decodings()

        def between_steps(flush: Callable[[], None]) -> None:
            if self._asked:
                flush()
                decodings.serve_between_steps(model)

        run_job(
            model,
            submit,
            emit=self.emit,
            cancelled=token,
            offline=offline,
            began=began,
            journal=journal,
            between_steps=between_steps,
        )

    def _journal(self, submit: Submit, token: CancelToken) -> Journal | None:
        from sdtui.worker.journal import open_journal

        return open_journal(tapes_dir(), submit.job, record=self._settings.worker.tape, look=token.stop_between_steps)

    def _leave_broken(self) -> NoReturn:
        """End at once: CUDA answers nothing but this error any more in this process; the job's tape is closed by now."""
        _log.error("the device is broken for this process, which ends")
        self._sender.close()
        sys.stderr.flush()
        os._exit(EXIT_DEVICE_BROKEN)

    def _model_for(self, submit: Submit, token: CancelToken) -> LoadedModel:
        from sdtui.worker.models import ModelRequest, find_local_problem

        request = ModelRequest.of(submit.params)
        if self._model is not None and self._model.serves(request):
            return self._model
        find_local_problem(request, allow_pickle=self._settings.worker.allow_pickle)
        began = time.perf_counter()
        self.emit(StageStarted(job=submit.job, stage="load"))
        model = self._load(request, token)
        self.emit(StageFinished(job=submit.job, stage="load", elapsed_s=time.perf_counter() - began, detail=request.model))
        return model


def _stopped(submit: Submit, stopped: Cancelled, token: CancelToken) -> Message:
    """The event of a job that stopped as it was asked to."""
    progress, resume = stopped.progress, submit.resume
    if not progress.started and resume is not None:
        progress.batch_index, progress.steps_done = resume.batch_index, resume.steps_done
    if stopped.stop == "pause":
        steps = progress.steps_done
        return JobPaused(job=submit.job, batch_index=progress.batch_index, steps_done=steps, latency_s=token.latency_s)
    kept_steps = progress.steps_done if stopped.stop == "after_step" else 0
    latency_s = token.latency_s if progress.started else 0.0
    return JobCancelled(job=submit.job, latency_s=latency_s, kept_steps=kept_steps, images=tuple(progress.paths))


def _explain(error: Exception, model: LoadedModel | None, submit: Submit) -> tuple[str, str | None]:
    """What to say of an exception that ended a job, and the parameter to change."""
    if not is_out_of_memory(error):
        return one_line(error), None
    from sdtui.worker.memory_facts import explain_job, explain_without_model

    if model is None:
        return explain_without_model(error, submit.params)
    return explain_job(error, model.pipe, model.info, model.hardware.device, submit.params)


def log_to_stderr() -> None:
    """The worker's log: stderr, which the server points at a file."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
