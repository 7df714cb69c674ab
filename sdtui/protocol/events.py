"""Events: what happened, as the worker and the server tell it. Facts."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol.base import Message
from sdtui.protocol.probing import JobInspected, ModulesRan, NotANumber
from sdtui.protocol.values import JobRow, ModelInfo, TensorFact

# --- the server's own -----------------------------------------------------------------------------------------------


class QueueChanged(Message, frozen=True, kw_only=True):
    """How many jobs wait, which one runs, and why none is begun, if that is so."""

    queued: int
    running: str | None
    paused: int = 0
    held: bool = False
    """Somebody said `Hold`."""
    trouble: str = ""
    """What keeps the queue from going on, such as a full disk; empty when nothing does."""


class Welcome(Message, frozen=True, kw_only=True):
    """The server's answer to `Hello`: who it is, and the state of things."""

    protocol: int
    version: str
    pid: int
    worker: str
    """The stage the worker is in: `starting`, an unfinished stage's name, `ready`, `down`."""
    model: ModelInfo | None
    jobs: tuple[JobRow, ...]
    """The running job and the first of those that wait, in the order in which they will run."""
    queue: QueueChanged = QueueChanged(queued=0, running=None)


class Refused(Message, frozen=True, kw_only=True):
    """A command that was not carried out, why, and which field to change."""

    message: str
    field: str | None = None
    job: str | None = None


class Jobs(Message, frozen=True, kw_only=True):
    """The answer to `ListJobs`."""

    jobs: tuple[JobRow, ...]
    """At most what fits into a frame; ask again with an `offset` for more."""
    total: int = 0
    """How many jobs there are of those asked for."""
    which: Literal["all", "queue", "ended"] = "all"
    offset: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    """How many jobs there are in each state."""


class JobChanged(Message, frozen=True, kw_only=True):
    """A job was edited, moved, paused, resumed, queued again or duplicated, or was asked for: so it is now."""

    job: str
    row: JobRow
    position: int | None = None
    """How many jobs come before it, the running one among them; None for one that does not wait."""


class JobDeleted(Message, frozen=True, kw_only=True):
    """A job's record is gone."""

    job: str


class EndedDeleted(Message, frozen=True, kw_only=True):
    """The answer to `DeleteEnded`: how many records are gone."""

    count: int


class WaitingCancelled(Message, frozen=True, kw_only=True):
    """The answer to `CancelWaiting`, after as many `JobCancelled`."""

    count: int


class ReplayDone(Message, frozen=True, kw_only=True):
    """All recorded events of a job were sent."""

    job: str


class ServerStatus(Message, frozen=True, kw_only=True):
    """The answer to `Status`."""

    version: str
    pid: int
    uptime_s: float
    idle_s: float
    idle_timeout_s: float
    clients: int
    queued: int
    running: str | None
    worker_pid: int | None
    worker: str
    socket: str
    database: str
    log: str


class WorkerDied(Message, frozen=True, kw_only=True):
    """The worker ended without being asked to; a new one is started, unless `given_up`."""

    reason: str
    exit_code: int | None
    log_tail: str
    given_up: bool = False
    """No other worker is started until somebody asks: the last ones died without beginning a job."""


# --- the worker and its model ---------------------------------------------------------------------------------------


class WorkerStage(Message, frozen=True, kw_only=True):
    """A stage of the worker's start: `handshake`, `torch`, `diffusers`, `model`, `warm_up`."""

    stage: str
    state: Literal["started", "finished"]
    elapsed_s: float = 0.0
    detail: str = ""


class WorkerReady(Message, frozen=True, kw_only=True):
    """The worker can take jobs."""

    pid: int
    torch: str
    diffusers: str
    transformers: str
    device: str
    device_name: str
    dtype: str
    why: str
    """Why this device and this dtype, in a sentence."""


class DownloadProgress(Message, frozen=True, kw_only=True):
    """A hub model on its way; `total_bytes` is 0 while unknown."""

    model: str
    file: str
    done_bytes: int
    total_bytes: int


