"""The real queue, store and database in this process, with a worker that is a script; for tests against a model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sdtui.protocol import (
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobPaused,
    JobStarted,
    Message,
    Pause,
    QueueCommand,
    Refused,
    StepFinished,
    Submit,
    WorkerDied,
    encode,
)
from sdtui.server.commands import QueueCommands
from sdtui.server.limits import Limits
from sdtui.server.queue import JobQueue
from sdtui.server.store import Store, is_recorded
from sdtui.server.tapes import Tapes
from sdtui.settings import Server as ServerSettings
from tests.server.fake_worker import FACT

LIMITS = Limits(cancel_s=3600.0, cancel_while_loading_s=3600.0, pause_at_stop_s=3600.0)
"""Here a worker does what it does when the script says so."""


class ScriptedWorker:
    """What the queue needs of a supervisor; `sent` is what the worker has been told."""

    def __init__(self) -> None:
        self.ready = False
        self.loading = False
        self.sent: list[Message] = []
        self.woken = 0
        self.on_pause: asyncio.Event = asyncio.Event()

    def send(self, message: Message) -> None:
        self.sent.append(message)
        if isinstance(message, Pause):
            self.on_pause.set()

    def kill(self, why: str) -> None:
        raise AssertionError(f"nobody is ended here: {why}")

    def wake(self) -> None:
        self.woken += 1


class Desk:
    """One server's queue, from its start to its end."""

    def __init__(self, directory: Path, store: Store, max_attempts: int) -> None:
        self.store = store
        self.tapes = directory / "tapes"
        self.worker = ScriptedWorker()
        self.told: list[Message] = []
        tapes = Tapes(self.tapes, 1 << 30)
        settings = ServerSettings(max_attempts=max_attempts, max_queued=1000)
        self.queue = JobQueue(store, tapes, self.worker, emit=self._publish, limits=LIMITS, settings=settings)
        self.commands = QueueCommands(self.queue, store, tapes)

    @classmethod
    async def open(cls, directory: Path, max_attempts: int) -> Desk:
        store = await Store.open(directory / "queue.sqlite3")
        desk = cls(directory, store, max_attempts)
        desk.queue.restore(await store.unended(), await store.queue_values())
        return desk

    def _publish(self, event: Message) -> None:
        self.told.append(event)
        job: str | None = getattr(event, "job", None)
        if job is not None and is_recorded(event):
            self.store.record(event, job, encode(event))

    async def submit(self, submit: Submit) -> Refused | None:
        return await self.queue.submit(submit)

    async def ask(self, command: QueueCommand) -> Message | None:
        return await self.commands.carry_out(command)

    async def settle(self) -> None:
        """Until all is written, and what was to be removed is removed."""
        await self.store.flush()  # also waits for one that is under way
        while self.store.pending or self.queue._tidying:
            await self.store.flush()
            await asyncio.gather(*self.queue._tidying)

    # --- the worker's part ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        running = self.queue.running
        assert running is not None
        event = JobStarted(job=running.name, seed=7, params=running.row.params, total_images=1)
        self.queue.on_job_event(event)

    def step(self) -> None:
        running = self.queue.running
        assert running is not None
        tape = self.tapes / running.name / "batch-0000.tape"
        tape.parent.mkdir(parents=True, exist_ok=True)
        tape.touch()
        index = running.row.steps_done
        event = StepFinished(
            job=running.name, batch_index=0, step_index=index, total_steps=1000, timestep=1.0, sigma=1.0, latents=FACT,
            noise_pred=FACT, denoised=FACT, guidance_norm=None, elapsed_s=0.0, preview_s=0.0, memory_bytes=1,
        )  # fmt: skip
        self.queue.on_job_event(event)

    def save(self, index: int) -> None:
        running = self.queue.running
        assert running is not None
        path = f"/pictures/{running.name}-{index}.png"
        event = ImageSaved(
            job=running.name, path=path, seed=7, image_index=index, width_px=8, height_px=8, size_bytes=1, elapsed_s=0.0
        )
        self.queue.on_job_event(event)

    def finish(self) -> None:
        running = self.queue.running
        assert running is not None
        self.queue.on_job_event(JobFinished(job=running.name, elapsed_s=1.0, images=running.row.images))

    def fail(self) -> None:
        running = self.queue.running
        assert running is not None
        self.queue.on_job_event(JobFailed(job=running.name, message="it went wrong"))

    def cancelled(self, *, keep: bool) -> None:
        running = self.queue.running
        assert running is not None
        row = running.row
        self.queue.on_job_event(JobCancelled(job=row.job, kept_steps=row.steps_done if keep else 0, images=row.images))

    def paused(self) -> None:
        running = self.queue.running
        assert running is not None
        self.queue.on_job_event(JobPaused(job=running.name, steps_done=running.row.steps_done))

    def get_ready(self) -> None:
        self.worker.ready = True
        self.queue.on_worker_ready()

    def die(self, *, given_up: bool) -> None:
        self.worker.ready = False
        died = WorkerDied(reason="The worker was killed by SIGKILL.", exit_code=-9, log_tail="", given_up=given_up)
        if given_up:
            self.queue.on_worker_given_up(died)
        else:
            self.queue.on_worker_died(died)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def crash(self) -> None:
        """As by SIGKILL: what is not written is gone, and nobody is told."""
        self.store.pending.clear()
        if self.store._timer is not None:
            self.store._timer.cancel()
        for task in (*self.store._writing, *self.queue._tidying):
            task.cancel()
        await self.store._run(self.store._database.close)
        self.store._executor.shutdown()

    async def stop(self) -> None:
        """In order; the worker does as it is told."""
        self.worker.on_pause.clear()
        stopping = asyncio.ensure_future(self.queue.stop())
        if self.queue.running is not None:
            await self.worker.on_pause.wait()
            self.paused()
        await stopping
        await self.queue.end()
        await self.store.close()
