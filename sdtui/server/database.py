"""Jobs, images and events in SQLite. Plain blocking code; `store.Store` runs it in its one thread.

The events are the record: the state of a job is derived from them, in the transaction that writes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol import (
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobRow,
    JobStarted,
    Message,
    Submit,
)

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x73647475
"""`sdtu`; lets file(1) and us tell this database from any other."""
_SCHEMA: Final = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    job TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    submit BLOB NOT NULL,
    params BLOB NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    reason TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state) WHERE state IN ('queued', 'running');
CREATE TABLE images (
    number INTEGER PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
    path TEXT NOT NULL,
    seed INTEGER NOT NULL,
    image_index INTEGER NOT NULL,
    width_px INTEGER NOT NULL,
    height_px INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    saved_at REAL NOT NULL
) STRICT;
CREATE INDEX images_by_job ON images (job);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (job) ON DELETE CASCADE,
    at REAL NOT NULL,
    type TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job, seq);
"""
_params_decoder: Final = msgspec.msgpack.Decoder(GenerationParams)
_submit_decoder: Final = msgspec.msgpack.Decoder(Submit)
_encoder: Final = msgspec.msgpack.Encoder()


class DatabaseError(Exception):
    """A database that cannot be used; the text names the file and says what to do."""


class Entry(msgspec.Struct, frozen=True):
    """One event of a job on its way into the database."""

    seq: int
    job: str
    at: float
    event: Message
    payload: bytes
    """The event's MessagePack, as it went over the wire."""


class Dispatched(msgspec.Struct, frozen=True):
    """A job was handed to the worker."""

    job: str
    at: float


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
            self._prepare()
        except sqlite3.Error as error:
            self._sqlite.close()
            raise DatabaseError(f"The database {path} cannot be used: {error}. Move it away to start a new one.") from error
        except DatabaseError:
            self._sqlite.close()
            raise

    def _prepare(self) -> None:
        self._sqlite.execute("PRAGMA busy_timeout = 5000")
        version: int = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise DatabaseError(
                f"The database {self._path} has version {version}; this sdtui knows versions up to {SCHEMA_VERSION}. "
                "Use the newer sdtui, or move the file away to start a new one."
            )
        self._sqlite.execute("PRAGMA journal_mode = WAL")
        self._sqlite.execute("PRAGMA synchronous = NORMAL")  # in WAL mode: safe against our crash, no fsync a commit
        self._sqlite.execute("PRAGMA foreign_keys = ON")
        if version == 0:
            self._sqlite.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
            )

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded into the file."""
        self._sqlite.close()

    def last_seq(self) -> int:
        """The highest event number, 0 when there is none."""
        return int(self._sqlite.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    def add_job(self, submit: Submit, entry: Entry) -> bool:
        """Add a queued job with its first event; False when there is a job of that name."""
        params = _encoder.encode(submit.params)
        with self._sqlite:
            self._sqlite.execute("BEGIN IMMEDIATE")
            try:
                self._sqlite.execute(
                    "INSERT INTO jobs (job, state, submit, params, created_at) VALUES (?, 'queued', ?, ?, ?)",
                    (submit.job, _encoder.encode(submit), params, entry.at),
                )
            except sqlite3.IntegrityError:
                return False
            self._insert_event(entry)
        return True

    def write(self, entries: Iterable[Entry | Dispatched]) -> None:
        """Write events and what follows from them for their jobs, all or nothing."""
        with self._sqlite:
            self._sqlite.execute("BEGIN IMMEDIATE")
            for entry in entries:
                if isinstance(entry, Dispatched):
                    self._sqlite.execute("UPDATE jobs SET state = 'running', started_at = ? WHERE job = ?", (entry.at, entry.job))
                else:
                    self._insert_event(entry)
                    self._follow(entry)

    def _insert_event(self, entry: Entry) -> None:
        self._sqlite.execute(
            "INSERT INTO events (seq, job, at, type, payload) VALUES (?, ?, ?, ?, ?)",
            (entry.seq, entry.job, entry.at, entry.event.__struct_config__.tag, entry.payload),
        )

    def _follow(self, entry: Entry) -> None:
        match entry.event:
            case JobStarted(params=params):
                self._sqlite.execute("UPDATE jobs SET params = ? WHERE job = ?", (_encoder.encode(params), entry.job))
            case ImageSaved() as image:
                self._insert_image(image, entry.at)
            case JobFinished():
                self._end(entry, "done", None)
            case JobCancelled():
                self._end(entry, "cancelled", None)
            case JobFailed(message=message):
                self._end(entry, "failed", message)

    def _insert_image(self, image: ImageSaved, at: float) -> None:
        self._sqlite.execute(
            "INSERT INTO images (job, path, seed, image_index, width_px, height_px, size_bytes, saved_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (image.job, image.path, image.seed, image.image_index, image.width_px, image.height_px, image.size_bytes, at),
        )

    def _end(self, entry: Entry, state: str, reason: str | None) -> None:
        self._sqlite.execute(
            "UPDATE jobs SET state = ?, reason = ?, finished_at = ? WHERE job = ?", (state, reason, entry.at, entry.job)
        )

    def unfinished(self) -> tuple[list[str], list[tuple[Submit, float]]]:
        """Names of jobs that were running; the queued ones and when they were made; oldest first."""
        running = self._sqlite.execute("SELECT job FROM jobs WHERE state = 'running' ORDER BY number").fetchall()
        queued = self._sqlite.execute("SELECT submit, created_at FROM jobs WHERE state = 'queued' ORDER BY number").fetchall()
        return [row[0] for row in running], [(_submit_decoder.decode(row[0]), row[1]) for row in queued]

    def state(self, job: str) -> str | None:
        """The state of a job, None when there is no such job."""
        row = self._sqlite.execute("SELECT state FROM jobs WHERE job = ?", (job,)).fetchone()
        return None if row is None else str(row[0])

    def jobs(self, limit: int) -> list[JobRow]:
        """Jobs, newest first, with their images."""
        rows = self._sqlite.execute(
            "SELECT job, state, params, created_at, started_at, finished_at, reason FROM jobs ORDER BY number DESC LIMIT ?",
            (limit,),
        ).fetchall()
        return [self._row(row) for row in rows]

    def _row(self, row: Sequence[object]) -> JobRow:
        job, state, params, created_at, started_at, finished_at, reason = row
        images = self._sqlite.execute("SELECT path FROM images WHERE job = ? ORDER BY number", (job,)).fetchall()
        return msgspec.convert(
            {
                "job": job,
                "state": state,
                "params": _params_decoder.decode(params) if isinstance(params, bytes) else None,
                "created_at": created_at,
                "started_at": started_at,
                "finished_at": finished_at,
                "reason": reason,
                "images": tuple(image[0] for image in images),
            },
            JobRow,
        )

    def events(self, job: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Numbers and MessagePack of a job's events past number `after`, in order."""
        return self._sqlite.execute(
            "SELECT seq, payload FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?", (job, after, limit)
        ).fetchall()
