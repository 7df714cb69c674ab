"""The history: `Database` in a thread of its own, with the events of a running job written in batches."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from sdtui.protocol import (
    HEADER_BYTES,
    JOB_ENDS,
    JOB_EVENTS,
    ImageSaved,
    JobFailed,
    JobQueued,
    JobRow,
    JobStarted,
    Message,
    PreviewReady,
    Submit,
    encode,
)
from sdtui.server.database import Database, DatabaseError, Dispatched, Entry

FLUSH_S: Final = 0.25
"""How much of the step log a crash of the machine may cost; a step event must not cost a transaction."""
RETRY_S: Final = 5.0
"""A full disk is not written to in a tight loop."""
MAX_PENDING: Final = 50_000
"""While the disk is full, events are kept up to this many; the oldest step events go first."""
STOPPED_WHILE_RUNNING: Final = "The server stopped while this job was running."
_AT_ONCE: Final = (JobStarted, ImageSaved, *JOB_ENDS)
_P = ParamSpec("_P")
_T = TypeVar("_T")
log = logging.getLogger(__name__)


def is_recorded(event: Message) -> bool:
    """Whether an event belongs to a job's record. Previews do not, and `JobQueued` is written with the job itself."""
    return isinstance(event, JOB_EVENTS) and not isinstance(event, PreviewReady | JobQueued)


class Store:
    """Jobs, images and events. `record` returns at once; order is kept."""

    def __init__(self, path: Path, executor: ThreadPoolExecutor, database: Database, last_seq: int) -> None:
        self.path = path
        self._executor = executor
        self._database = database
        self._seq = last_seq
        self.pending: list[Entry | Dispatched] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._latest: dict[str, int] = {}

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

    async def recover(self) -> list[tuple[Submit, float]]:
        """Fail the jobs that a dead server left running; those that wait, and when they were made, oldest first."""
        running, queued = await self._run(self._database.unfinished)
        for job in running:
            event = JobFailed(job=job, message=STOPPED_WHILE_RUNNING)
            self.record(event, job, encode(event))
        await self.flush()
        return queued

    async def add_job(self, submit: Submit, event: Message) -> bool:
        """Store a queued job with its first event; False when there is a job of that name. Raises `sqlite3.Error`."""
        entry = self._entry(event, submit.job, encode(event))
        return await self._run(self._database.add_job, submit, entry)

    def record(self, event: Message, job: str, frame: bytes) -> None:
        """Record an event of a job, given with its frame."""
        self.pending.append(self._entry(event, job, frame))
        self._schedule(0.0 if isinstance(event, _AT_ONCE) else FLUSH_S)

    def dispatched(self, job: str) -> None:
        """Record that the worker has the job."""
        self.pending.append(Dispatched(job, time.time()))
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self.pending = self.pending, []
        if not entries:
            return
        try:
            await self._run(self._database.write, entries)
        except sqlite3.Error as error:
            log.error("the database %s could not be written: %s", self.path, error)
            self.pending = [*entries, *self.pending]
            self._drop_surplus()
            self._schedule(RETRY_S)

    def _drop_surplus(self) -> None:
        surplus = len(self.pending) - MAX_PENDING
        if surplus > 0:
            steps = (entry for entry in self.pending if isinstance(entry, Entry) and not isinstance(entry.event, _AT_ONCE))
            oldest = {entry.seq for entry, _ in zip(steps, range(surplus), strict=False)}
            self.pending = [entry for entry in self.pending if isinstance(entry, Dispatched) or entry.seq not in oldest]

    async def jobs(self, limit: int) -> list[JobRow]:
        """Jobs, newest first."""
        await self.flush()
        return await self._run(self._database.jobs, limit)

    async def state(self, job: str) -> str | None:
        """The state of a job, None when there is no such job."""
        await self.flush()
        return await self._run(self._database.state, job)

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
