"""Values that messages carry."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sdtui.params import GenerationParams

CancelWhen = Literal["now", "after_image", "after_step"]


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


JobState = Literal["queued", "running", "interrupted", "paused", "done", "failed", "cancelled"]
"""`interrupted`: cut short by a crash or a stop, and waiting to go on by itself; `paused`: waiting until it is resumed."""
WAITING: Final[tuple[JobState, ...]] = ("queued", "interrupted")
"""The states of jobs that run as soon as the worker is free."""
ENDED: Final[tuple[JobState, ...]] = ("done", "failed", "cancelled")
JOB_STATES: Final[tuple[JobState, ...]] = ("running", *WAITING, "paused", *ENDED)


class BranchPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job leaves the way of another one: that one's steps before `step` are taken over, the others are made anew."""

    job: str
    """The parent; its recorded steps must still be there when the branch begins."""
    step: int
    """How many steps are taken over, 1 or more; step `step`, counted from 0, is the first that runs anew."""
    batch_index: int = 0
    picture: int = 0
    """Which picture of the parent's batch."""


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """One job as the queue shows it."""

    job: str
    state: JobState
    params: GenerationParams
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    reason: str | None = None
    """Why it failed, was interrupted or is paused."""
    images: tuple[str, ...] = ()
    priority: int = 0
    """Higher ones run first; -100 to 100."""
    attempts: int = 0
    """How many workers died under it."""
    batch_index: int = 0
    """Of the latest step."""
    steps_done: int = 0
    """Recorded steps of that batch; a paused or interrupted job goes on from there."""
    total_steps: int = 0
    """Steps of a batch; 0 until it is known."""
    copy_of: str | None = None
    """The job that it was duplicated from."""
    branch: BranchPoint | None = None
    """The job and step that it branched from."""


class ResumePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the server has of a job that was begun before: the worker need not tell it again."""

    seed: int | None = None
    """The seed it began with, where that is known; a random one must not be drawn anew."""
    batch_index: int = 0
    steps_done: int = 0
    attempt: int = 0
