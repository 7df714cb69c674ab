"""All that crosses a process boundary: commands (verbs) and events (facts), and how they are framed.

The same messages travel between client and server (a Unix-domain socket) and between server and worker (the worker's
stdin and its own copy of fd 1). A frame is a big-endian unsigned 32-bit length and that many bytes of MessagePack, one
map with a `type`. Times are seconds, sizes are bytes or pixels, as the names say.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from typing import Any, BinaryIO, Final, Literal, cast

import msgspec

from sdtui.params import GenerationParams

PROTOCOL_VERSION: Final = 1
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""The largest message is a 1024x1024 RGB preview (3 MiB); more than this is a mistake or an attack."""
_LENGTH: Final = struct.Struct(">I")
HEADER_BYTES: Final = _LENGTH.size


class ProtocolError(Exception):
    """Bytes on the wire that are no message."""


class FrameTooLarge(ProtocolError):
    """A frame's length is above `MAX_FRAME_BYTES`."""


class TruncatedFrame(ProtocolError):
    """The other side closed in the middle of a frame."""


class MalformedFrame(ProtocolError):
    """A whole frame whose bytes are no known message, or a message that has no bytes."""


def _tag(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=_tag):
    """A command or an event; its `type` on the wire is the class's name in snake case."""


# --- values that messages carry -------------------------------------------------------------------------------------


class TensorFact(msgspec.Struct, frozen=True):
    """A tensor's name, shape and dtype, and where it helps, mean and standard deviation."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float | None = None
    std: float | None = None
    note: str = ""


class SchedulerChoice(msgspec.Struct, frozen=True):
    """A scheduler that the loaded model can take, and the sigma spacings it has here."""

    name: str
    label: str
    class_name: str
    sigmas: tuple[str, ...] = ("default",)
    missing: str | None = None
    """The package to install before it can be built; None when it can."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker knows of the model it holds."""

    model: str
    path: str
    pipeline_class: str
    device: str
    dtype: str
    default_width_px: int
    default_height_px: int
    size_multiple_px: int
    latent_channels: int
    prediction_type: str
    max_tokens: int
    tokenizer_dir: str | None
    """A folder with the tokenizer's files, so that the UI can count tokens as the model does."""
    default_scheduler: str
    schedulers: tuple[SchedulerChoice, ...]
    parameters: dict[str, int]
    """Parameters of each component that has any, by its name."""
    guides: bool = True
    """Whether the pipeline takes a negative prompt and a guidance scale."""


class PreviewOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which previews a client wants of its job, and at most how many a second."""

    method: Literal["auto", "linear", "vae", "off"] = "auto"
    max_per_s: float = 15.0
    max_px: int = 128
    """The longer side of a frame; the terminal enlarges."""
    budget: float = 0.02
    """`auto` takes the full VAE only while previews cost less than this share of the sampling time."""


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job as the queue shows it."""

    job: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    params: GenerationParams
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    reason: str | None = None
    images: tuple[str, ...] = ()


# --- commands -------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """First frame of a client: which protocol it speaks, and which events it wants."""

    protocol: int = PROTOCOL_VERSION
    client: str = ""
    subscribe: bool = True
    """Send every event from now on, not only replies and those of own jobs."""
    previews: bool = False


class LoadModel(Message, frozen=True, kw_only=True):
    """Load a model before it is needed; the fields mean what they mean in `GenerationParams`."""

    model: str
    revision: str | None = None
    variant: str | None = None
    dtype: str = "auto"
    device: str = "auto"


class Submit(Message, frozen=True, kw_only=True):
    """Queue a generation. The client chooses `job` (see `new_job_id`), so it can match events before any answer."""

    job: str
    params: GenerationParams
    output_dir: str
    name_pattern: str = "{date}-{seed}-{job}"
    preview: PreviewOptions = PreviewOptions()


class Cancel(Message, frozen=True, kw_only=True):
    """Stop a job: drop it from the queue, or stop it within the current step."""

    job: str


class ListJobs(Message, frozen=True, kw_only=True):
    """Ask for a `Jobs` reply, newest first."""

    limit: int = 50


class Replay(Message, frozen=True, kw_only=True):
    """Ask for the recorded events of a job again, in order, then `ReplayDone`."""

    job: str


class Status(Message, frozen=True, kw_only=True):
    """Ask for a `ServerStatus` reply."""


class Shutdown(Message, frozen=True, kw_only=True):
    """Stop the server: running work is cancelled, the worker ends, the socket goes."""


