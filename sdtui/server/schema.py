"""The tables, and how an older database becomes a newer one.

A new database goes through the same steps, so there is one way in which a table comes to be what it is.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path
from typing import Final

import sdtui

APPLICATION_ID: Final = 0x73647475
"""`sdtu`; lets file(1) and us tell this database from any other."""
log = logging.getLogger(__name__)


class DatabaseError(Exception):
    """A database that cannot be used; the text names the file and says what to do."""


_VERSION_1: Final = """
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
_VERSION_2: Final = """
CREATE TABLE schema_versions (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL, sdtui TEXT NOT NULL) STRICT;
CREATE TABLE queue (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE new_jobs (
    number INTEGER PRIMARY KEY,
    job TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'interrupted', 'paused', 'done', 'failed', 'cancelled')),
    submit BLOB NOT NULL,
    params BLOB NOT NULL,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    reason TEXT,
    priority INTEGER NOT NULL DEFAULT 0,
    rank INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    seed INTEGER,
    batch_index INTEGER NOT NULL DEFAULT 0,
    steps_done INTEGER NOT NULL DEFAULT 0,
    total_steps INTEGER NOT NULL DEFAULT 0,
    copy_of TEXT
) STRICT;
INSERT INTO new_jobs (number, job, state, submit, params, created_at, started_at, finished_at, reason, rank)
    SELECT number, job, state, submit, params, created_at, started_at, finished_at, reason, number * 1024 FROM jobs;
DROP TABLE jobs;
ALTER TABLE new_jobs RENAME TO jobs;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
DELETE FROM images WHERE number NOT IN (SELECT min(number) FROM images GROUP BY job, image_index);
DROP INDEX images_by_job;
CREATE UNIQUE INDEX images_by_job ON images (job, image_index);
"""
MIGRATIONS: Final = (_VERSION_1, _VERSION_2)
"""Step n makes version n+1 of version n."""
SCHEMA_VERSION: Final = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """The version of a database; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a database up to date, each step in one transaction. Raises `DatabaseError` for one of a newer sdtui.

    A database that holds something is copied beside itself before the first step.
    """
    version = version_of(connection)
    if version > SCHEMA_VERSION:
        raise DatabaseError(
            f"The database {path} has version {version}; this sdtui ({sdtui.__version__}) knows versions up to {SCHEMA_VERSION}. "
            "Use the newer sdtui, or move the file away to start a new one."
        )
    if 0 < version < SCHEMA_VERSION:
        _copy(connection, path.with_name(f"{path.name}.version-{version}"))
        log.info("the database %s is brought from version %d to %d", path, version, SCHEMA_VERSION)
    connection.execute("PRAGMA foreign_keys = OFF")  # a table that others refer to is replaced
    for step in range(version + 1, SCHEMA_VERSION + 1):
        _step(connection, step)
    connection.execute("PRAGMA foreign_keys = ON")


def _step(connection: sqlite3.Connection, version: int) -> None:
    try:
        numbers = f"PRAGMA user_version = {version}; PRAGMA application_id = {APPLICATION_ID};"
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[version - 1]} {numbers}")
        if version > 1:
            connection.execute("INSERT INTO schema_versions VALUES (?, ?, ?)", (version, time.time(), sdtui.__version__))
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    """Keep the database as it is now; a copy that is there already is of an interrupted try and is replaced."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    copy = sqlite3.connect(part)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    part.replace(path)
    log.info("the database was copied to %s before it is brought up to date", path)