class ModelLoaded(Message, frozen=True, kw_only=True):
    """A model is in memory."""

    info: ModelInfo
    elapsed_s: float


class ModelFailed(Message, frozen=True, kw_only=True):
    """A model could not be loaded; the one before, if any, is gone from memory too."""

    model: str
    message: str


class Heartbeat(Message, frozen=True, kw_only=True):
    """The worker lives; memory it holds and memory there is."""

    rss_bytes: int
    device_bytes: int = 0
    device_total_bytes: int = 0


# --- a job ----------------------------------------------------------------------------------------------------------


class JobQueued(Message, frozen=True, kw_only=True):
    """The job is in the database and waits."""

    job: str
    params: GenerationParams
    position: int
    """How many jobs come before it, the running one among them; 0 begins at once."""


class JobStarted(Message, frozen=True, kw_only=True):
    """The worker has begun; the seed is the one in use, also where it was random."""

    job: str
    seed: int
    params: GenerationParams
    """As given, with model sizes, seed and scheduler filled in."""
    total_images: int


class StageStarted(Message, frozen=True, kw_only=True):
    """A stage of a job began: `load`, `tokens`, `embeddings`, `latents`, `denoise`, `decode`, `save`."""

    job: str
    stage: str
    batch_index: int = 0


class StageFinished(Message, frozen=True, kw_only=True):
    """A stage of a job ended, with the tensors that came out of it."""

    job: str
    stage: str
    elapsed_s: float
    tensors: tuple[TensorFact, ...] = ()
    detail: str = ""
    batch_index: int = 0


class PromptTokens(Message, frozen=True, kw_only=True):
    """A prompt as the model reads it. `cut_off` is the text past `max_tokens` that the model does not see."""

    job: str
    which: Literal["prompt", "negative_prompt"]
    ids: tuple[int, ...]
    words: tuple[str, ...]
    cut_off: str
    max_tokens: int
    elapsed_s: float = 0.0


class StepFinished(Message, frozen=True, kw_only=True):
    """One call of `scheduler.step`. `step_index` counts from 0 to `total_steps` - 1 (2N-1 for second-order schedulers)."""

    job: str
    batch_index: int
    step_index: int
    total_steps: int
    timestep: float
    sigma: float | None
    latents: TensorFact
    """After the step, (B, C, h, w)."""
    noise_pred: TensorFact
    """What the network said, guidance applied, (B, C, h, w)."""
    denoised: TensorFact
    """The x0 prediction, (B, C, h, w)."""
    guidance_norm: float | None
    """RMS of noise_pred_text - noise_pred_uncond; None without guidance."""
    elapsed_s: float
    preview_s: float
    memory_bytes: int
    replayed: bool = False
    """Taken from the tape, not computed now."""


class PreviewReady(Message, frozen=True, kw_only=True):
    """A picture of the x0 prediction of the first image of the batch: raw RGB, row by row, `width_px * height_px * 3` bytes."""

    job: str
    batch_index: int
    step_index: int
    width_px: int
    height_px: int
    rgb: bytes
    method: Literal["linear", "vae"]
    elapsed_s: float


class ImageSaved(Message, frozen=True, kw_only=True):
    """A finished picture is on disk under its final name."""

    job: str
    path: str
    seed: int
    image_index: int
    width_px: int
    height_px: int
    size_bytes: int
    elapsed_s: float
    """Writing the file."""


class StepDecoded(Message, frozen=True, kw_only=True):
    """The picture of a step by the full VAE is on disk, as a PNG file beside the job's trajectory."""

    job: str
    batch_index: int
    step_index: int
    picture: int
    path: str
    elapsed_s: float
    """0 where it was there already."""


class StepNotDecoded(Message, frozen=True, kw_only=True):
    """A step that could not be decoded, and why, in a sentence that may be shown."""

    job: str
    batch_index: int
    step_index: int
    picture: int
    message: str


