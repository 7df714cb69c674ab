"""Pictures of steps that clients ask for: who waits for which, until the worker has made them or is gone.

The worker is sent each of them as soon as there is one, and may take its time; a step that several clients ask for is made
once. What is asked while there is no worker waits for the next one. The answers belong to no job's record.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from sdtui.protocol import DecodeStep, Refused, StepDecoded, StepNotDecoded
from sdtui.server.connection import Connection
from sdtui.server.job import unknown_job
from sdtui.server.queue import Worker
from sdtui.server.store import Store
from sdtui.server.tapes import Tapes
from sdtui.text import safe_text
from sdtui.trajectory import INITIAL

Answer = StepDecoded | StepNotDecoded
Tell = Callable[[Answer, Collection[Connection]], None]
"""Sends an answer to all who follow its job, and to these clients in any case."""
_Place = tuple[str, int, int, int]
log = logging.getLogger(__name__)


class Queue(Protocol):
    """What is to be known of the queue."""

    def has(self, name: str) -> bool:
        """Whether this job has not ended."""
        ...


@dataclass
class _Asked:
    command: DecodeStep
    clients: set[Connection] = field(default_factory=set)
    """Those that are still there."""
    sent: bool = False
    """Whether the worker that lives now has been told."""


class Decodings:
    """The pictures of steps that are asked for and not answered."""

    def __init__(self, worker: Worker, queue: Queue, store: Store, tapes: Tapes, *, tell: Tell) -> None:
        self._worker = worker
        self._queue = queue
        self._store = store
        self._tapes = tapes
        self._tell = tell
        self._asked: dict[_Place, _Asked] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._asked)

    async def ask(self, client: Connection, command: DecodeStep) -> Refused | None:
        """Have a step decoded for a client; why not, where that shows at once. Raises `sqlite3.Error`."""
        if command.step_index < INITIAL or command.batch_index < 0 or command.picture < 0:
            message = "Steps count from 0, and -1 is the beginning; batches and pictures count from 0."
            return Refused(message=message, field="step_index", job=command.job)
        if not await self._is_known(command.job):
            return unknown_job(command.job)
        asked = self._asked.setdefault(_place(command), _Asked(command))
        asked.clients.add(client)
        if self._worker.ready:
            self._send(asked)
        else:
            self._worker.wake()
        return None

    async def _is_known(self, job: str) -> bool:
        return self._queue.has(job) or await self._store.job(job) is not None

    def _send(self, asked: _Asked) -> None:
        if not asked.sent:
            asked.sent = True
            self._worker.send(asked.command)

    def on_worker_ready(self) -> None:
        """There is a worker: it gets what has waited for it."""
        for asked in self._asked.values():
            self._send(asked)

    def on_answer(self, answer: Answer) -> None:
        """The worker has made a picture, or says why it has not."""
        asked = self._asked.pop(_place(answer), None)
        clients = asked.clients if asked is not None else set()
        task = asyncio.create_task(self._pass_on(answer, clients))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _pass_on(self, answer: Answer, clients: Collection[Connection]) -> None:
        """Tell of a picture, unless its job was deleted in the meantime; then the picture goes too."""
        if isinstance(answer, StepDecoded) and not await self._is_there_still(answer.job):
            await self._tapes.remove(answer.job)
            answer = _not_decoded(answer, f"Job {safe_text(answer.job, limit=64)} was deleted meanwhile.")
        self._tell(answer, clients)

    async def _is_there_still(self, job: str) -> bool:
        try:
            return await self._is_known(job)
        except sqlite3.Error as error:
            log.error("whether there is a job %s still could not be read: %s", job, error)
            return True

    def on_worker_gone(self, reason: str, *, for_good: bool) -> None:
        """The worker died: what it was asked is not asked again, as it may be the cause. `for_good`: no other one is started."""
        lost = [place for place, asked in self._asked.items() if asked.sent or for_good]
        for place in lost:
            asked = self._asked.pop(place)
            self._tell(_not_decoded(asked.command, f"The step could not be decoded. {reason}"), asked.clients)

    def forget(self, client: Connection) -> None:
        """A client has left; what nobody else waits for, and what the worker has not been told, need not be done."""
        for asked in self._asked.values():
            asked.clients.discard(client)
        self._asked = {place: asked for place, asked in self._asked.items() if asked.sent or asked.clients}

    async def end(self) -> None:
        """The worker is gone, and the server leaves."""
        self.on_worker_gone("The server was stopped.", for_good=True)
        await asyncio.gather(*self._answering, return_exceptions=True)


def _place(message: DecodeStep | Answer) -> _Place:
    return message.job, message.batch_index, message.picture, message.step_index


def _not_decoded(of: DecodeStep | Answer, message: str) -> StepNotDecoded:
    return StepNotDecoded(job=of.job, batch_index=of.batch_index, step_index=of.step_index, picture=of.picture, message=message)
