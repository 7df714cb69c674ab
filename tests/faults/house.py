"""Client, server and worker as users have them, a worker that dies as it is told, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from sdtui import settings
from sdtui.params import GenerationParams
from sdtui.protocol import (
    ENDED,
    GetJob,
    Heartbeat,
    JobChanged,
    JobQueued,
    JobResumed,
    JobRow,
    Message,
    PreviewOptions,
    QueueChanged,
    Refused,
    Replay,
    ReplayDone,
    ServerStatus,
    Status,
    StepFinished,
    Submit,
    WorkerReady,
)
from sdtui.server.client import Client, ServerUnavailable, server_running

HERE = Path(__file__).parent
DEADLINE_S = 150.0
"""A machine that is swamped takes long to start processes; no test waits this long for what does not come."""
MOST_SERVERS = 80
"""More than any test kills."""
STEPS = 4
LONG = os.environ.get("SDTUI_FAULTS") == "long"
"""Every signal at every point, and many random moments; else a part of them."""
SEED = int(os.environ.get("SDTUI_FAULTS_SEED", "1"))
MOMENTS = int(os.environ.get("SDTUI_FAULTS_MOMENTS", "20" if LONG else "3"))

KINDS: dict[str, dict[str, Any]] = {
    "euler_a, a batch of two": {"scheduler": "euler_a", "batch_size": 2},
    "dpmpp_2m_sde": {"scheduler": "dpmpp_2m_sde", "sigmas": "karras"},
    "ddim, two batches": {"scheduler": "ddim", "batch_count": 2},
    "heun": {"scheduler": "heun"},
    "lcm": {"scheduler": "lcm", "guidance_scale": 1.5},
    "dpmpp_sde, a batch of two": {"scheduler": "dpmpp_sde", "batch_size": 2},
    "unipc": {"scheduler": "unipc"},
    "pndm": {"scheduler": "pndm"},
}
"""Schedulers with a state, with noise of their own, of second order, in batches."""


class Nest:
    """The process that forks warm workers; one for a whole test session."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "nest.sock"
        self.log = directory / "nest.log"
        runtime = {f"XDG_{name}_HOME": str(directory / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        command = [sys.executable, str(HERE / "warm_worker.py"), "nest", str(self.socket)]
        environ = {**os.environ, **runtime, "HOME": str(directory), "HF_HUB_OFFLINE": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environ)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.log.read_text()

    @property
    def command(self) -> tuple[str, ...]:
        """What the server starts as its worker."""
        return (sys.executable, "-S", "-E", str(HERE / "warm_worker.py"), str(self.socket))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE_S)


class House:
    """One home directory, its server, and a client that comes back whenever the server dies."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pictures = home / "pictures"
        self.seen: list[Message] = []
        self.rows: dict[str, JobRow] = {}
        self.worker_pid = 0
        self.server_pid = 0
        self.acknowledged: set[str] = set()
        self.ended: set[str] = set()
        """Of those we wait for, the ones whose end was told."""

    # --- faults -----------------------------------------------------------------------------------------------------

    def plan(self, *faults: dict[str, Any]) -> None:
        """What is to go wrong, one after the other."""
        path = self.home / "faults.json"
        path.with_suffix(".new").write_text(json.dumps(faults))
        path.with_suffix(".new").replace(path)

    @property
    def planned(self) -> list[dict[str, Any]]:
        """What has not happened yet."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads((self.home / "faults.json").read_text())  # type: ignore[no-any-return]
        return []

    # --- jobs -------------------------------------------------------------------------------------------------------

    def job(self, name: str, **params: Any) -> Submit:
        values = {"prompt": "a red cat in the desert", "num_inference_steps": STEPS, "seed": 7} | params
        return Submit(
            job=name,
            params=GenerationParams(**values),
            output_dir=str(self.pictures),
            name_pattern="{job}-{seed}",
            preview=PreviewOptions(max_per_s=60.0),
        )

    async def run(
        self,
        submits: Iterable[Submit],
        at: Callable[[House, Client, Message], Any] | None = None,
    ) -> dict[str, JobRow]:
        """Submit jobs and stay until all have ended, over as many servers as it takes; `at` sees every message."""
        waiting = {submit.job: submit for submit in submits}
        for lives in itertools.count():
            if not waiting:
                break
            assert lives < MOST_SERVERS, f"{sorted(waiting)} do not end\n{self.logs()}"
            try:
                client = await Client.connect(name="faults")
            except ServerUnavailable as error:
                assert "exit code -9" in str(error), error  # it was killed before it answered, as was planned
                continue
            try:
                await self._follow(client, waiting, at)
            finally:
                await client.close()
        return self.rows

    async def _follow(self, client: Client, waiting: dict[str, Submit], at: Callable[..., Any] | None) -> None:
        self.server_pid = client.welcome.pid
        with contextlib.suppress(ServerUnavailable):
            for name, submit in waiting.items():
                await client.send(GetJob(job=name) if name in self.acknowledged else submit)
            await client.send(Status())
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(DEADLINE_S) as limit:
                async for message in client.events():
                    if not isinstance(message, Heartbeat):
                        limit.reschedule(loop.time() + DEADLINE_S)
                    self.seen.append(message)
                    await self._note(client, waiting, message)
                    if at is not None:
                        at(self, client, message)
                    if not waiting:
                        return

    async def _note(self, client: Client, waiting: dict[str, Submit], message: Message) -> None:
        job = getattr(message, "job", None)
        match message:
            case WorkerReady(pid=int(pid)) | ServerStatus(worker_pid=int(pid)):
                self.worker_pid = pid
            case JobQueued():
                self.acknowledged.add(message.job)
            case Refused() if job in waiting:
                assert "already" in message.message, message
                self.acknowledged.add(job)
                await client.send(GetJob(job=job))
            case JobChanged(row=row) if row.state in ENDED and job in waiting:
                self.rows[row.job] = row
                del waiting[row.job]
                self.ended.discard(row.job)
            case QueueChanged(trouble=""):  # what ended while the database could not be written is in it now
                for name in self.ended:
                    await client.send(GetJob(job=name))
            case _ if type(message).__name__ in ("JobFinished", "JobFailed", "JobCancelled") and job in waiting:
                self.ended.add(message.job)  # type: ignore[attr-defined]
                await client.send(GetJob(job=message.job))  # type: ignore[attr-defined]

    def of(self, kind: type[Any], job: str | None = None) -> list[Any]:
        """What was seen of a kind, in order."""
        return [message for message in self.seen if isinstance(message, kind) and job in (None, getattr(message, "job", None))]

    # --- what must be true ------------------------------------------------------------------------------------------

    def files_of(self, name: str) -> list[Path]:
        """The pictures of a job that are on disk."""
        return sorted(self.pictures.glob(f"{name}-*.png"))

    async def check(self, submits: Iterable[Submit], expected: dict[str, list[bytes]] | None = None) -> None:
        """Nothing is lost, nothing is there twice, nothing is half-written, and no bit differs."""
        submits = list(submits)
        assert not self.planned, f"faults that did not happen: {self.planned}"
        for submit in submits:
            row = self.rows[submit.job]
            assert row.state == "done", (submit.job, row.state, row.reason, self.logs())
            files = self.files_of(submit.job)
            count = submit.params.batch_size * submit.params.batch_count
            assert len(files) == count, (submit.job, [file.name for file in files])
            assert sorted(row.images) == [str(file) for file in files]
            assert self.images_in_database(submit.job) == sorted(row.images)
            pixels = [pixels_of(file) for file in files]
            if expected is not None:
                wanted = expected[submit.job]
                assert [pixels[index] == wanted[index] for index in range(count)] == [True] * count, "a picture differs"
        left = [path.name for path in self.pictures.iterdir() if path.suffix not in (".png", "") and path.name != "filler"]
        assert left == [], "something is left half-written"

    def images_in_database(self, name: str) -> list[str]:
        """The pictures of a job as the database has them, read beside the server."""
        connection = sqlite3.connect(f"file:{settings.database_path()}?mode=ro", uri=True)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return sorted(path for (path,) in connection.execute("SELECT path FROM images WHERE job = ?", (name,)))
        finally:
            connection.close()

    async def check_record(self, *names: str) -> None:
        """Each step of each job is in its record once and in order, but for those that `JobResumed` says are made again."""
        client = await Client.connect(name="reader")
        try:
            for name in names:
                await client.send(Replay(job=name))
                following: dict[int, int] = {}
                async with asyncio.timeout(DEADLINE_S):
                    async for message in client.events():
                        if isinstance(message, ReplayDone):
                            break
                        if getattr(message, "job", None) == name:
                            _follow_record(following, message)
                assert following, f"{name} has no step in its record"
        finally:
            await client.close()

    def logs(self) -> str:
        """The ends of both logs, for a failure."""
        ends = []
        for path in (settings.server_log_path(), settings.worker_log_path()):
            with contextlib.suppress(OSError):
                ends += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-25:]]
        return "\n".join(ends)

    # --- the end ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Kill what is left of the server; its worker goes with it."""
        pid = server_running()
        if pid is not None:
            kill(pid, signal.SIGKILL)


