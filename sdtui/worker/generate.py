"""One job, from a prompt to files: `run_job` runs a diffusers pipeline as it is, and reports every part of it.

In-process use, as by `sdtui bench`:

    model = load_model(ModelRequest("scenes-128"))
    run_job(model, submit, emit=events.append, cancelled=lambda: False)

The pictures are bit-identical to `model.pipe(prompt, generator=..., ...)`: everything here only looks.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sdtui.metadata import OutputError, StorageProblem, prepare_output
from sdtui.params import RANDOM_SEEDS, GenerationParams, check_params, check_size
from sdtui.protocol import JobFinished, JobStarted, Message, Submit
from sdtui.schedulers import MODEL_DEFAULT, find_scheduler
from sdtui.worker.cancellation import stoppable, token_of
from sdtui.worker.errors import Cancelled, JobProblem
from sdtui.worker.image_to_image import InitialImage, read_for
from sdtui.worker.inspection import Inspection
from sdtui.worker.interrupt import Interruptible
from sdtui.worker.job import Job
from sdtui.worker.journal import Journal
from sdtui.worker.memory import peak_bytes, reset_peak
from sdtui.worker.models import LoadedModel, safety_checker
from sdtui.worker.probes import Probe
from sdtui.worker.remedies import Ladder
from sdtui.worker.samplers import build_scheduler
from sdtui.worker.steps import Between

Emit = Callable[[Message], None]


def run_job(
    model: LoadedModel,
    submit: Submit,
    *,
    emit: Emit,
    cancelled: Callable[[], bool],
    offline: bool = False,
    began: float | None = None,
    journal: Journal | None = None,
    between_steps: Between = lambda _: None,
    save: bool = True,
) -> list[str]:
    """Run a job to its end and return the paths of its pictures.

    Emits the job's events from `JobStarted` to `JobFinished`. Raises `JobProblem` (with the field), `OutputError`,
    `Cancelled` (with what the job keeps), or what the libraries raise; then nothing of an unfinished picture is on disk, and
    the model can be used again. `began` is when work on the job began, by `time.perf_counter`, where a model was loaded for it
    before. With a `journal` the job goes on from what is in it; a `CancelToken` as `cancelled` knows more ways to stop. Without
    `save` the pictures are made and let go. `between_steps` is called where other short work can be done.
    """
    began = time.perf_counter() if began is None else began
    params, image = prepared(model, submit.params, _known_seed(submit, journal))
    device = model.hardware.device
    seeds = seeds_of(params)
    build_scheduler(model.own_scheduler, model.info.schedulers, params, seeds[: params.batch_size])  # a problem shows here
    if save:
        _check_output(Path(submit.output_dir))
    token = token_of(cancelled)
    with Interruptible(token):
        safety = safety_checker(model, offline=offline) if params.safety_checker else None
    emit(JobStarted(job=submit.job, seed=seeds[0], params=params, total_images=len(seeds)))
    reset_peak(device)
    ladder = Ladder(job=submit.job, pipe=model.pipe, device=device, info=model.info, params=params, emit=emit)
    probe = Probe(submit.job, submit.inspect, device, emit)
    inspection = Inspection(model, submit, params, probe, emit)
    job = Job(model, submit, image, params, seeds, safety, emit, token, journal, ladder, probe, inspection, between_steps, save)
    _run(job)
    emit(
        JobFinished(
            job=submit.job,
            elapsed_s=time.perf_counter() - began,
            images=tuple(job.paths),
            peak_memory_bytes=peak_bytes(device, job.largest_bytes),
            advice=ladder.advice,
        )
    )
    return job.paths


def _run(job: Job) -> None:
    """Run a job with its model's pipeline, and leave that as it was."""
    model, pipe = job.model, job.model.pipe
    try:
        with stoppable(pipe, job.token), job.probe.attached(pipe), job.inspection.attached(pipe):
            try:
                job.take_up()
                job.run()
            finally:
                for used in filter(None, (pipe, model.image_pipe)):
                    used.scheduler = model.own_scheduler
                model.spoiled |= not job.ladder.undo()
    except Cancelled as stopped:
        stopped.progress = job.progress
        raise
    finally:
        pipe.maybe_free_model_hooks()


def _known_seed(submit: Submit, journal: Journal | None) -> int | None:
    """The seed that the job began with, where it was random and an earlier worker drew it."""
    if submit.resume is not None and submit.resume.seed is not None:
        return submit.resume.seed
    return journal.seed if journal is not None else None


def resolve(model: LoadedModel, params: GenerationParams, seed: int | None = None) -> GenerationParams:
    """What `prepared` makes of the parameters."""
    return prepared(model, params, seed)[0]


def prepared(
    model: LoadedModel, params: GenerationParams, seed: int | None = None
) -> tuple[GenerationParams, InitialImage | None]:
    """The parameters with sizes, a seed and the scheduler's name filled in, and the initial image. Raises `JobProblem`.

    `seed` is taken where `params` has none; without either, one is drawn.
    """
    for problem in check_params(params):
        raise JobProblem(problem.message, problem.field)
    info = model.info
    width = params.width or info.default_width_px
    height = params.height or info.default_height_px
    for name, value in (("width", width), ("height", height)):
        message = check_size(name, value, info.size_multiple_px)
        if message:
            raise JobProblem(message, name)
    seed = seed if params.seed is None else params.seed
    seed = secrets.randbelow(RANDOM_SEEDS) if seed is None else seed
    scheduler = find_scheduler(params.scheduler) or params.scheduler
    scheduler = info.default_scheduler if scheduler == MODEL_DEFAULT else scheduler
    params, image = read_for(params, width, height, info.size_multiple_px)
    return msgspec.structs.replace(params, seed=seed, scheduler=scheduler), image


def seeds_of(params: GenerationParams) -> list[int]:
    """The seed of each picture of a job: one more for each."""
    first = params.seed or 0
    return [first + index for index in range(params.batch_count * params.batch_size)]


def _check_output(directory: Path) -> None:
    """Whether the pictures can be written, before minutes are spent on them; a full disk may have room by then."""
    try:
        prepare_output(directory)
    except StorageProblem as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EROFS:
            raise JobProblem(str(error), error.field) from error
    except OutputError as error:
        raise JobProblem(str(error), error.field) from error
