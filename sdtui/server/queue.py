"""The queue: which jobs wait, which one is on the worker, and what becomes of it when either dies.

Memory decides, the database follows in order; a job is told to be queued only once it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from sdtui.protocol import (
    JOB_STOPS,
    Cancel,
    JobCancelled,
    JobChanged,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobRow,
    JobStarted,
    Message,
    Pause,
    QueueChanged,
    Refused,
    StorageFreed,
    StorageFull,
    Submit,
    WorkerDied,
)
from sdtui.server.job import Job, check_submit
from sdtui.server.leftover import remove_parts
from sdtui.server.limits import Limits
from sdtui.server.order import WaitingJobs
from sdtui.server.store import Store
from sdtui.server.tapes import Tapes
from sdtui.settings import Server as ServerSettings
from sdtui.text import safe_text

SERVER_DIED: Final = "The server ended without warning while this job was running."
SERVER_STOPPED: Final = "The server was stopped while this job was running."
_STRENGTH: Final = {"after_image": 1, "after_step": 2, "now": 3}
_FUTILE_JOBS: Final = 2
"""After so many jobs under which no worker got to work, it is not the jobs' fault, and the rest is kept."""
_AT_A_TIME: Final = 100
"""Cancelled jobs between two turns of the others: a few milliseconds."""
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


