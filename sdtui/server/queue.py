"""The queue: first in, first out, one job at a time on the one worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Final, Protocol

from sdtui.params import check_params
from sdtui.protocol import (
    JOB_ENDS,
    Cancel,
    JobCancelled,
    JobEvent,
    JobFailed,
    JobQueued,
    JobRow,
    Message,
    PreviewReady,
    QueueChanged,
    Refused,
    Submit,
    WorkerDied,
)
from sdtui.server.limits import Limits
from sdtui.server.store import Store
from sdtui.text import safe_text

_JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The name goes into file names and onto command lines."""
_MAX_PREVIEW_PX: Final = 1024
log = logging.getLogger(__name__)


class Worker(Protocol):
    """What the queue needs of the supervisor."""

    ready: bool

    @property
    def loading(self) -> bool:
        """Whether it is busy with imports or a model."""
        ...

    def send(self, message: Message) -> None:
        """Send a command."""

    def kill(self, why: str) -> None:
        """End this worker; the next one starts."""

    def wake(self) -> None:
        """Try again after giving up."""


class Job:
    """A job that waits or runs."""

    def __init__(self, submit: Submit, created_at: float) -> None:
        self.submit = submit
        self.created_at = created_at
        self.started_at: float | None = None
        self.preview: PreviewReady | None = None
        """The latest one, for a client that comes later."""
        self.cancelled_at: float | None = None
        """Monotonic time of the first request to stop it."""
        self.deadline: asyncio.TimerHandle | None = None

    def row(self) -> JobRow:
        """The job as clients see it."""
        return JobRow(
            job=self.submit.job,
            state="queued" if self.started_at is None else "running",
            params=self.submit.params,
            created_at=self.created_at,
            started_at=self.started_at,
        )


