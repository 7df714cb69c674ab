"""A job as the server holds it, and what is wrong with one that is submitted."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import PurePath
from typing import Final

import msgspec

from sdtui.params import GenerationParams, check_params
from sdtui.protocol import (
    BranchPoint,
    ImageSaved,
    JobResumed,
    JobRow,
    JobStarted,
    JobState,
    Message,
    PreviewReady,
    Refused,
    ResumePoint,
    StepFinished,
    Submit,
)
from sdtui.text import safe_text

_JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The name goes into file names and onto command lines."""
_MAX_PREVIEW_PX: Final = 1024
MAX_PRIORITY: Final = 100


class Job:
    """A job that waits, is paused, or runs."""

    def __init__(self, submit: Submit, row: JobRow, rank: int = 0, seed: int | None = None) -> None:
        self.submit = submit
        self.row = row
        self.rank = rank
        """Among jobs of one priority the lowest one runs first."""
        self.seed = seed
        """The seed it began with; None while it has not begun."""
        self.preview: PreviewReady | None = None
        """The latest one, for a client that comes later."""
        self.asked_at: float | None = None
        """Monotonic time of the first request to stop or pause it."""
        self.asked: Message | None = None
        """The strongest such request."""
        self.deadline: asyncio.TimerHandle | None = None
        self.was_begun_before = False
        """Whether the worker that has it now is not the first one, or not for the first time."""

    @classmethod
    def new(cls, submit: Submit, created_at: float, copy_of: str | None = None) -> Job:
        """A job that nobody has begun."""
        row = JobRow(
            job=submit.job,
            state="queued",
            params=submit.params,
            created_at=created_at,
            priority=submit.priority,
            copy_of=copy_of,
            branch=submit.branch,
        )
        return cls(submit, row)

    @property
    def name(self) -> str:
        """Its name."""
        return self.row.job

    @property
    def parent(self) -> str | None:
        """The job that it branches from."""
        return None if self.submit.branch is None else self.submit.branch.job

    @property
    def order(self) -> tuple[int, int, str]:
        """The key by which waiting jobs are sorted; no two are equal."""
        return -self.row.priority, self.rank, self.row.job

    @property
    def begun(self) -> bool:
        """Whether a worker has had it before; then its parameters are fixed, though we may not know the seed it drew."""
        return self.row.started_at is not None

    def change(self, **fields: object) -> None:
        """Change what clients see of it."""
        self.row = msgspec.structs.replace(self.row, **fields)

    def for_worker(self) -> Submit:
        """What the worker gets."""
        self.was_begun_before = self.begun
        if not self.begun:
            return self.submit
        row = self.row
        point = ResumePoint(seed=self.seed, batch_index=row.batch_index, steps_done=row.steps_done, attempt=row.attempts)
        return msgspec.structs.replace(self.submit, resume=point)

    def dispatched(self) -> None:
        """The worker has it now."""
        self.change(state="running", started_at=time.time(), reason=None)
        self.preview = self.asked_at = self.asked = None

    def leave_worker(self, state: JobState, reason: str | None) -> None:
        """It is off the worker, and neither lost nor done."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        self.change(state=state, reason=reason)

    def is_known(self, event: Message) -> bool:
        """Whether an event only repeats what is recorded: a step from the tape, or a picture from an earlier run."""
        if isinstance(event, StepFinished):
            return event.replayed and (event.batch_index, event.step_index) < (self.row.batch_index, self.row.steps_done)
        return isinstance(event, ImageSaved) and event.path in self.row.images

    def note(self, event: Message) -> None:
        """Take note of an event of its run."""
        match event:
            case JobStarted(params=params, seed=seed):
                self.seed = seed
                self.change(params=params)
            case JobResumed(batch_index=batch, steps_done=steps):
                # a longer tape than our record: the steps between are told next; a shorter one: they are made again
                if (batch, steps) < (self.row.batch_index, self.row.steps_done):
                    self.change(batch_index=batch, steps_done=steps)
            case StepFinished():
                self.change(batch_index=event.batch_index, steps_done=event.step_index + 1, total_steps=event.total_steps)
            case ImageSaved(path=path):
                self.change(images=(*self.row.images, path))
            case PreviewReady():
                self.preview = event


def check_submit(submit: Submit) -> Refused | None:
    """What is wrong with a submission as far as the server can tell; None when nothing is."""

    def refused(field: str, message: str) -> Refused:
        return Refused(message=message, field=field, job=submit.job)

    if not _JOB_NAME.fullmatch(submit.job):
        return refused("job", "A job's name has 1 to 64 letters, digits, dots, dashes or underscores.")
    if not PurePath(submit.output_dir).is_absolute() or "\0" in submit.output_dir:
        return refused("output", "The output directory must be an absolute path: the server works elsewhere than you do.")
    preview = submit.preview
    if not (0 < preview.max_per_s <= 60 and 1 <= preview.max_px <= _MAX_PREVIEW_PX and 0 < preview.budget <= 1):
        return refused(
            "preview", f"Previews take up to 60 frames a second, up to {_MAX_PREVIEW_PX} px and a budget above 0 up to 1."
        )
    refused_branch = None if submit.branch is None else check_branch(submit.job, submit.branch)
    return refused_branch or check_job_params(submit.job, submit.params) or check_priority(submit.job, submit.priority)


def check_branch(job: str, point: BranchPoint) -> Refused | None:
    """What is wrong with where a job branches off, as far as that shows without the parent."""
    if not _JOB_NAME.fullmatch(point.job):
        message = f"There is no job {safe_text(point.job, limit=64)!r} to branch from."
    elif point.job == job:
        message = "A job cannot branch from itself."
    elif point.step < 1:
        message = f"A branch takes over 1 step or more; it is {point.step}."
    elif point.batch_index < 0 or point.picture < 0:
        message = f"Batches and pictures count from 0; they are {point.batch_index} and {point.picture}."
    else:
        return None
    return Refused(message=message, field="branch", job=job)


def check_job_params(job: str, params: GenerationParams) -> Refused | None:
    """What is wrong with a job's parameters as far as the server can tell."""
    for problem in check_params(params):
        return Refused(message=problem.message, field=problem.field, job=job)
    if params.model.startswith(("./", "../", "~")) or params.model in (".", ".."):
        message = "A model's folder must be an absolute path: the server works elsewhere than you do."
        return Refused(message=message, field="model", job=job)
    if params.init_image is not None and not PurePath(params.init_image).is_absolute():
        message = "The initial image must be an absolute path: the server works elsewhere than you do, and fetches nothing."
        return Refused(message=message, field="init_image", job=job)
    return None


def unknown_job(name: str) -> Refused:
    """The answer about a job that nobody knows."""
    return Refused(message=f"There is no job {safe_text(name, limit=64)!r}.", field="job", job=name)


def check_priority(job: str, priority: int) -> Refused | None:
    """What is wrong with a priority."""
    if abs(priority) <= MAX_PRIORITY:
        return None
    return Refused(message=f"A priority is from -{MAX_PRIORITY} to {MAX_PRIORITY}; it is {priority}.", field="priority", job=job)
