"""Sending a job's record again, and lists of jobs that fit into a frame."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from sdtui.protocol import MAX_FRAME_BYTES, JobRow, Refused, ReplayDone, frame
from sdtui.server.connection import Connection
from sdtui.server.job import unknown_job
from sdtui.server.store import Store

CHUNK: Final = 500
"""Events read at once: some 200 kB."""
_ROWS_BYTES: Final = MAX_FRAME_BYTES // 2
"""Room for job rows in a frame; the rest is for the model's description."""
log = logging.getLogger(__name__)


async def replay(connection: Connection, store: Store, job: str, is_live: Callable[[str], bool]) -> None:
    """Send a job's recorded events, then `ReplayDone`; from then on it is followed live, with no event missing or twice.

    Live events of the job are held back meanwhile: they are recorded too, so the loop below comes upon them.
    """
    connection.replaying.add(job)
    try:
        if await store.job(job) is None:
            connection.send(unknown_job(job))
            return
        last = 0
        while True:
            newest = store.last_seq_of(job)
            events = await store.events(job, last, CHUNK)
            for _, payload in events:
                connection.send_frame(frame(payload))
            last = events[-1][0] if events else last
            if len(events) < CHUNK and store.last_seq_of(job) == newest:
                break
            await connection.room()
        # no await from the check above to the end of the hold: an event between them would be lost
        connection.send(ReplayDone(job=job))
        if is_live(job):
            connection.jobs.add(job)
        else:
            connection.jobs.discard(job)
    except sqlite3.Error as error:
        log.error("job %s could not be replayed: %s", job, error)
        connection.send(Refused(message=f"The record of job {job} could not be read: {error}.", job=job))
    except OSError:
        log.info("%s left during a replay", connection)
    finally:
        connection.replaying.discard(job)


def fitting(rows: Iterable[JobRow]) -> tuple[JobRow, ...]:
    """The first rows, as many as one frame can hold: prompts may be long and jobs many."""
    taken: list[JobRow] = []
    room = _ROWS_BYTES
    for row in rows:
        room -= len(msgspec.msgpack.encode(row))
        if room < 0:
            break
        taken.append(row)
    return tuple(taken)