# --- events: the server's own ---------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, kw_only=True):
    """The server's answer to `Hello`: who it is, and the state of things."""

    protocol: int
    version: str
    pid: int
    worker: str
    """The stage the worker is in: `starting`, an unfinished stage's name, `ready`, `down`."""
    model: ModelInfo | None
    jobs: tuple[JobRow, ...]
    """The queued and running jobs, oldest first."""


class Refused(Message, frozen=True, kw_only=True):
    """A command that was not carried out, why, and which field to change."""

    message: str
    field: str | None = None
    job: str | None = None


class Jobs(Message, frozen=True, kw_only=True):
    """The answer to `ListJobs`."""

    jobs: tuple[JobRow, ...]


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


class QueueChanged(Message, frozen=True, kw_only=True):
    """How many jobs wait, and which one runs."""

    queued: int
    running: str | None


class WorkerDied(Message, frozen=True, kw_only=True):
    """The worker ended without being asked to; a new one is started."""

    reason: str
    exit_code: int | None
    log_tail: str


# --- events: the worker and its model -------------------------------------------------------------------------------


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


# --- events: a job --------------------------------------------------------------------------------------------------


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


class JobFinished(Message, frozen=True, kw_only=True):
    """Every picture of the job is on disk."""

    job: str
    elapsed_s: float
    images: tuple[str, ...]
    peak_memory_bytes: int = 0


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


Command = Hello | LoadModel | Submit | Cancel | ListJobs | Replay | Status | Shutdown
JobEvent = (
    JobQueued
    | JobStarted
    | StageStarted
    | StageFinished
    | PromptTokens
    | StepFinished
    | PreviewReady
    | ImageSaved
    | JobFinished
    | JobFailed
    | JobCancelled
)
WorkerEvent = WorkerStage | WorkerReady | DownloadProgress | ModelLoaded | ModelFailed | Heartbeat
ServerEvent = Welcome | Refused | Jobs | ReplayDone | ServerStatus | QueueChanged | WorkerDied
Event = JobEvent | WorkerEvent | ServerEvent
JOB_ENDS: Final = (JobFinished, JobFailed, JobCancelled)
JOB_EVENTS: Final[tuple[type[Message], ...]] = JobEvent.__args__
MESSAGES: Final[tuple[type[Message], ...]] = (*Command.__args__, *JobEvent.__args__, *WorkerEvent.__args__, *ServerEvent.__args__)

AnyMessage = Command | Event
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """The frame of a message. Raises `FrameTooLarge`, and `MalformedFrame` for text that is no Unicode (lone surrogates)."""
    try:
        body = _encoder.encode(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise MalformedFrame(f"A {type(message).__name__} cannot be sent: {error}.") from error
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"A {type(message).__name__} of {len(body):,} bytes is above the limit of {MAX_FRAME_BYTES:,}.")
    return frame(body)


def frame(body: bytes) -> bytes:
    """A frame around a message that is encoded already."""
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """The message in a frame's body. Raises `MalformedFrame`."""
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrame(f"A frame of {len(body):,} bytes is no known message: {error}") from error
    return cast(Message, message)


def _body_length(header: bytes) -> int:
    length: int = _LENGTH.unpack(header)[0]
    if length > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"A frame says it has {length:,} bytes; the limit is {MAX_FRAME_BYTES:,}.")
    return length


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message of a stream; None when the other side closed between frames. Raises `ProtocolError`."""
    try:
        header = await reader.readexactly(_LENGTH.size)
        body = await reader.readexactly(_body_length(header))
    except asyncio.IncompleteReadError as error:
        if not error.partial and error.expected == _LENGTH.size:
            return None
        raise TruncatedFrame(
            f"The stream ended {(error.expected or 0) - len(error.partial)} bytes before the end of a frame."
        ) from error
    return decode(body)


def read_message_blocking(stream: BinaryIO) -> Message | None:
    """As `read_message`, from a buffered binary file; for the worker's reading thread."""
    header = stream.read(_LENGTH.size)
    if not header:
        return None
    if len(header) < _LENGTH.size:
        raise TruncatedFrame("The stream ended within a frame's length.")
    length = _body_length(header)
    body = stream.read(length)
    if len(body) < length:
        raise TruncatedFrame(f"The stream ended {length - len(body)} bytes before the end of a frame.")
    return decode(body)


def as_json(message: Message) -> bytes:
    """A message as one line of JSON without the newline; bytes fields are base64."""
    return msgspec.json.encode(message)


def new_job_id(now: float | None = None) -> str:
    """A job's name: the UTC time and four random hex digits, so names sort by age and can be typed."""
    import secrets  # late: it brings hashlib along, and an app that starts needs no job id

    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{stamp}-{secrets.token_hex(2)}"
