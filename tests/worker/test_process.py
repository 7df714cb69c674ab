"""The real `python -m sdtui.worker` over real pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    Heartbeat,
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobStarted,
    LoadModel,
    Message,
    ModelFailed,
    ModelLoaded,
    PreviewReady,
    StageStarted,
    StepFinished,
    Submit,
    WorkerReady,
    WorkerStage,
    encode,
    read_message_blocking,
)

DEADLINE_S = 90
pytestmark = pytest.mark.xdist_group("worker-process")  # one worker for all: it takes half a minute to start on busy cores

NOISY = """
import os, sys
os.write(1, b"a library writes to fd 1 before anything is set up")
print("and prints")
"""


class WorkerProcess:
    """A worker and a thread that reads what it says."""

    def __init__(self, home: Path, *, code: str | None = None, **environ: str) -> None:
        self.log = home / "worker.log"
        command = [sys.executable, "-m", "sdtui.worker"] if code is None else [sys.executable, "-c", code]
        runtime = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        settings = {"HOME": str(home), "SDTUI_WORKER_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **runtime, **settings, **environ},
            )
        self.queue: Queue[Message | Exception | None] = Queue()
        self.seen: list[Message] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            while (message := read_message_blocking(self.process.stdout)) is not None:
                self.queue.put(message)
            self.queue.put(None)
        except Exception as error:
            self.queue.put(error)

    def send(self, *messages: Message) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(encode(message) for message in messages))
        self.process.stdin.flush()

    def until(self, *kinds: type[Any], where: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next event of one of these kinds; all others are kept in `seen`."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                message = self.queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                pytest.fail(f"no {kinds} in time; the log says: {self.log.read_text()[-2000:]}")
            if message is None or isinstance(message, Exception):
                pytest.fail(f"the wire ended: {message!r}; the log says: {self.log.read_text()[-2000:]}")
            self.seen.append(message)
            if isinstance(message, kinds) and where(message):
                return message

    def until_computing(self, job: str) -> None:
        found = self.until(StepFinished, JobFailed, where=lambda event: event.job == job)
        assert isinstance(found, StepFinished), found

    def ended(self) -> int:
        return self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def a_job(job: str, model: Path, output_dir: Path, **params: Any) -> Submit:
    values = {"prompt": "a red cat", "num_inference_steps": 3, "model": str(model), "seed": 3} | params
    return Submit(job=job, params=GenerationParams(**values), output_dir=str(output_dir))


@pytest.fixture(scope="module")
def worker(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One worker for the tests that leave it alive, with the tiny model in it."""
    process = WorkerProcess(tmp_path_factory.mktemp("home"))
    process.send(LoadModel(model=str(tiny_dir)))
    process.until(ModelLoaded)
    yield process
    process.stop()


def test_it_starts_in_stages_and_says_on_what(worker: WorkerProcess, tiny_dir: Path) -> None:
    stages = [(event.stage, event.state) for event in worker.seen if isinstance(event, WorkerStage)]
    names = ["handshake", "torch", "diffusers", "model", "warm_up"]
    assert stages[:10] == [(name, state) for name in names for state in ("started", "finished")]
    ready = next(event for event in worker.seen if isinstance(event, WorkerReady))
    assert ready.pid == worker.process.pid and ready.why
    loaded = next(event for event in worker.seen if isinstance(event, ModelLoaded))
    assert (loaded.info.default_width_px, loaded.info.size_multiple_px, loaded.info.max_tokens) == (64, 8, 77)
    assert loaded.info.tokenizer_dir == str(tiny_dir / "tokenizer")
    assert set(loaded.info.parameters) == {"unet", "vae", "text_encoder"}
    assert loaded.info.guides


def test_a_job_runs_from_command_to_file(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_job("whole", tiny_dir, tmp_path, batch_count=2))
    finished = worker.until(JobFinished, JobFailed)
    assert isinstance(finished, JobFinished) and finished.job == "whole"
    assert [Path(path).is_file() for path in finished.images] == [True, True]
    of_job = [event for event in worker.seen if getattr(event, "job", None) == "whole"]
    assert isinstance(of_job[0], JobStarted)
    assert {type(event) for event in of_job} >= {StepFinished, PreviewReady, ImageSaved}
    assert not any(isinstance(event, StageStarted) and event.stage == "load" for event in of_job), "the model was there"