class JobQueue:
    """Jobs that wait, and the one that runs. `emit` records and sends an event."""

    def __init__(self, store: Store, worker: Worker, emit: Callable[[Message], None], limits: Limits, max_queued: int) -> None:
        self._store = store
        self._worker = worker
        self._emit = emit
        self._limits = limits
        self._max_queued = max_queued
        self._arriving: set[str] = set()
        self._stopping = False
        self._free = asyncio.Event()
        self.waiting: dict[str, Job] = {}
        self.running: Job | None = None

    @property
    def busy(self) -> bool:
        """Whether any job waits or runs."""
        return bool(self.waiting or self.running or self._arriving)

    def has(self, job: str) -> bool:
        """Whether this job waits or runs."""
        return job in self.waiting or (self.running is not None and self.running.submit.job == job)

    def restore(self, queued: Iterable[tuple[Submit, float]]) -> None:
        """Take over what waited when the last server left."""
        self.waiting.update((submit.job, Job(submit, created_at)) for submit, created_at in queued)

    def rows(self) -> list[JobRow]:
        """The running and the waiting jobs, oldest first."""
        running = [] if self.running is None else [self.running]
        return [job.row() for job in (*running, *self.waiting.values())]

    async def stop(self) -> None:
        """Begin nothing any more; cancel what runs and give it time to end. What waits is for the next server."""
        self._stopping = True
        if self.running is not None:
            self._cancel_running(self.running)
            self._free.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), self._limits.cancel_s)

    def end_running(self) -> None:
        """The worker was taken from under the running job."""
        if self.running is not None:
            self._emit_end(JobCancelled(job=self.running.submit.job, latency_s=_since(self.running.cancelled_at)))

    async def submit(self, submit: Submit) -> Refused | None:
        """Queue a job, or say why not."""
        refused = check_submit(submit) or self._check_room(submit)
        if refused is not None:
            return refused
        queued = JobQueued(job=submit.job, params=submit.params, position=len(self.waiting) + (self.running is not None))
        self._arriving.add(submit.job)
        try:
            if not await self._store.add_job(submit, queued):
                return Refused(message=f"There is a job {submit.job} already.", field="job", job=submit.job)
        except sqlite3.Error as error:
            log.error("job %s could not be stored: %s", submit.job, error)
            return Refused(message=f"The job could not be stored in {self._store.path}: {error}.", job=submit.job)
        finally:
            self._arriving.discard(submit.job)
        self.waiting[submit.job] = Job(submit, time.time())
        self._emit(queued)
        self._worker.wake()
        self.advance()
        return None

    def _check_room(self, submit: Submit) -> Refused | None:
        if self._stopping:
            return Refused(message="The server is stopping; try again in a moment.", job=submit.job)
        if len(self.waiting) + len(self._arriving) >= self._max_queued:
            message = f"{len(self.waiting):,} jobs wait already, which is the limit (max_queued in [server] of the settings)."
            return Refused(message=message, job=submit.job)
        return None

    def advance(self) -> None:
        """Hand the next job to the worker if that is free, and say how the queue stands."""
        if self.running is None and self.waiting and self._worker.ready and not self._stopping:
            name = next(iter(self.waiting))
            self.running = self.waiting.pop(name)
            self.running.started_at = time.time()
            self._store.dispatched(name)
            self._worker.send(self.running.submit)
        running = None if self.running is None else self.running.submit.job
        self._emit(QueueChanged(queued=len(self.waiting), running=running))

    async def cancel(self, job: str) -> Refused | None:
        """Drop a waiting job, stop the running one, or say why neither."""
        if self.waiting.pop(job, None) is not None:
            self._emit_end(JobCancelled(job=job))
            return None
        if self.running is not None and self.running.submit.job == job:
            self._cancel_running(self.running)
            return None
        state = await self._store.state(job)
        known = f"Job {job} has ended already ({state})." if state else f"There is no job {safe_text(job, limit=64)!r}."
        return Refused(message=known, field="job", job=job)

    def _cancel_running(self, running: Job) -> None:
        if running.cancelled_at is not None:
            return
        running.cancelled_at = time.monotonic()
        patience_s = self._limits.cancel_while_loading_s if self._worker.loading else self._limits.cancel_s
        running.deadline = asyncio.get_running_loop().call_later(patience_s, self._force_end, running, patience_s)
        self._worker.send(Cancel(job=running.submit.job))

    def _force_end(self, running: Job, patience_s: float) -> None:
        if self.running is running:
            self._worker.kill(f"job {running.submit.job} was cancelled and had not stopped after {patience_s:.0f} s")

    def on_job_event(self, event: JobEvent | Refused) -> None:
        """An event of the running job; those of any other are a worker's mistake."""
        if self.running is None or event.job != self.running.submit.job:
            log.warning("the worker sent a %s of job %s, which it does not have", type(event).__name__, event.job)
            return
        if isinstance(event, Refused):
            event = JobFailed(job=self.running.submit.job, message=event.message, field=event.field)
        if isinstance(event, PreviewReady):
            self.running.preview = event
        if isinstance(event, JOB_ENDS):
            self._emit_end(event)
        else:
            self._emit(event)

    def on_worker_died(self, died: WorkerDied) -> None:
        """The running job ends with the worker: as it was asked to, or with the reason."""
        if self.running is None:
            return
        job = self.running.submit.job
        if self.running.cancelled_at is not None:
            self._emit_end(JobCancelled(job=job, latency_s=_since(self.running.cancelled_at)))
        else:
            self._emit_end(JobFailed(job=job, message=died.reason, detail=died.log_tail))

    def fail_waiting(self, died: WorkerDied) -> None:
        """No worker can be started: whoever waits should know, and not wait on."""
        for job in list(self.waiting):
            del self.waiting[job]
            message = f"No worker could be started, so this job was not begun. {died.reason}"
            self._emit_end(JobFailed(job=job, message=message, detail=died.log_tail))

    def _emit_end(self, event: Message) -> None:
        job = getattr(event, "job", "")
        if self.running is not None and self.running.submit.job == job:
            if self.running.deadline is not None:
                self.running.deadline.cancel()
            self.running = None
            self._free.set()
        self._emit(event)
        self.advance()


def check_submit(submit: Submit) -> Refused | None:
    """What is wrong with a submission as far as the server can tell; None when nothing is."""

    def refused(field: str, message: str) -> Refused:
        return Refused(message=message, field=field, job=submit.job)

    if not _JOB_NAME.fullmatch(submit.job):
        return refused("job", "A job's name has 1 to 64 letters, digits, dots, dashes or underscores.")
    for problem in check_params(submit.params):
        return refused(problem.field, problem.message)
    if not PurePath(submit.output_dir).is_absolute() or "\0" in submit.output_dir:
        return refused("output", "The output directory must be an absolute path: the server works elsewhere than you do.")
    if submit.params.model.startswith(("./", "../", "~")) or submit.params.model in (".", ".."):
        return refused("model", "A model's folder must be an absolute path: the server works elsewhere than you do.")
    preview = submit.preview
    if not (0 < preview.max_per_s <= 60 and 1 <= preview.max_px <= _MAX_PREVIEW_PX and 0 < preview.budget <= 1):
        return refused(
            "preview", f"Previews take up to 60 frames a second, up to {_MAX_PREVIEW_PX} px and a budget above 0 up to 1."
        )
    return None


def _since(then: float | None) -> float:
    return 0.0 if then is None else time.monotonic() - then