class JobQueue:
    """Jobs that wait, those that are paused, and the one that runs. `emit` records and sends an event."""

    def __init__(
        self,
        store: Store,
        tapes: Tapes,
        worker: Worker,
        *,
        emit: Callable[[Message], None],
        limits: Limits,
        settings: ServerSettings,
    ) -> None:
        self._store = store
        self._tapes = tapes
        self._worker = worker
        self._emit = emit
        self._limits = limits
        self._settings = settings
        self._arriving: dict[str, str | None] = {}
        """Jobs on their way into the database, and the job that each branches from."""
        self._submitting = asyncio.Lock()
        self._stopping = False
        self._free = asyncio.Event()
        self._tidying: set[asyncio.Task[None]] = set()
        self._worker_trouble = ""
        self._disk_trouble = ""
        self._futile_jobs = 0
        self._tidied_at = -math.inf
        self.held = False
        """Nothing is begun until somebody says so."""
        self.waiting = WaitingJobs()
        self.paused: dict[str, Job] = {}
        self.running: Job | None = None
        store.on_trouble = self.advance

    # --- looking at it ----------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there is anything to do without being asked again."""
        return bool(self.running or self._arriving or (self.waiting and not self.held))

    def find(self, name: str) -> Job | None:
        """A job that has not ended."""
        if self.running is not None and self.running.name == name:
            return self.running
        return self.waiting.get(name) or self.paused.get(name)

    def has(self, name: str) -> bool:
        """Whether this job has not ended."""
        return self.find(name) is not None

    def unended(self) -> Iterator[Job]:
        """The running job, those that wait, and the paused ones."""
        running = () if self.running is None else (self.running,)
        return chain(running, self.waiting, self.paused.values())

    def branch_of(self, name: str) -> str | None:
        """A job that has not ended and branches from this one."""
        branches = chain(self._arriving.items(), ((job.name, job.parent) for job in self.unended()))
        return next((branch for branch, parent in branches if parent == name), None)

    def needed_names(self) -> set[str]:
        """The jobs whose recorded steps are still needed: those that have not ended, and what these branch from."""
        return {job.name for job in self.unended()} | self._parents()

    def __len__(self) -> int:
        return len(self.waiting) + len(self.paused) + (self.running is not None)

    def rows(self, limit: int, offset: int = 0) -> list[JobRow]:
        """The running job, those that wait in the order in which they will run, and the paused ones."""
        running = [] if self.running is None else [self.running]
        first = running[offset : offset + limit]
        start = max(0, offset - len(running))
        waiting = self.waiting.slice(start, start + limit - len(first))
        rest = limit - len(first) - len(waiting)
        start = max(0, start - len(self.waiting))
        paused = list(self.paused.values())[start : start + rest]
        return [job.row for job in (*first, *waiting, *paused)]

    def status(self) -> QueueChanged:
        """How the queue stands."""
        return QueueChanged(
            queued=len(self.waiting),
            running=None if self.running is None else self.running.name,
            paused=len(self.paused),
            held=self.held,
            trouble=safe_text(self._store.trouble or self._disk_trouble or self._worker_trouble),
        )

    def changed(self, job: Job) -> JobChanged:
        """A job as it is now, and its place."""
        waits = job.name in self.waiting
        position = self.waiting.position(job) + (self.running is not None) if waits else None
        return JobChanged(job=job.name, row=job.row, position=position)

    # --- beginning and stopping -------------------------------------------------------------------------------------

    def restore(self, jobs: Iterable[Job], values: dict[str, str]) -> None:
        """Take over what the last server left; what was running then goes on first."""
        self.held = values.get("held") == "yes"
        cut_short: list[Job] = []
        waiting = []
        for job in jobs:
            if job.row.state == "running":
                cut_short.append(job)
            elif job.row.state == "paused":
                self.paused[job.name] = job
            else:
                waiting.append(job)
        self.waiting = WaitingJobs(waiting)
        for job in cut_short:
            self._interrupt(job, SERVER_DIED)
            self._later(asyncio.to_thread(remove_parts, Path(job.submit.output_dir)))
        self._tidy_later()

    async def stop(self) -> None:
        """Begin nothing any more; give what runs the time to end its step. All that is left is for the next server."""
        self._stopping = True
        if self.running is not None:
            self._free.clear()
            self._worker.send(Pause(job=self.running.name))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), self._limits.pause_at_stop_s)

    async def end(self) -> None:
        """The worker is gone for good."""
        if self.running is not None:
            self._after_death(self.running, SERVER_STOPPED)
        await asyncio.gather(*self._tidying, return_exceptions=True)

    # --- jobs in ----------------------------------------------------------------------------------------------------

    async def submit(self, submit: Submit, copy_of: str | None = None) -> Refused | None:
        """Queue a job, or say why not."""
        refused = check_submit(submit) or self._check_room(submit)
        if refused is not None:
            return refused
        job = Job.new(msgspec.structs.replace(submit, resume=None), time.time(), copy_of)  # only we know where it goes on
        self._arriving[job.name] = job.parent  # from here on the parent's steps stay
        try:
            refused = await self.check_parent(submit)
            if refused is not None:
                return refused
            async with self._submitting:  # first come, first in the order
                return await self._store_and_queue(job)
        finally:
            self._arriving.pop(job.name, None)

    async def check_parent(self, submit: Submit) -> Refused | None:
        """Whether what a branch branches from is there; None where it is, or where the job is no branch."""
        parent = None if submit.branch is None else submit.branch.job
        if parent is None or self.has(parent):
            return None
        if await self._store.job(parent) is None:
            message = f"There is no job {parent} to branch from."
        elif not await self._tapes.has_steps(parent):
            message = (
                f"Job {parent} has nothing to branch from: its recorded steps were removed. Duplicate it to record them anew."
            )
        else:
            return None
        return Refused(message=message, field="branch", job=submit.job)

    async def _store_and_queue(self, job: Job) -> Refused | None:
        job.rank = self.waiting.last_rank(job.row.priority)
        before = self.waiting.position(job) + (self.running is not None)
        queued = JobQueued(job=job.name, params=job.row.params, position=before)
        try:
            if not await self._store.add_job(job, queued):
                return Refused(message=f"There is a job {job.name} already.", field="job", job=job.name)
        except sqlite3.Error as error:
            log.error("job %s could not be stored: %s", job.name, error)
            return Refused(message=f"The job could not be stored in {self._store.path}: {error}.", job=job.name)
        self.waiting.add(job)
        self._emit(queued)
        self.wake()
        return None

    def _check_room(self, submit: Submit) -> Refused | None:
        if self._stopping:
            return Refused(message="The server is stopping; try again in a moment.", job=submit.job)
        if self.has(submit.job):
            return Refused(message=f"There is a job {submit.job} already.", field="job", job=submit.job)
        if len(self) + len(self._arriving) >= self._settings.max_queued:
            message = f"{len(self):,} jobs wait already, which is the limit (max_queued in [server] of the settings)."
            return Refused(message=message, job=submit.job)
        return None

    def wake(self) -> None:
        """Somebody wants something done: also after giving up on workers."""
        if self.waiting and not self.held:
            self._worker.wake()
        self.advance()

    def advance(self) -> None:
        """Hand the next job to the worker if that is free, and say how the queue stands."""
        able = self._worker.ready and not self._stopping and not self.held and not self._store.trouble
        if self.running is None and self.waiting and able:
            self.running = self.waiting.next()
            submit = self.running.for_worker()
            self.running.dispatched()
            self._store.change(self.running.name, state="running", started_at=self.running.row.started_at, reason=None)
            self._worker.send(submit)
        self.announce()

    def announce(self) -> None:
        """Say how the queue stands."""
        self._emit(self.status())

    def put_back(self, job: Job) -> None:
        """A job that was off the queue is the next one of its priority."""
        self.waiting.prepend(job)
        row = job.row
        self._store.change(job.name, state=row.state, rank=job.rank, attempts=row.attempts, finished_at=None, reason=row.reason)

    # --- jobs out ---------------------------------------------------------------------------------------------------

    def cancel(self, command: Cancel) -> bool:
        """Drop a job that waits, or stop the running one; False when it has ended or never was."""
        waiting = self.waiting.pop(command.job) or self.paused.pop(command.job, None)
        if waiting is not None:
            self._emit_cancelled(waiting, keep=command.when == "after_step")
            self.advance()
            return True
        if self.running is None or self.running.name != command.job:
            return False
        self._ask_to_stop(self.running, command)
        return True

    async def cancel_waiting(self) -> int:
        """Cancel every job that waits; how many there were."""
        jobs = list(self.waiting)
        for number, job in enumerate(jobs):
            if self.waiting.pop(job.name) is not None:
                self._emit_cancelled(job, keep=False)
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # ten thousand of them must not hold up everybody else
        self.advance()
        return len(jobs)

    def _emit_cancelled(self, job: Job, *, keep: bool) -> None:
        row = job.row
        if row.steps_done and not keep:
            self._forget_steps(job)
        self._emit(JobCancelled(job=job.name, kept_steps=row.steps_done if keep else 0, images=row.images))

    def pause(self, name: str) -> Refused | None:
        """Take a job out of the queue, or off the worker at the end of its step; None when that is done or under way."""
        job = self.waiting.pop(name)
        if job is not None:
            self._pause(job)
            self.advance()
            return None
        if self.running is not None and self.running.name == name:
            if isinstance(self.running.asked, Cancel):
                return Refused(message=f"Job {name} is being cancelled.", field="job", job=name)
            self._ask_to_stop(self.running, Pause(job=name))
            return None
        why = "is paused already" if name in self.paused else "does not wait or run"
        return Refused(message=f"Job {name} {why}.", field="job", job=name)

    def _pause(self, job: Job, event: JobPaused | None = None) -> None:
        job.leave_worker("paused", None)
        self.paused[job.name] = job
        row = job.row
        self._emit(event or JobPaused(job=job.name, batch_index=row.batch_index, steps_done=row.steps_done))

    def _ask_to_stop(self, running: Job, command: Cancel | Pause) -> None:
        if _strength(command) <= _strength(running.asked):
            return
        running.asked, running.asked_at = command, time.monotonic()
        if isinstance(command, Cancel) and command.when == "now":
            patience_s = self._limits.cancel_while_loading_s if self._worker.loading else self._limits.cancel_s
            running.deadline = asyncio.get_running_loop().call_later(patience_s, self._force_end, running, patience_s)
        self._worker.send(command)

    def _force_end(self, running: Job, patience_s: float) -> None:
        if self.running is running:
            self._worker.kill(f"job {running.name} was cancelled and had not stopped after {patience_s:.0f} s")

    # --- the running job --------------------------------------------------------------------------------------------

    def on_job_event(self, event: JobEvent | Refused) -> None:
        """An event of the running job; those of any other are a worker's mistake."""
        running = self.running
        if running is None or event.job != running.name:
            log.warning("the worker sent a %s of job %s, which it does not have", type(event).__name__, event.job)
            return
        if isinstance(event, Refused):
            event = JobFailed(job=running.name, message=event.message, field=event.field)
        if running.is_known(event):
            return
        running.note(event)
        if isinstance(event, JOB_STOPS):
            self._off_worker(running, event)
            return
        if isinstance(event, JobStarted):
            self._futile_jobs = 0
        self._emit(event)
        if isinstance(event, StorageFull | StorageFreed):
            self._disk_trouble = event.message if isinstance(event, StorageFull) else ""
            self.announce()

    def _off_worker(self, running: Job, event: Message) -> None:
        """The worker has let go of the running job."""
        self._let_go(running)
        if isinstance(event, JobPaused) and self._stopping and not isinstance(running.asked, Pause):
            self._interrupt(running, SERVER_STOPPED)
        elif isinstance(event, JobPaused):
            self._pause(running, event)
        else:
            if isinstance(event, JobCancelled) and not event.kept_steps:
                self._forget_steps(running)
            self._emit(event)
            if running.was_begun_before:  # the worker that died may have left a file beside a picture that it named
                self._remove_parts_of(running)
        self.advance()
        self._tidy_later()

    def _let_go(self, running: Job) -> None:
        if running.deadline is not None:
            running.deadline.cancel()
        self.running = None
        self._disk_trouble = ""
        self._free.set()

    def _interrupt(self, job: Job, reason: str, died: WorkerDied | None = None) -> None:
        """Queue a job again that was cut short, by its worker's death or by the server's end."""
        job.leave_worker("interrupted", reason)
        self.waiting.prepend(job)
        attempts, limit = job.row.attempts, self._settings.max_attempts
        attempt, log_tail = (0, "") if died is None else (attempts, died.log_tail)
        self._emit(JobInterrupted(job=job.name, reason=reason, attempt=attempt, max_attempts=limit, log_tail=log_tail))
        self._store.change(job.name, rank=job.rank)

    # --- the worker's life ------------------------------------------------------------------------------------------

    def on_worker_ready(self) -> None:
        """There is a worker that takes jobs."""
        self._worker_trouble = ""
        self.advance()

    def on_worker_died(self, died: WorkerDied) -> None:
        """The running job ends as it was asked to, or goes on with the next worker, or has had enough of them."""
        if self.running is not None:
            self._count_death(self.running, self.running.row.attempts + 1)
            self._after_death(self.running, died.reason, died)
        self.advance()

    def on_worker_given_up(self, died: WorkerDied) -> None:
        """Workers die before they get to work: the job that one had is failed, the others are kept until somebody asks."""
        if self.running is not None:
            self._count_death(self.running, max(self.running.row.attempts, self._settings.max_attempts) + 1)
            self._futile_jobs += 1
            self._after_death(self.running, died.reason, died)
            if self._futile_jobs < _FUTILE_JOBS and self.waiting and not self.held:
                self._worker.wake()
                self.announce()
                return
        self._futile_jobs = 0
        self._worker_trouble = f"No worker can be started, the jobs are kept. {died.reason}"
        self.announce()

    def _count_death(self, job: Job, attempts: int) -> None:
        job.change(attempts=attempts)
        self._store.change(job.name, attempts=attempts)

    def _after_death(self, job: Job, reason: str, died: WorkerDied | None = None) -> None:
        self._let_go(job)
        self._settle(job, reason, died)
        if job.row.state == "running":  # it has ended, so nobody takes up what it left half-written
            self._remove_parts_of(job)

    def _settle(self, job: Job, reason: str, died: WorkerDied | None) -> None:
        """Say what becomes of a job whose worker died."""
        row, asked = job.row, job.asked
        if isinstance(asked, Cancel):
            keep = asked.when == "after_step"
            if not keep:
                self._forget_steps(job)
            kept = row.steps_done if keep else 0
            self._emit(
                JobCancelled(job=job.name, latency_s=_since(job.asked_at), kept_steps=kept, images=row.images, detail=reason)
            )
        elif isinstance(asked, Pause):
            self._pause(job)
        elif row.attempts > self._settings.max_attempts:
            detail = died.log_tail if died is not None else ""
            self._emit(JobFailed(job=job.name, message=f"{reason} {_times(row.attempts)}", detail=detail))
        else:
            self._interrupt(job, reason, died)

    # --- tapes ------------------------------------------------------------------------------------------------------

    def _forget_steps(self, job: Job) -> None:
        job.change(batch_index=0, steps_done=0)
        self._store.change(job.name, batch_index=0, steps_done=0)
        self._later(self._forget_once_stored(job.name))

    async def _forget_once_stored(self, name: str) -> None:
        await self._store.flush()  # first that it was cancelled: a crash between must not leave a job without its steps
        await self._tapes.forget_steps(name, self._parents)

    def _tidy_later(self) -> None:
        """Not after every one of many short jobs: counting thousands of tapes takes a while."""
        now = time.monotonic()
        if now - self._tidied_at >= self._limits.tidy_s:
            self._tidied_at = now
            self._later(self._tapes.tidy(self.needed_names))

    def _parents(self) -> set[str]:
        """What jobs that have not ended branch from."""
        return {name for name in chain((job.parent for job in self.unended()), self._arriving.values()) if name is not None}

    def _remove_parts_of(self, job: Job) -> None:
        self._later(asyncio.to_thread(remove_parts, Path(job.submit.output_dir), job.name))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)


def _strength(command: Message | None) -> int:
    if isinstance(command, Cancel):
        return _STRENGTH[command.when] + 1
    return 1 if isinstance(command, Pause) else 0


def _times(attempts: int) -> str:
    return f"{attempts} workers died under this job." if attempts > 1 else "It is not begun again."


def _since(then: float | None) -> float:
    return 0.0 if then is None else time.monotonic() - then
