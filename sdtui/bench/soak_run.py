"""The run behind `sdtui bench soak`: one client that keeps a few jobs queued, looks at the processes, and kills them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec
import psutil

from sdtui.protocol import (
    ENDED,
    JOB_ENDS,
    GetJob,
    JobChanged,
    JobFinished,
    JobInterrupted,
    JobQueued,
    JobResumed,
    JobRow,
    JobStarted,
    Message,
    Refused,
    ServerStatus,
    Status,
    Submit,
    WorkerReady,
)
from sdtui.server.client import Client, ServerUnavailable

_AHEAD: Final = 3
"""Jobs that are submitted and not done: one runs, and the worker never waits."""
_SERVER_SHARE: Final = 8
"""Every so many kills are of the server."""
_FIRST_GUESS_S: Final = 1.0
"""How long a job takes, before one has been seen."""
_STUCK_S: Final = 180.0
"""Longer than a worker needs to start on a swamped machine; a soak that hears nothing for so long says so."""


class Sample(msgspec.Struct, frozen=True):
    """What a process holds after a job."""

    rss_bytes: int
    files: int
    threads: int


class Life:
    """One server or worker process, looked at after each job."""

    def __init__(self, kind: str, pid: int) -> None:
        self.kind, self.pid = kind, pid
        self.samples: list[Sample] = []
        self.ended = False
        self._process = psutil.Process(pid)
        self._created = self._process.create_time()

    def look(self) -> None:
        """Take a sample; none of a process that is gone."""
        with contextlib.suppress(psutil.Error):
            process = self._process
            self.samples.append(Sample(process.memory_info().rss, process.num_fds(), process.num_threads()))

    def is_same(self) -> bool:
        """Whether the process of this number is still this one, and no zombie that waits for its parent."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return bool(process.create_time() == self._created and process.status() != psutil.STATUS_ZOMBIE)
        return False


class Session:
    """What was submitted, what became of it, and who lived meanwhile."""

    def __init__(self) -> None:
        self.submitted: dict[str, Submit] = {}
        self.acknowledged: set[str] = set()
        self.rows: dict[str, JobRow] = {}
        self.kills: Counter[str] = Counter()
        self.killed_jobs: list[str] = []
        self.lives: list[Life] = []
        self.compared: list[tuple[str, str]] = []
        """Pictures of killed jobs, each with the one of an undisturbed run."""
        self.resumed = 0
        self.replayed_steps = 0


def run_session(
    submits: Sequence[Submit],
    chance: random.Random,
    *,
    kill_every: int,
    last_server_kill: int,
    last_worker_kill: int,
    compared: int,
) -> Session:
    """Run all jobs with kills among them, then some of those that were killed once more without."""
    soak = _Soak(submits, chance)
    soak.kill_every, soak.last_server_kill, soak.last_worker_kill = kill_every, last_server_kill, last_worker_kill
    asyncio.run(soak.run(compared))
    return soak.session


