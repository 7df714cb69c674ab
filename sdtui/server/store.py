"""The history: `Database` in a thread of its own, with the events of a running job written in batches."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from sdtui.protocol import (
    HEADER_BYTES,
    JOB_ENDS,
    JOB_EVENTS,
    JobFailed,
    JobQueued,
    JobRow,
    Message,
    ModulesRan,
    PreviewReady,
    PromptTokens,
    StageFinished,
    StageStarted,
    StepDecoded,
    StepFinished,
    StepNotDecoded,
    encode,
)
from sdtui.server.database import END_STATES, Change, Database, Entry, Listed, QueueValue, Removal, Write
from sdtui.server.job import Job
from sdtui.server.schema import DatabaseError

FLUSH_S: Final = 0.25
"""How much of the step log a crash of the machine may cost; a step event must not cost a transaction."""
RETRY_S: Final = 5.0
"""A full disk is not written to in a tight loop."""
MAX_PENDING: Final = 50_000
"""While the disk is full, events are kept up to this many; the oldest step events go first."""
_CAN_WAIT: Final = (StageStarted, StageFinished, PromptTokens, StepFinished)
_NOT_RECORDED: Final = (PreviewReady, ModulesRan, StepDecoded, StepNotDecoded, JobQueued)
_P = ParamSpec("_P")
_T = TypeVar("_T")
log = logging.getLogger(__name__)


def is_recorded(event: Message) -> bool:
    """Whether an event belongs to a job's record.

    Previews, runs of modules and pictures of steps do not; `JobQueued` is written with the job.
    """
    return isinstance(event, JOB_EVENTS) and not isinstance(event, _NOT_RECORDED)


class Store:
    """Jobs, images and events. `record` and `change` return at once; order is kept."""

    def __init__(self, path: Path, executor: ThreadPoolExecutor, database: Database, last_seq: int) -> None:
        self.path = path
        self._executor = executor
        self._database = database
        self._seq = last_seq
        self.pending: list[Write] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._one_writer = asyncio.Lock()
        self._latest: dict[str, int] = {}
        self.trouble = ""
        """Why nothing can be written just now; empty when it can."""
        self.on_trouble: Callable[[], None] = lambda: None
        """Called when `trouble` changes."""

    @classmethod
    async def open(cls, path: Path) -> Store:
        """Open or make the database. Raises `DatabaseError`."""
        executor = ThreadPoolExecutor(1, "store")
        loop = asyncio.get_running_loop()
        try:
            database = await loop.run_in_executor(executor, Database, path)
            last_seq = await loop.run_in_executor(executor, database.last_seq)
        except sqlite3.Error as error:
            executor.shutdown(wait=False)
            raise DatabaseError(f"The database {path} cannot be read: {error}. Move it away to start a new one.") from error
        except DatabaseError:
            executor.shutdown(wait=False)
            raise
        return cls(path, executor, database, last_seq)

    async def _run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))

    # --- writing ----------------------------------------------------------------------------------------------------

    async def add_job(self, job: Job, event: Message) -> bool:
        """Store a waiting job with its first event; False when there is a job of that name. Raises `sqlite3.Error`."""
        entry = self._entry(event, job.name, encode(event))
        return await self._run(self._database.add_job, job, entry)

    def record(self, event: Message, job: str, frame: bytes) -> None:
        """Record an event of a job, given with its frame."""
        self.pending.append(self._entry(event, job, frame))
        self._schedule(FLUSH_S if isinstance(event, _CAN_WAIT) else 0.0)

    def change(self, job: str, **values: object) -> None:
        """Change columns of a job."""
        self.pending.append(Change(job, values))
        self._schedule(0.0)

    def remove(self, job: str) -> None:
        """Forget a job's record."""
        self.pending.append(Removal(job))
        self._schedule(0.0)

    def set_queue_value(self, key: str, value: str) -> None:
        """Keep something about the queue as a whole."""
        self.pending.append(QueueValue(key, value))
        self._schedule(0.0)

    def _entry(self, event: Message, job: str, frame: bytes) -> Entry:
        self._seq += 1
        if isinstance(event, JOB_ENDS):
            self._latest.pop(job, None)
        else:
            self._latest[job] = self._seq
        return Entry(self._seq, job, time.time(), event, frame[HEADER_BYTES:])

    def _schedule(self, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + after_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(after_s, self._start_flush)

    def _start_flush(self) -> None:
        task = asyncio.ensure_future(self.flush())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def flush(self) -> None:
        """Write what waits. When that fails it is kept, and tried again later."""
        async with self._one_writer:  # what failed must come before what came after it
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            entries, self.pending = self.pending, []
            if not entries:
                return
            try:
                await self._run(self._database.write, entries)
            except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
                log.exception("one of %d writes is wrong", len(entries))
                await self._write_singly(entries)
            except sqlite3.Error as error:
                self._keep(entries, error)
                return
        self._say("")

    async def _write_singly(self, entries: Sequence[Write]) -> None:
        """One write that can never succeed must not hold up the others for ever."""
        for entry in entries:
            try:
                await self._run(self._database.write, [entry])
            except sqlite3.Error:
                log.exception("%s could not be written and is left out", type(entry).__name__)

    def _keep(self, entries: list[Write], error: sqlite3.Error) -> None:
        log.error("the database %s could not be written: %s", self.path, error)
        self.pending = [*entries, *self.pending]
        self._drop_surplus()
        self._schedule(RETRY_S)
        self._say(f"The database {self.path} cannot be written ({error}); no job is begun until it can.")

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.on_trouble()

    def _drop_surplus(self) -> None:
        surplus = len(self.pending) - MAX_PENDING
        if surplus > 0:
            steps = (entry for entry in self.pending if isinstance(entry, Entry) and isinstance(entry.event, _CAN_WAIT))
            oldest = {entry.seq for entry, _ in zip(steps, range(surplus), strict=False)}
            self.pending = [entry for entry in self.pending if not isinstance(entry, Entry) or entry.seq not in oldest]

    # --- reading ----------------------------------------------------------------------------------------------------

    async def unended(self) -> list[Job]:
        """Every job that has not ended, oldest first."""
        return await self._run(self._database.unended)

    async def queue_values(self) -> dict[str, str]:
        """What is kept about the queue as a whole."""
        return await self._run(self._database.queue_values)

    async def jobs(self, which: Listed, limit: int, offset: int = 0) -> list[JobRow]:
        """Jobs: all, newest first, or those that have ended, the latest end first."""
        await self.flush()
        ends = self._unwritten_ends()
        return [_ended(row, ends) for row in await self._run(self._database.jobs, which, limit, offset)]

    async def counts(self) -> dict[str, int]:
        """How many jobs are in each state that occurs."""
        await self.flush()
        return await self._run(self._database.counts)

    async def ended_before(self, at: float) -> list[str]:
        """Names of the jobs that ended before this time."""
        await self.flush()
        return await self._run(self._database.ended_before, at)

    async def job(self, name: str) -> Job | None:
        """A job in any state, None when there is no such job."""
        await self.flush()
        ends = self._unwritten_ends()
        job = await self._run(self._database.job, name)
        if job is not None:
            job.row = _ended(job.row, ends)
        return job

    async def initial_images(self) -> set[str]:
        """The initial images of all jobs, ended ones too."""
        await self.flush()
        return await self._run(self._database.initial_images)

    def _unwritten_ends(self) -> dict[str, Entry]:
        """Jobs that have ended, though the database cannot be told so yet."""
        ends = {}
        for entry in self.pending:
            if isinstance(entry, Entry) and isinstance(entry.event, JOB_ENDS):
                ends[entry.job] = entry
        return ends

    async def events(self, job: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Numbers and MessagePack of a job's events past number `after`, in order."""
        await self.flush()
        return await self._run(self._database.events, job, after, limit)

    def last_seq_of(self, job: str) -> int:
        """The number of an unfinished job's latest event, written or not; 0 for any other job."""
        return self._latest.get(job, 0)

    async def close(self) -> None:
        """Write what waits and close."""
        await self.flush()
        if self._timer is not None:
            self._timer.cancel()
        await self._run(self._database.close)
        self._executor.shutdown()


def _ended(row: JobRow, ends: Mapping[str, Entry]) -> JobRow:
    """A job as it will be in the database, where its end is not written yet."""
    end = ends.get(row.job)
    if end is None:
        return row
    reason = end.event.message if isinstance(end.event, JobFailed) else None
    return msgspec.structs.replace(row, state=END_STATES[type(end.event)], reason=reason, finished_at=end.at)
