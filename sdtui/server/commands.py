"""What clients ask of the queue: one function a command, which answers with a message for whoever asked."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from sdtui.protocol import (
    Cancel,
    CancelWaiting,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    EndedDeleted,
    GetJob,
    Hold,
    JobDeleted,
    Jobs,
    ListJobs,
    Message,
    Move,
    Pause,
    QueueCommand,
    Refused,
    Resume,
    Retry,
    SetPriority,
    WaitingCancelled,
)
from sdtui.server.database import encode_value
from sdtui.server.job import Job, check_job_params, check_priority, unknown_job
from sdtui.server.queue import JobQueue
from sdtui.server.replay import fitting
from sdtui.server.store import Store
from sdtui.server.tapes import Tapes

MAX_LISTED_JOBS: Final = 1000


class QueueCommands:
    """The queue as clients may change it. Each method returns the answer; None where the events are the answer."""

    def __init__(self, queue: JobQueue, store: Store, tapes: Tapes) -> None:
        self._queue = queue
        self._store = store
        self._tapes = tapes

    async def carry_out(self, command: QueueCommand) -> Message | None:
        """Do what a client asks."""
        match command:
            case Cancel():
                return None if self._queue.cancel(command) else await self._not_unended(command.job)
            case CancelWaiting():
                return WaitingCancelled(count=await self._queue.cancel_waiting())
            case Pause(job=job):
                return self._queue.pause(job) if self._queue.has(job) else await self._not_unended(job)
            case Resume(job=job):
                return await self._resume(job)
            case Retry(job=job):
                return await self._retry(job)
            case Duplicate():
                return await self._duplicate(command)
            case Edit():
                return await self._edit(command)
            case Move() | SetPriority():
                return await self._reorder(command)
            case Hold(on=on):
                return await self._hold(on)
            case Delete(job=job):
                return await self._delete(job)
            case DeleteEnded(older_than_s=older_than_s):
                return await self._delete_ended(older_than_s)

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self, command: ListJobs) -> Jobs:
        """A page of jobs."""
        limit, offset = max(0, min(command.limit, MAX_LISTED_JOBS)), max(0, command.offset)
        counts = await self._store.counts()
        if command.which == "queue":
            rows, total = self._queue.rows(limit, offset), len(self._queue)
        else:
            rows = await self._store.jobs(command.which, limit, offset)
            total = sum(counts.values()) - (len(self._queue) if command.which == "ended" else 0)
        return Jobs(jobs=fitting(rows), total=total, which=command.which, offset=offset, counts=counts)

    async def get(self, command: GetJob) -> Message:
        """One job as it is now."""
        job = self._queue.find(command.job) or await self._store.job(command.job)
        return unknown_job(command.job) if job is None else self._queue.changed(job)

    async def _not_unended(self, name: str) -> Refused:
        """Why a command for jobs that have not ended is refused."""
        job = await self._store.job(name)
        if job is None:
            return unknown_job(name)
        return Refused(message=f"Job {name} has ended already ({job.row.state}).", field="job", job=name)

    # --- jobs that have not ended -----------------------------------------------------------------------------------

    async def _resume(self, name: str) -> Message:
        job = self._queue.paused.pop(name, None)
        if job is None:
            if self._queue.has(name):
                return Refused(message=f"Job {name} is not paused.", field="job", job=name)
            return await self._not_unended(name)
        job.change(state="queued", reason=None)
        return await self._put_back(job)

    async def _put_back(self, job: Job) -> Message:
        self._queue.put_back(job)
        changed = self._queue.changed(job)
        await self._store.flush()
        self._queue.wake()
        return changed

    async def _edit(self, command: Edit) -> Message:
        job = self._queue.find(command.job)
        if job is None:
            return await self._not_unended(command.job)
        if job is self._queue.running or job.begun:
            message = f"Job {command.job} was begun already, so its parameters are fixed. Duplicate it to change them."
            return Refused(message=message, field="job", job=command.job)
        refused = check_job_params(command.job, command.params)
        if refused is not None:
            return refused
        job.submit = msgspec.structs.replace(job.submit, params=command.params)
        job.change(params=command.params)
        self._store.change(job.name, submit=encode_value(job.submit), params=encode_value(command.params))
        changed = self._queue.changed(job)
        await self._store.flush()
        self._queue.announce()
        return changed

    async def _reorder(self, command: Move | SetPriority) -> Message:
        job = self._queue.waiting.get(command.job)
        if job is None:
            if not self._queue.has(command.job):
                return await self._not_unended(command.job)
            return Refused(
                message=f"Job {command.job} does not wait, so it has no place to change.", field="job", job=command.job
            )
        if isinstance(command, Move):
            moved = self._queue.waiting.move(job, command.to)
        else:
            refused = check_priority(command.job, command.priority)
            if refused is not None:
                return refused
            moved = self._queue.waiting.set_priority(job, command.priority)
        for other in moved:
            self._store.change(other.name, rank=other.rank, priority=other.row.priority)
        changed = self._queue.changed(job)
        await self._store.flush()
        self._queue.announce()
        return changed

    async def _hold(self, on: bool) -> Message:
        self._queue.held = on
        self._store.set_queue_value("held", "yes" if on else "no")
        status = self._queue.status()
        await self._store.flush()
        self._queue.wake()
        return status

    # --- jobs in any state ------------------------------------------------------------------------------------------

    async def _duplicate(self, command: Duplicate) -> Message | None:
        source = self._queue.find(command.job) or await self._store.job(command.job)
        if source is None:
            return unknown_job(command.job)
        params = source.submit.params
        if command.same_seed and params.seed is None and source.seed is not None:
            params = msgspec.structs.replace(params, seed=source.seed)
        copy = msgspec.structs.replace(
            source.submit, job=command.new_job, params=params, priority=source.row.priority, resume=None
        )
        refused = await self._queue.submit(copy, copy_of=source.name)
        if refused is not None:
            return refused
        job = self._queue.find(command.new_job)
        return None if job is None else self._queue.changed(job)

    async def _retry(self, name: str) -> Message:
        if self._queue.has(name):
            return Refused(message=f"Job {name} has not ended, so it cannot be tried again.", field="job", job=name)
        job = await self._store.job(name)
        if job is None:
            return unknown_job(name)
        if job.row.state == "done":
            return Refused(message=f"Job {name} is done. Duplicate it to make its pictures again.", field="job", job=name)
        refused = await self._queue.check_parent(job.submit)
        if refused is not None:
            return refused
        steps = {} if await self._tapes.has_steps(name) else {"batch_index": 0, "steps_done": 0}
        if self._queue.has(name):  # somebody else was faster, while the disk was asked
            return self._queue.changed(job)
        job.change(state="queued", reason=None, finished_at=None, attempts=0, **steps)
        return await self._put_back(job)

    async def _delete(self, name: str) -> Message:
        job = await self._store.job(name)
        if self._queue.has(name):
            return Refused(message=f"Job {name} has not ended; cancel it first.", field="job", job=name)
        if job is None:
            return unknown_job(name)
        branch = self._queue.branch_of(name)
        if branch is not None:
            message = f"Job {name} is still needed: job {branch}, which has not ended, branches from it."
            return Refused(message=message, field="job", job=name)
        self._store.remove(name)
        await self._store.flush()
        await self._tapes.remove(name)
        return JobDeleted(job=name)

    async def _delete_ended(self, older_than_s: float) -> Message:
        ended = await self._store.ended_before(time.time() - older_than_s)
        needed = self._queue.needed_names()
        names = [name for name in ended if name not in needed]
        for name in names:
            self._store.remove(name)
        await self._store.flush()
        await self._tapes.remove(*names)
        return EndedDeleted(count=len(names))