class _Soak:
    def __init__(self, submits: Sequence[Submit], chance: random.Random) -> None:
        self.session = Session()
        self.kill_every = self.last_server_kill = self.last_worker_kill = 0
        self._to_do = list(reversed(submits))
        self._open: dict[str, Submit] = {}
        self._chance = chance
        self._durations: list[float] = []
        self._began: dict[str, float] = {}
        self._killing: set[asyncio.Task[None]] = set()
        self._worker: int | None = None
        self._server = 0

    async def run(self, compared: int) -> None:
        await self._all()
        self.kill_every = 0
        sample = sorted(set(self.session.killed_jobs))[:compared]
        first_runs = dict(self.session.rows)
        submitted = dict(self.session.submitted)
        again = [msgspec.structs.replace(submitted[name], job=name.replace("soak", "again")) for name in sample]
        self._to_do = list(reversed(again))
        await self._all()
        for submit in again:
            row, first = self.session.rows.pop(submit.job), first_runs[submit.job.replace("again", "soak")]
            self.session.compared += zip(sorted(first.images), sorted(row.images), strict=False)
        self.session.submitted = submitted

    async def _all(self) -> None:
        """Until every job has ended, over as many servers as that takes."""
        while self._to_do or self._open:
            with contextlib.suppress(ServerUnavailable):
                client = await Client.connect(name="soak")
                try:
                    await self._with(client)
                finally:
                    await client.close()

    async def _with(self, client: Client) -> None:
        self._server, self._worker = client.welcome.pid, None
        self._note_life("server", self._server)
        await client.send(Status())
        for name in list(self._open):  # what this server knows of them; one that it does not know is submitted again
            await client.send(GetJob(job=name))
        await self._fill(client)
        events = client.events()
        while self._to_do or self._open:
            try:
                async with asyncio.timeout(_STUCK_S):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError:
                sys.exit(f"nothing was heard of the server for {_STUCK_S:.0f} s; open jobs: {', '.join(self._open)}")
            await self._on_event(client, event)

    async def _fill(self, client: Client) -> None:
        while self._to_do and len(self._open) < _AHEAD:
            submit = self._to_do.pop()
            self._open[submit.job] = self.session.submitted[submit.job] = submit
            await client.send(submit)

    async def _on_event(self, client: Client, event: Message) -> None:
        match event:
            case JobQueued(job=job):
                self.session.acknowledged.add(job)
            case WorkerReady(pid=pid) | ServerStatus(worker_pid=int(pid)):
                self._worker = pid
                self._note_life("worker", pid)
            case JobStarted(job=job):
                self._began[job] = time.monotonic()
                self._maybe_kill(job)
            case JobInterrupted(job=job):
                self.session.killed_jobs.append(job)
                self._began.pop(job, None)
            case JobResumed(steps_done=steps):
                self.session.resumed += steps > 0
                self.session.replayed_steps += steps
            case Refused(job=str(job)) if job in self._open and job not in self.session.acknowledged:
                await client.send(self._open[job])
            case JobChanged(row=row) if row.state in ENDED:
                await self._ended(client, row)
            case _ if isinstance(event, JOB_ENDS):
                if isinstance(event, JobFinished) and event.job in self._began:
                    self._durations.append(time.monotonic() - self._began.pop(event.job))
                await client.send(GetJob(job=event.job))

    async def _ended(self, client: Client, row: JobRow) -> None:
        if self._open.pop(row.job, None) is not None:
            self.session.acknowledged.add(row.job)
            self.session.rows[row.job] = row
            for life in self.session.lives:
                if not life.ended and life.pid in (self._server, self._worker):
                    life.look()
        await self._fill(client)

    def _note_life(self, kind: str, pid: int) -> None:
        if any(life.pid == pid and not life.ended for life in self.session.lives):
            return
        for life in self.session.lives:
            if life.kind in (kind, "worker"):  # a worker goes with its server
                life.ended = True
        with contextlib.suppress(psutil.Error):
            self.session.lives.append(Life(kind, pid))

    # --- killing ----------------------------------------------------------------------------------------------------

    def _maybe_kill(self, job: str) -> None:
        number = len(self.session.rows)
        if not self.kill_every or number >= self.last_worker_kill or job in self.session.killed_jobs:
            return
        if self._chance.randrange(self.kill_every):
            return
        delay_s = self._chance.uniform(0.0, median(self._durations or [_FIRST_GUESS_S]) * 1.05)
        of_server = number < self.last_server_kill and self._chance.randrange(_SERVER_SHARE) == 0
        kind = self._chance.choice((signal.SIGKILL, signal.SIGSEGV))
        task = asyncio.create_task(self._kill(delay_s, signal.SIGKILL if of_server else kind, of_server=of_server))
        self._killing.add(task)
        task.add_done_callback(self._killing.discard)

    async def _kill(self, delay_s: float, kind: signal.Signals, *, of_server: bool) -> None:
        await asyncio.sleep(delay_s)
        pid = self._server if of_server else self._worker
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)
            self.session.kills[f"{'server' if of_server else 'worker'} {kind.name}"] += 1