def _follow_record(following: dict[int, int], message: Message) -> None:
    """`following`: the index of the next step of each batch."""
    match message:
        case JobResumed(batch_index=batch, steps_done=steps):
            following.update({at: min(index, steps if at == batch else 0) for at, index in following.items() if at >= batch})
        case StepFinished(batch_index=batch, step_index=index):
            assert index == following.get(batch, 0), f"{message.job}: step {index} of batch {batch} is told, not {following}"
            following[batch] = index + 1


_references: dict[str, list[bytes]] = {}


async def references(house: House, kinds: Iterable[str]) -> dict[str, list[bytes]]:
    """The pictures of undisturbed runs, by kind; made once for a test session."""
    missing = [kind for kind in kinds if kind not in _references]
    submits = {kind: house.job(f"reference-{list(KINDS).index(kind)}", **KINDS[kind]) for kind in missing}
    await house.run(submits.values())
    for kind, submit in submits.items():
        assert house.rows[submit.job].state == "done", house.rows[submit.job]
        _references[kind] = [pixels_of(file) for file in house.files_of(submit.job)]
    return _references


def pixels_of(path: Path) -> bytes:
    """Every pixel of a picture, which has to open."""
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        assert image.size == (128, 128)
        return np.asarray(image).tobytes()


def kill(pid: int, number: int) -> None:
    """Send a signal; no matter if the process is gone."""
    assert pid > 0, "0 is the process group of the tests themselves"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    end = time.monotonic() + DEADLINE_S
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} does not end"
        await asyncio.sleep(0.01)


def use_worker(monkeypatch: Any, command: Iterable[str]) -> None:
    """What the next server starts as its worker."""
    monkeypatch.setenv("SDTUI_WORKER_COMMAND", shlex.join(command))


def renamed(submit: Submit, name: str) -> Submit:
    """The same job under another name."""
    return msgspec.structs.replace(submit, job=name)
