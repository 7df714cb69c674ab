"""Jobs, images and events in SQLite. Plain blocking code; `store.Store` runs it in its one thread.

The events are the record: what follows from them for their job is written in the same transaction. What no event says,
such as a job's place in the queue, comes as a `Change`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol import (
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobInterrupted,
    JobPaused,
    JobResumed,
    JobRow,
    JobStarted,
    JobState,
    Message,
    PromptTokens,
    StageFinished,
    StageStarted,
    StepFinished,
    Submit,
)
from sdtui.server.job import Job
from sdtui.server.schema import DatabaseError, migrate

_COLUMNS: Final = (
    "job, state, params, created_at, started_at, finished_at, reason, priority, attempts, batch_index, steps_done, total_steps,"
    " copy_of, submit, rank, seed"
)
_NAMES: Final = tuple(name.strip() for name in _COLUMNS.split(","))
_SELECT: Final = f"SELECT {_COLUMNS} FROM jobs "  # noqa: S608  # the columns above, nothing from outside
_NEWEST_FIRST: Final = "ORDER BY number DESC LIMIT ? OFFSET ?"
_ENDED_FIRST: Final = "WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, number DESC LIMIT ? OFFSET ?"
_CHANGEABLE: Final = frozenset(_NAMES) - {"job", "created_at", "copy_of"}
END_STATES: Final[dict[type[Message], JobState]] = {JobFinished: "done", JobCancelled: "cancelled", JobFailed: "failed"}
_CACHE_KIB: Final = 512
"""SQLite's own 2 MiB fill up over days and look like a leak; pages of a few thousand jobs fit into this too."""
_LIGHT: Final = (StageStarted, StageFinished, PromptTokens, StepFinished)
"""What the last moments before a power failure may cost; everything else is on the disk before it is told."""


class _InitialImage(msgspec.Struct):
    """Of parameters only this one; with a third of the time it takes to decode all, ten thousand jobs take 10 ms."""

    init_image: str | None = None


_initial_decoder: Final = msgspec.msgpack.Decoder(_InitialImage)
_params_decoder: Final = msgspec.msgpack.Decoder(GenerationParams)
_submit_decoder: Final = msgspec.msgpack.Decoder(Submit)
encode_value: Final = msgspec.msgpack.Encoder().encode
Listed = Literal["all", "ended"]


class Entry(msgspec.Struct, frozen=True):
    """One event of a job on its way into the database."""

    seq: int
    job: str
    at: float
    event: Message
    payload: bytes
    """The event's MessagePack, as it went over the wire."""


class Change(msgspec.Struct, frozen=True):
    """New values of columns of a job."""

    job: str
    values: dict[str, Any]


class Removal(msgspec.Struct, frozen=True):
    """A job's record goes."""

    job: str


class QueueValue(msgspec.Struct, frozen=True):
    """Something about the queue as a whole."""

    key: str
    value: str


Write = Entry | Change | Removal | QueueValue


