"""Commands: what a client asks of the server, and the server of the worker. Verbs."""

from __future__ import annotations

from typing import Final, Literal

from sdtui.params import GenerationParams
from sdtui.protocol.base import Message
from sdtui.protocol.probing import InspectMode
from sdtui.protocol.values import BranchPoint, CancelWhen, PreviewOptions, ResumePoint

PROTOCOL_VERSION: Final = 3


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
    inspect: InspectMode = "off"
    """Which modules of the networks are looked at while they run: none, the blocks, or every one."""
    words: bool = False
    """Keep where each word of the prompt acts: cross-attention maps."""
    priority: int = 0
    branch: BranchPoint | None = None
    """Go on from a step of another job, with what `params` says from there on."""
    resume: ResumePoint | None = None
    """Only from the server to the worker: the job was begun before."""


class Cancel(Message, frozen=True, kw_only=True):
    """Stop a job: drop it from the queue, or stop the running one.

    `now`: within the current step, its tape goes; `after_image`: the pictures being made are finished and saved, the rest
    is not begun; `after_step`: at the end of this step, and the tape is kept, so that `Retry` goes on from there.
    """

    job: str
    when: CancelWhen = "now"


class CancelWaiting(Message, frozen=True, kw_only=True):
    """Cancel every job that waits; the running one and paused ones stay."""


class Pause(Message, frozen=True, kw_only=True):
    """Take a job off the device at the end of this step, or out of the queue, until `Resume`. Its steps are kept."""

    job: str


class Resume(Message, frozen=True, kw_only=True):
    """Put a paused job back, before the others of its priority; it goes on from its last step."""

    job: str


class Retry(Message, frozen=True, kw_only=True):
    """Queue a failed or cancelled job again, under its own name; steps and pictures that it has are not made again."""

    job: str


class Duplicate(Message, frozen=True, kw_only=True):
    """Queue a copy of a job, in whatever state that is; the client chooses the new name."""

    job: str
    new_job: str
    same_seed: bool = True
    """Take the seed that was used, where it was random; False draws a new one."""


class Edit(Message, frozen=True, kw_only=True):
    """Change the parameters of a job that has not begun."""

    job: str
    params: GenerationParams


class Move(Message, frozen=True, kw_only=True):
    """Move a waiting job; past one of another priority it takes that priority."""

    job: str
    to: Literal["first", "up", "down", "last"]


class SetPriority(Message, frozen=True, kw_only=True):
    """Change a job's priority; it goes behind the others of the new one."""

    job: str
    priority: int


class Hold(Message, frozen=True, kw_only=True):
    """Begin no further job (`on`), or go on. The running job is not touched; a held queue stays held over a restart."""

    on: bool


class Delete(Message, frozen=True, kw_only=True):
    """Forget an ended job: its record and its tape. Its pictures stay."""

    job: str


class DeleteEnded(Message, frozen=True, kw_only=True):
    """Forget every ended job that ended longer than `older_than_s` ago."""

    older_than_s: float = 0.0


class ListJobs(Message, frozen=True, kw_only=True):
    """Ask for a `Jobs` reply.

    `all` and `ended` come newest first; `queue` is what runs, what waits in the order in which it will run, and what is
    paused.
    """

    limit: int = 50
    offset: int = 0
    which: Literal["all", "queue", "ended"] = "all"


class GetJob(Message, frozen=True, kw_only=True):
    """Ask for a `JobChanged` reply: one job as it is now."""

    job: str


class Replay(Message, frozen=True, kw_only=True):
    """Ask for the recorded events of a job again, in order, then `ReplayDone`."""

    job: str


class DecodeStep(Message, frozen=True, kw_only=True):
    """Decode one step's x0 prediction with the model's full VAE, and ask for a `StepDecoded` or `StepNotDecoded` reply.

    The latents come from the job's trajectory (`sdtui.trajectory`), the picture goes beside it, and is not made twice. A
    worker that is busy with a job of the same model does it between two steps.
    """

    job: str
    step_index: int
    """Counted from 0; -1 is the noise, or the noised picture, that the job began with."""
    batch_index: int = 0
    picture: int = 0
    """Which one of the batch."""


class Status(Message, frozen=True, kw_only=True):
    """Ask for a `ServerStatus` reply."""


class Shutdown(Message, frozen=True, kw_only=True):
    """Stop the server: the running job is interrupted, and goes on with the next server; the worker ends, the socket goes."""


QueueCommand = (
    Cancel | CancelWaiting | Pause | Resume | Retry | Duplicate | Edit | Move | SetPriority | Hold | Delete | DeleteEnded
)
Command = Hello | LoadModel | Submit | QueueCommand | ListJobs | GetJob | Replay | DecodeStep | Status | Shutdown
