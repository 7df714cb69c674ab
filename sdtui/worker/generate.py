"""One job, from a prompt to files: `run_job` runs a diffusers pipeline as it is, and reports every part of it.

In-process use, as by `sdtui bench`:

    model = load_model(ModelRequest("scenes-128"))
    run_job(model, submit, emit=events.append, cancelled=lambda: False)

The pictures are bit-identical to `model.pipe(prompt, generator=..., ...)`: everything here only looks.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sdtui.metadata import OutputError, prepare_output
from sdtui.params import RANDOM_SEEDS, GenerationParams, check_params, check_size
from sdtui.protocol import JobFinished, JobStarted, Message, Submit
from sdtui.schedulers import MODEL_DEFAULT, find_scheduler
from sdtui.worker.cancellation import raise_if, stoppable
from sdtui.worker.errors import JobProblem
from sdtui.worker.memory import peak_bytes, reset_peak
from sdtui.worker.models import LoadedModel, safety_checker
from sdtui.worker.samplers import build_scheduler
from sdtui.worker.stages import Batch, run_batch

Emit = Callable[[Message], None]


@dataclass
class JobState:
    """What a running job has done so far."""

    began: float = field(default_factory=time.perf_counter)
    paths: list[str] = field(default_factory=list)
    largest_bytes: int = 0


def run_job(
    model: LoadedModel,
    submit: Submit,
    *,
    emit: Emit,
    cancelled: Callable[[], bool],
    offline: bool = False,
    began: float | None = None,
) -> list[str]:
    """Run a job to its end and return the paths of its pictures.

    Emits the job's events from `JobStarted` to `JobFinished`. Raises `JobProblem` (with the field), `Cancelled`, or what
    the libraries raise; then nothing of an unfinished picture is on disk, and the model can be used again.
    `began` is when the job came in, by `time.perf_counter`, where that was before.
    """
    params = resolve(model, submit.params)
    state = JobState() if began is None else JobState(began)
    seeds = seeds_of(params)
    schedulers_of = _checked(model, params, seeds)
    try:
        prepare_output(Path(submit.output_dir))
    except OutputError as error:
        raise JobProblem(str(error), error.field) from error
    device = model.hardware.device
    reset_peak(device)
    emit(JobStarted(job=submit.job, seed=seeds[0], params=params, total_images=len(seeds)))
    safety = safety_checker(model, offline=offline) if params.safety_checker else None
    own = model.pipe.scheduler
    try:
        with stoppable(model.pipe, cancelled):
            for index in range(params.batch_count):
                raise_if(cancelled)
                batch_seeds = seeds[index * params.batch_size : (index + 1) * params.batch_size]
                model.pipe.scheduler = schedulers_of(batch_seeds)
                batch = Batch(index, batch_seeds, params, safety, time.perf_counter())
                run_batch(model, submit, batch, state, emit=emit, cancelled=cancelled)
    finally:
        model.pipe.scheduler = own
        model.pipe.maybe_free_model_hooks()
    emit(
        JobFinished(
            job=submit.job,
            elapsed_s=time.perf_counter() - state.began,
            images=tuple(state.paths),
            peak_memory_bytes=peak_bytes(device, state.largest_bytes),
        )
    )
    return state.paths


def resolve(model: LoadedModel, params: GenerationParams) -> GenerationParams:
    """The parameters with the model's sizes, a seed and the scheduler's name filled in. Raises `JobProblem`."""
    for problem in check_params(params):
        raise JobProblem(problem.message, problem.field)
    info = model.info
    width = params.width or info.default_width_px
    height = params.height or info.default_height_px
    for name, value in (("width", width), ("height", height)):
        message = check_size(name, value, info.size_multiple_px)
        if message:
            raise JobProblem(message, name)
    seed = secrets.randbelow(RANDOM_SEEDS) if params.seed is None else params.seed
    scheduler = find_scheduler(params.scheduler) or params.scheduler
    scheduler = info.default_scheduler if scheduler == MODEL_DEFAULT else scheduler
    return msgspec.structs.replace(params, width=width, height=height, seed=seed, scheduler=scheduler)


def seeds_of(params: GenerationParams) -> list[int]:
    """The seed of each picture of a job: one more for each."""
    first = params.seed or 0
    return [first + index for index in range(params.batch_count * params.batch_size)]


def _checked(model: LoadedModel, params: GenerationParams, seeds: list[int]) -> Callable[[list[int]], Any]:
    """A maker of schedulers for the batches, after one was made to see that it can be. Raises `JobProblem`."""

    def make(batch_seeds: list[int]) -> Any:
        return build_scheduler(model.own_scheduler, model.info.schedulers, params, batch_seeds)

    make(seeds[: params.batch_size])
    return make