class Database:
    """One connection. Each public method is one transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.chmod(0o600)  # it holds every prompt
            self._sqlite = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"The database {path} cannot be opened: {error}.") from error
        try:
            self._sqlite.execute("PRAGMA busy_timeout = 5000")
            self._sqlite.execute("PRAGMA journal_mode = WAL")
            self._sqlite.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
            migrate(self._sqlite, path)
        except sqlite3.Error as error:
            self._sqlite.close()
            raise DatabaseError(f"The database {path} cannot be used: {error}. Move it away to start a new one.") from error
        except DatabaseError:
            self._sqlite.close()
            raise

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded into the file."""
        self._sqlite.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing; `durable` survives a power failure too, and else only the end of this process."""
        self._sqlite.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        with self._sqlite:
            self._sqlite.execute("BEGIN IMMEDIATE")
            yield

    def add_job(self, job: Job, entry: Entry) -> bool:
        """Add a waiting job with its first event; False when there is a job of that name."""
        row = job.row
        with self._transaction():
            try:
                self._sqlite.execute(
                    "INSERT INTO jobs (job, state, submit, params, created_at, priority, rank, copy_of)"
                    " VALUES (?, 'queued', ?, ?, ?, ?, ?, ?)",
                    (
                        job.name,
                        encode_value(job.submit),
                        encode_value(row.params),
                        row.created_at,
                        row.priority,
                        job.rank,
                        row.copy_of,
                    ),
                )
            except sqlite3.IntegrityError:
                return False
            self._insert_event(entry)
        return True

    def write(self, entries: Iterable[Write]) -> None:
        """Write events and what follows from them, and changes, in order, all or nothing."""
        entries = list(entries)
        light = all(isinstance(entry, Entry) and isinstance(entry.event, _LIGHT) for entry in entries)
        with self._transaction(durable=not light):
            for entry in entries:
                self._write(entry)

    def _write(self, entry: Write) -> None:
        match entry:
            case Entry():
                self._insert_event(entry)
                self._follow(entry)
            case Change():
                self._update(entry.job, entry.values)
            case Removal():
                self._sqlite.execute("DELETE FROM jobs WHERE job = ?", (entry.job,))
            case QueueValue():
                self._sqlite.execute("INSERT OR REPLACE INTO queue (key, value) VALUES (?, ?)", (entry.key, entry.value))

    def _insert_event(self, entry: Entry) -> None:
        self._sqlite.execute(
            "INSERT INTO events (seq, job, at, type, payload) VALUES (?, ?, ?, ?, ?)",
            (entry.seq, entry.job, entry.at, entry.event.__struct_config__.tag, entry.payload),
        )

    def _update(self, job: str, values: dict[str, Any]) -> None:
        unknown = values.keys() - _CHANGEABLE
        if unknown:
            raise sqlite3.ProgrammingError(f"no such columns to change: {', '.join(sorted(unknown))}")
        settings = ", ".join(f"{name} = ?" for name in values)
        statement = f"UPDATE jobs SET {settings} WHERE job = ?"  # noqa: S608  # names of columns, checked above
        self._sqlite.execute(statement, (*values.values(), job))

    def _follow(self, entry: Entry) -> None:
        job = entry.job
        match entry.event:
            case JobStarted(params=params, seed=seed):
                self._sqlite.execute("UPDATE jobs SET params = ?, seed = ? WHERE job = ?", (encode_value(params), seed, job))
            case StepFinished() as step:
                self._sqlite.execute(
                    "UPDATE jobs SET batch_index = ?, steps_done = ?, total_steps = ? WHERE job = ?",
                    (step.batch_index, step.step_index + 1, step.total_steps, job),
                )
            case JobResumed(batch_index=batch, steps_done=steps):
                self._sqlite.execute(
                    "UPDATE jobs SET batch_index = ?1, steps_done = ?2 WHERE job = ?3 AND (batch_index, steps_done) > (?1, ?2)",
                    (batch, steps, job),
                )
            case ImageSaved() as image:
                self._insert_image(image, entry.at)
            case JobFinished() | JobCancelled() | JobFailed() as end:
                reason = end.message if isinstance(end, JobFailed) else None
                self._update(job, {"state": END_STATES[type(end)], "reason": reason, "finished_at": entry.at})
            case JobPaused():
                self._update(job, {"state": "paused", "reason": None})
            case JobInterrupted(reason=reason):
                self._update(job, {"state": "interrupted", "reason": reason})

    def _insert_image(self, image: ImageSaved, at: float) -> None:
        self._sqlite.execute(
            "INSERT OR IGNORE INTO images (job, path, seed, image_index, width_px, height_px, size_bytes, saved_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (image.job, image.path, image.seed, image.image_index, image.width_px, image.height_px, image.size_bytes, at),
        )

    # --- reading ----------------------------------------------------------------------------------------------------

    def last_seq(self) -> int:
        """The highest event number, 0 when there is none."""
        return int(self._sqlite.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    def queue_values(self) -> dict[str, str]:
        """What is kept about the queue as a whole."""
        return dict(self._sqlite.execute("SELECT key, value FROM queue"))

    def unended(self) -> list[Job]:
        """Every job that has not ended, in the order in which they were made."""
        rows = self._sqlite.execute(_SELECT + "WHERE state NOT IN ('done', 'failed', 'cancelled') ORDER BY number")
        return [self._job(row) for row in rows.fetchall()]

    def job(self, name: str) -> Job | None:
        """A job in any state, None when there is no such job."""
        row = self._sqlite.execute(_SELECT + "WHERE job = ?", (name,)).fetchone()
        return None if row is None else self._job(row)

    def jobs(self, which: Listed, limit: int, offset: int = 0) -> list[JobRow]:
        """Jobs with their images: all, newest first, or those that have ended, the latest end first."""
        order = _ENDED_FIRST if which == "ended" else _NEWEST_FIRST
        rows = self._sqlite.execute(_SELECT + order, (limit, offset))
        return [self._job(row).row for row in rows.fetchall()]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that occurs."""
        return dict(self._sqlite.execute("SELECT state, count(*) FROM jobs GROUP BY state"))

    def ended_before(self, at: float) -> list[str]:
        """Names of the jobs that ended before this time."""
        rows = self._sqlite.execute("SELECT job FROM jobs WHERE finished_at IS NOT NULL AND finished_at <= ?", (at,))
        return [name for (name,) in rows]

    def initial_images(self) -> set[str]:
        """The initial images of all jobs, ended ones too."""
        found = {_initial_decoder.decode(params).init_image for (params,) in self._sqlite.execute("SELECT params FROM jobs")}
        return {source for source in found if source is not None}

    def _job(self, row: Sequence[Any]) -> Job:
        *shown, packed, rank, seed = row
        submit = _submit_decoder.decode(packed)
        images = self._sqlite.execute("SELECT path FROM images WHERE job = ? ORDER BY image_index", (shown[0],)).fetchall()
        values = dict(zip(_NAMES, shown, strict=False))
        values["params"] = _params_decoder.decode(values["params"])
        values["images"] = tuple(path for (path,) in images)
        values["branch"] = submit.branch
        return Job(submit, msgspec.convert(values, JobRow), rank, seed)

    def events(self, job: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Numbers and MessagePack of a job's events past number `after`, in order."""
        return self._sqlite.execute(
            "SELECT seq, payload FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?", (job, after, limit)
        ).fetchall()