def test_cancel_is_seen_while_it_computes(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_job("long", tiny_dir, tmp_path, num_inference_steps=500, batch_count=100))
    worker.until_computing("long")
    worker.send(Cancel(job="long"))
    cancelled = worker.until(JobCancelled, JobFinished, JobFailed)
    assert isinstance(cancelled, JobCancelled) and cancelled.job == "long"
    assert 0 < cancelled.latency_s < DEADLINE_S


def test_a_job_that_waits_is_dropped_when_cancelled(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_job("first", tiny_dir, tmp_path, num_inference_steps=500, batch_count=100))
    worker.send(a_job("second", tiny_dir, tmp_path))
    worker.until_computing("first")
    worker.send(Cancel(job="second"), Cancel(job="nobody"), Cancel(job="first"))
    assert worker.until(JobCancelled).job == "first"
    assert worker.until(JobCancelled) == JobCancelled(job="second", latency_s=0.0)


def test_a_job_that_fails_names_its_field_and_the_worker_lives_on(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_job("odd", tiny_dir, tmp_path, width=100))
    failed = worker.until(JobFailed)
    assert (failed.job, failed.field) == ("odd", "width") and "Near it: 96 or 104" in failed.message
    worker.send(a_job("nowhere", tmp_path / "missing", tmp_path))
    failed = worker.until(JobFailed)
    assert (failed.job, failed.field) == ("nowhere", "model")
    worker.send(a_job("well", tiny_dir, tmp_path))
    assert worker.until(JobFinished, JobFailed).job == "well"
    of_job = [event for event in worker.seen if getattr(event, "job", None) == "well"]
    assert not any(isinstance(event, StageStarted) and event.stage == "load" for event in of_job), "the model stayed in memory"


def test_the_heart_beats_while_it_computes(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_job("beating", tiny_dir, tmp_path, num_inference_steps=500, batch_count=100))
    worker.until_computing("beating")
    assert worker.until(Heartbeat).rss_bytes > 10_000_000
    worker.send(Cancel(job="beating"))
    worker.until(JobCancelled)


def test_a_model_that_cannot_be_loaded_is_said_and_the_next_one_loads(
    worker: WorkerProcess, tiny_dir: Path, tmp_path: Path
) -> None:
    worker.send(LoadModel(model=str(tmp_path)))
    failed = worker.until(ModelFailed)
    assert failed.model == str(tmp_path) and "is empty" in failed.message
    worker.send(a_job("after", tiny_dir, tmp_path / "out"))
    assert worker.until(ModelLoaded).info.model == str(tiny_dir)
    assert worker.until(JobFinished, JobFailed).job == "after"
    stages = [event.stage for event in worker.seen if isinstance(event, StageStarted) and event.job == "after"]
    assert stages[0] == "load"


@pytest.mark.parametrize(
    ("last_words", "code", "says"),
    [
        (b"", 0, ""),
        (b"\x00\x00\x00\x05hello", 65, "MalformedFrame"),
        (b"\xff\xff\xff\xff", 65, "FrameTooLarge"),
        (b"\x00", 65, "TruncatedFrame"),
    ],
    ids=["end", "garbage", "too large", "truncated"],
)
def test_it_ends_with_its_stdin_and_says_why(tmp_path: Path, last_words: bytes, code: int, says: str) -> None:
    process = WorkerProcess(tmp_path)
    try:
        process.until(WorkerStage)
        assert process.process.stdin is not None
        process.process.stdin.write(last_words)
        process.process.stdin.close()
        assert process.ended() == code
        assert says in process.log.read_text()
    finally:
        process.stop()


def test_what_libraries_print_is_in_the_log_and_not_on_the_wire(tmp_path: Path) -> None:
    code = f"""
import runpy, threading, os, sys
import sdtui.worker.__main__ as worker
take = worker.take_the_wire
def noisy():
    wire = take()
    {NOISY.strip().replace(chr(10), chr(10) + "    ")}
    return wire
worker.take_the_wire = noisy
os._exit(worker.main())
"""
    process = WorkerProcess(tmp_path, code=code)
    try:
        process.until(WorkerStage, where=lambda stage: stage.stage == "torch")
        assert process.process.stdin is not None
        process.process.stdin.close()
        process.ended()
        log = process.log.read_text()
        assert "a library writes to fd 1" in log and "and prints" in log
    finally:
        process.stop()


def test_a_settings_file_with_an_error_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config" / "sdtui"
    config.mkdir(parents=True)
    (config / "settings.toml").write_text("[worker]\nthredas = 2\n")
    process = WorkerProcess(tmp_path)
    assert process.ended() == 2
    assert "did you mean 'threads'" in process.log.read_text()
