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
from pathlib import Path
from typing import Any

import msgspec
import torch

from sdtui.metadata import OutputError, prepare_output
from sdtui.params import RANDOM_SEEDS, GenerationParams, check_params, check_size
from sdtui.protocol import JobFinished, JobStarted, Message, Submit
from sdtui.schedulers import MODEL_DEFAULT, find_scheduler
from sdtui.worker.cancellation import raise_if, stoppable
from sdtui.worker.errors import JobProblem
from sdtui.worker.memory import peak_bytes, reset_peak
from sdtui.worker.models import LoadedModel, safety_checker
from sdtui.worker.previews import Previewer
from sdtui.worker.samplers import build_scheduler
from sdtui.worker.saving import save_images
from sdtui.worker.stages import Batch, StageClock
from sdtui.worker.steps import StepLog
from sdtui.worker.stepwise import run_stepwise
from sdtui.worker.whole import run_whole

Emit = Callable[[Message], None]


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

    Emits the job's events from `JobStarted` to `JobFinished`. Raises `JobProblem` (with the field), `OutputError`,
    `Cancelled`, or what the libraries raise; then nothing of an unfinished picture is on disk, and the model can be
    used again. `began` is when work on the job began, by `time.perf_counter`, where a model was loaded for it before.
    """
    began = time.perf_counter() if began is None else began
    params, pipe, device = resolve(model, submit.params), model.pipe, model.hardware.device
    seeds = seeds_of(params)
    batches = [seeds[start : start + params.batch_size] for start in range(0, len(seeds), params.batch_size)]
    scheduler = _scheduler(model, params, batches[0])
    _check_output(Path(submit.output_dir))
    safety = safety_checker(model, offline=offline) if params.safety_checker else None
    emit(JobStarted(job=submit.job, seed=seeds[0], params=params, total_images=len(seeds)))
    reset_peak(device)
    paths: list[str] = []
    largest_bytes = 0
    try:
        with stoppable(pipe, cancelled):
            for index, batch_seeds in enumerate(batches):
                raise_if(cancelled)
                pipe.scheduler = scheduler if index == 0 else _scheduler(model, params, batch_seeds)
                clock = StageClock(submit.job, index, emit)
                now = time.perf_counter()
                batch = Batch(model, submit, params, index, batch_seeds, safety, emit, cancelled, clock, now)
                log = _step_log(batch)
                images = run_stepwise(batch, log) if model.simple else run_whole(batch, log)
                raise_if(cancelled)
                paths += save_images(batch, images)
                largest_bytes = max(largest_bytes, log.largest_bytes)
    finally:
        pipe.scheduler = model.own_scheduler
        pipe.maybe_free_model_hooks()
    elapsed_s = time.perf_counter() - began
    peak = peak_bytes(device, largest_bytes)
    emit(JobFinished(job=submit.job, elapsed_s=elapsed_s, images=tuple(paths), peak_memory_bytes=peak))
    return paths


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


def _scheduler(model: LoadedModel, params: GenerationParams, seeds: list[int]) -> Any:
    return build_scheduler(model.own_scheduler, model.info.schedulers, params, seeds)


def _check_output(directory: Path) -> None:
    """Whether the pictures can be written, before minutes are spent on them."""
    try:
        prepare_output(directory)
    except OutputError as error:
        raise JobProblem(str(error), error.field) from error


def _step_log(batch: Batch) -> StepLog:
    params = batch.params
    return StepLog(
        job=batch.submit.job,
        batch_index=batch.index,
        device=batch.model.hardware.device,
        emit=batch.emit,
        previewer=Previewer(batch.model.previews, batch.submit.preview, (params.width or 0) * (params.height or 0)),
        cancelled=batch.cancelled,
        unpack=_unpacker(batch.pipe, params),
    )


def _unpacker(pipe: Any, params: GenerationParams) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Flux and its kin hold latents as (B, n, C) tokens; this gives them back their rows and columns."""
    if not hasattr(pipe, "_unpack_latents"):
        return None

    def unpack(latents: torch.Tensor) -> torch.Tensor:
        if latents.ndim != 3:
            return latents
        unpacked: torch.Tensor = pipe._unpack_latents(latents, params.height, params.width, pipe.vae_scale_factor)
        return unpacked

    return unpack
