"""A queue in memory behind the client's interface: it answers as the server does, and keeps what it was asked."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol import (
    ENDED,
    WAITING,
    Cancel,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    EndedDeleted,
    GetJob,
    Hold,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobPaused,
    JobRow,
    Jobs,
    JobState,
    ListJobs,
    Message,
    Move,
    Pause,
    QueueChanged,
    Refused,
    Resume,
    Retry,
    SetPriority,
)
from tests.ui.scripted import ScriptedClient


def row(number: int, state: JobState, prompt: str = "", **fields: Any) -> JobRow:
    """A job whose name ends with its number."""
    params = fields.pop("params", GenerationParams(prompt=prompt or f"a red cat {number}", seed=number))
    now = time.time()
    times: dict[str, float] = {"created_at": now - 100}
    if state in ("running", *ENDED):
        times["started_at"] = now - 50
    if state in ENDED:
        times["finished_at"] = now - 40
    return JobRow(job=f"20260101-000000-{number:04d}", state=state, params=params, **{**times, **fields})


def usual_rows() -> list[JobRow]:
    """One that runs, three that wait, one paused, and one of each way to end."""
    return [
        row(1, "running", steps_done=8, total_steps=20),
        *(row(number, "queued") for number in (2, 3, 4)),
        row(5, "paused", steps_done=5, total_steps=20, started_at=time.time() - 30),
        row(6, "done", images=("/pictures/six.png",)),
        row(7, "failed", reason="The worker died 4 times: killed by signal 11 (SIGSEGV).", attempts=4),
        row(8, "cancelled"),
    ]


class ScriptedQueue(ScriptedClient):
    """Rows in the order in which they are listed: what is in the queue, then what has ended."""

    def __init__(self, rows: list[JobRow] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.rows = usual_rows() if rows is None else rows
        self.held = False
        self.trouble = ""

    # --- what tests look at and change ------------------------------------------------------------------------------

    def job(self, number: int) -> JobRow:
        """The job with this number."""
        return next(row for row in self.rows if row.job.endswith(f"{number:04d}"))

    def change(self, number: int, **fields: Any) -> None:
        """Something happens to a job; nobody is told yet."""
        at = self.rows.index(self.job(number))
        self.rows[at] = msgspec.structs.replace(self.rows[at], **fields)

    def end(self, number: int, state: JobState) -> None:
        """A job ends: it is the newest of those that have."""
        old = self.job(number)
        self.rows.remove(old)
        at = next((at for at, row in enumerate(self.rows) if row.state in ENDED), len(self.rows))
        self.rows.insert(at, msgspec.structs.replace(old, state=state, finished_at=time.time()))

    def tell(self) -> None:
        """Say how the queue is."""
        self.emit(self.status())

    def status(self) -> QueueChanged:
        """The queue as it is."""
        counts = Counter(row.state for row in self.rows)
        running = next((row.job for row in self.rows if row.state == "running"), None)
        waiting = sum(counts[state] for state in WAITING)
        return QueueChanged(queued=waiting, running=running, paused=counts["paused"], held=self.held, trouble=self.trouble)

    # --- what the UI asks -------------------------------------------------------------------------------------------

    async def send(self, command: Message) -> None:
        """Take a command."""
        answers = self._answer(command)
        if answers is None:
            await super().send(command)
        else:
            self.log.append(command)
            self.emit(*answers)

    def _answer(self, command: Message) -> list[Message] | None:
        match command:
            case ListJobs():
                return [self._list(command)]
            case Hold(on=on):
                self.held = on
                return [self.status()]
            case DeleteEnded():
                ended = [row for row in self.rows if row.state in ENDED]
                self.rows = [row for row in self.rows if row.state not in ENDED]
                return [EndedDeleted(count=len(ended)), self.status()]
            case Duplicate():
                return self._duplicate(command)
            case Cancel() | Pause() | Resume() | Retry() | Edit() | Move() | SetPriority() | Delete() | GetJob():
                if not any(row.job == command.job for row in self.rows):
                    return None if isinstance(command, Cancel) else [Refused(message="There is no such job.", job=command.job)]
                return self._change(command, int(command.job[-4:]))
            case _:
                return None

    def _list(self, command: ListJobs) -> Jobs:
        rows = [row for row in self.rows if (row.state in ENDED) == (command.which == "ended")]
        page = tuple(rows[command.offset : command.offset + command.limit])
        counts = dict(Counter(row.state for row in self.rows))
        return Jobs(jobs=page, total=len(rows), which=command.which, offset=command.offset, counts=counts)

    def _duplicate(self, command: Duplicate) -> list[Message]:
        source = next(row for row in self.rows if row.job == command.job)
        copy = msgspec.structs.replace(source, job=command.new_job, state="queued", copy_of=source.job, started_at=None)
        at = next((at for at, row in enumerate(self.rows) if row.state not in ("running", *WAITING)), len(self.rows))
        self.rows.insert(at, copy)
        return [JobChanged(job=copy.job, row=copy, position=at), self.status()]

    def _change(self, command: Any, number: int) -> list[Message]:
        old = self.job(number)
        match command:
            case Cancel():
                self.end(number, "cancelled")
                latency = 0.006 if old.state == "running" else 0.0
                return [JobCancelled(job=old.job, latency_s=latency), self.status()]
            case Pause() if old.state == "running":
                self.change(number, state="paused")
                return [JobPaused(job=old.job, steps_done=old.steps_done), self.status()]
            case Pause():
                self.change(number, state="paused")
            case Resume() | Retry():
                self.rows.remove(old)
                self.rows.insert(1, msgspec.structs.replace(old, state="queued", reason=None))
            case Edit(params=params):
                self.change(number, params=params)
            case SetPriority(priority=priority):
                self.change(number, priority=priority)
            case Delete():
                self.rows.remove(old)
                return [JobDeleted(job=old.job), self.status()]
            case Move(to=to):
                self._move(old, to)
        new = next(row for row in self.rows if row.job == old.job)
        place = self.rows.index(new) if new.state in WAITING else None
        return [JobChanged(job=new.job, row=new, position=place), self.status()]

    def _move(self, job: JobRow, to: str) -> None:
        waiting = [at for at, row in enumerate(self.rows) if row.state in WAITING]
        at = self.rows.index(job)
        target = {"first": waiting[0], "last": waiting[-1], "up": max(waiting[0], at - 1), "down": min(waiting[-1], at + 1)}[to]
        self.rows.remove(job)
        self.rows.insert(target, job)