class JobResumed(Message, frozen=True, kw_only=True):
    """Comes after `JobStarted` when a job that was begun before goes on, or must begin anew.

    Steps that the server knows of are not told again; those that only the tape knows of are, with `replayed`.
    """

    job: str
    batch_index: int
    steps_done: int
    """Steps of this batch that come from the tape; 0 when it is begun anew."""
    images_done: int
    detail: str = ""
    """Why the tape could not be used, where that is so."""


class JobPaused(Message, frozen=True, kw_only=True):
    """The job is off the device and keeps its steps, `latency_s` after the worker read the command."""

    job: str
    batch_index: int = 0
    steps_done: int = 0
    latency_s: float = 0.0


class JobInterrupted(Message, frozen=True, kw_only=True):
    """The worker died, or the server was stopped, under a job; it goes on as soon as it can."""

    job: str
    reason: str
    attempt: int
    """How many workers have died under it; 0 when it was the server that ended."""
    max_attempts: int
    """The job fails when more than this many have."""
    log_tail: str = ""


class MemoryRanOut(Message, frozen=True, kw_only=True):
    """The device had not enough memory for a stage; it is tried again in a way that needs less."""

    job: str
    batch_index: int
    stage: str
    remedy: str
    """What is tried next: `vae_slicing`, `vae_tiling`, `smaller_batch`, `model_offload` or `sequential_offload`."""
    message: str
    """What ran out, and what is done, for people."""
    needed_bytes: int = 0
    """0 where the allocator does not say."""
    free_bytes: int = 0


class StorageFull(Message, frozen=True, kw_only=True):
    """A file could not be written: the disk is full or broken. The picture is kept in memory and tried again."""

    job: str
    path: str
    message: str
    needed_bytes: int = 0


class StorageFreed(Message, frozen=True, kw_only=True):
    """The file is written after all."""

    job: str
    path: str
    waited_s: float


class JobFinished(Message, frozen=True, kw_only=True):
    """Every picture of the job is on disk."""

    job: str
    elapsed_s: float
    images: tuple[str, ...]
    peak_memory_bytes: int = 0
    advice: str = ""
    """What to set for the next job, where memory ran out in this one."""


class JobFailed(Message, frozen=True, kw_only=True):
    """The job ended with an error; pictures saved before stay."""

    job: str
    message: str
    field: str | None = None
    detail: str = ""
    """The traceback, for `--debug` and the log."""


class JobCancelled(Message, frozen=True, kw_only=True):
    """The job was stopped on request, `latency_s` after the worker read the command (0 where it had not begun)."""

    job: str
    latency_s: float = 0.0
    kept_steps: int = 0
    """Steps that are on the tape for `Retry`; 0 when it is gone."""
    images: tuple[str, ...] = ()
    """Pictures that were finished before."""
    detail: str = ""
    """How it had to be stopped, where asking did not help."""


JobEvent = (
    JobQueued
    | JobStarted
    | StageStarted
    | StageFinished
    | PromptTokens
    | StepFinished
    | ModulesRan
    | NotANumber
    | JobInspected
    | PreviewReady
    | ImageSaved
    | StepDecoded
    | StepNotDecoded
    | JobResumed
    | JobPaused
    | JobInterrupted
    | MemoryRanOut
    | StorageFull
    | StorageFreed
    | JobFinished
    | JobFailed
    | JobCancelled
)
WorkerEvent = WorkerStage | WorkerReady | DownloadProgress | ModelLoaded | ModelFailed | Heartbeat
ServerEvent = (
    Welcome
    | Refused
    | Jobs
    | JobChanged
    | JobDeleted
    | EndedDeleted
    | WaitingCancelled
    | ReplayDone
    | ServerStatus
    | QueueChanged
    | WorkerDied
)
Event = JobEvent | WorkerEvent | ServerEvent
JOB_ENDS: Final = (JobFinished, JobFailed, JobCancelled)
JOB_STOPS: Final = (*JOB_ENDS, JobPaused, JobInterrupted)
"""After any of these the worker is free again."""
JOB_EVENTS: Final[tuple[type[Message], ...]] = JobEvent.__args__
