"""Pause, resume, the ways to cancel, and sudden deaths, in the real process: nothing is lost and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from sdtui.protocol import (
    Cancel,
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobPaused,
    JobResumed,
    LoadModel,
    ModelLoaded,
    Pause,
    ResumePoint,
    StageStarted,
    StepFinished,
    Submit,
)
from sdtui.tape import read_tape

from .test_process import WorkerProcess, a_job

pytestmark = pytest.mark.xdist_group("worker-stops")  # as its workers take long to start

STEPS = 40
ENDS = (JobFinished, JobFailed, JobCancelled, JobPaused)


@pytest.fixture(scope="module")
def worker(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tmp_path_factory.mktemp("home"))
    process.send(LoadModel(model=str(tiny_dir)))
    process.until(ModelLoaded)
    yield process
    process.stop()


def a_long_job(job: str, tiny_dir: Path, output_dir: Path, **params: Any) -> Submit:
    return a_job(job, tiny_dir, output_dir, **({"num_inference_steps": STEPS, "scheduler": "euler_a"} | params))


def resumed(submit: Submit, steps_done: int, batch_index: int = 0) -> Submit:
    return msgspec.structs.replace(submit, resume=ResumePoint(seed=3, batch_index=batch_index, steps_done=steps_done))


def step(index: int, batch: int = 0) -> Any:
    return lambda event: (event.batch_index, event.step_index) == (batch, index)


def pixels(images: tuple[str, ...]) -> list[bytes]:
    return [np.asarray(Image.open(path)).tobytes() for path in images]


def told_steps(worker: WorkerProcess, job: str) -> list[int]:
    return [event.step_index for event in worker.seen if isinstance(event, StepFinished) and event.job == job]


def test_a_paused_job_lets_another_one_run_and_goes_on_bit_for_bit(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_long_job("whole", tiny_dir, tmp_path))
    whole = worker.until(*ENDS)
    submit = a_long_job("paused", tiny_dir, tmp_path)
    worker.send(submit)
    worker.until(StepFinished, where=lambda event: event.job == "paused" and event.step_index == 3)
    worker.send(Pause(job="paused"))
    paused = worker.until(*ENDS)
    assert isinstance(paused, JobPaused) and paused.latency_s > 0
    steps = told_steps(worker, "paused")
    assert steps == list(range(paused.steps_done)), "a step was told that is not kept, or the other way round"
    assert 4 <= paused.steps_done < STEPS, "the job was over before it could be paused"
    worker.send(a_long_job("between", tiny_dir, tmp_path, num_inference_steps=2))
    assert isinstance(worker.until(*ENDS), JobFinished)
    worker.send(resumed(submit, paused.steps_done))
    told = worker.until(JobResumed)
    assert (told.steps_done, told.detail) == (paused.steps_done, "")
    finished = worker.until(*ENDS)
    assert isinstance(finished, JobFinished) and pixels(finished.images) == pixels(whole.images)
    assert told_steps(worker, "paused") == list(range(STEPS)), "a step was told twice, or never"


def test_a_job_that_waits_can_be_paused(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_long_job("first", tiny_dir, tmp_path, batch_count=100))
    worker.send(resumed(a_long_job("second", tiny_dir, tmp_path), 7))
    worker.until_computing("first")
    worker.send(Pause(job="second"), Cancel(job="first"))
    assert isinstance(worker.until(*ENDS), JobCancelled)
    paused = worker.until(*ENDS)
    assert isinstance(paused, JobPaused) and (paused.job, paused.steps_done) == ("second", 7)


def test_the_ways_to_cancel(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    worker.send(a_long_job("kept", tiny_dir, tmp_path))
    worker.until(StepFinished, where=lambda event: event.job == "kept" and event.step_index == 2)
    worker.send(Cancel(job="kept", when="after_step"))
    cancelled = worker.until(*ENDS)
    assert isinstance(cancelled, JobCancelled)
    assert cancelled.kept_steps == len(told_steps(worker, "kept")) >= 3 and cancelled.images == ()
    worker.send(a_long_job("image", tiny_dir, tmp_path, batch_count=50))
    worker.until_computing("image")
    worker.send(Cancel(job="image", when="after_image"))
    cancelled = worker.until(*ENDS)
    assert isinstance(cancelled, JobCancelled) and cancelled.kept_steps == 0
    assert len(cancelled.images) >= 1 and all(Path(path).is_file() for path in cancelled.images)
    worker.send(a_long_job("now", tiny_dir, tmp_path, batch_count=50))
    worker.until_computing("now")
    worker.send(Pause(job="now"), Cancel(job="now"))
    end = worker.until(*ENDS)
    assert isinstance(end, (JobCancelled, JobPaused)) and end.job == "now", "a pause may be over before the cancel is read"


def test_a_job_is_cancelled_while_its_model_is_loaded(worker: WorkerProcess, tiny_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(tiny_dir)
    worker.send(a_long_job("loading", other, tmp_path, batch_count=50))
    worker.until(StageStarted, where=lambda event: (event.job, event.stage) == ("loading", "load"))
    worker.send(Cancel(job="loading"))
    assert isinstance(worker.until(*ENDS), JobCancelled)
    worker.send(a_long_job("after", tiny_dir, tmp_path, num_inference_steps=2))
    assert isinstance(worker.until(*ENDS), JobFinished)


def test_a_killed_worker_loses_no_picture_and_the_next_one_goes_on_bit_for_bit(tiny_dir: Path, tmp_path: Path) -> None:
    params = {"batch_count": 2, "batch_size": 2}
    first = WorkerProcess(tmp_path)
    submit = a_long_job("job", tiny_dir, tmp_path / "out", **params)
    try:
        first.send(a_long_job("whole", tiny_dir, tmp_path / "whole", **params))
        whole = first.until(*ENDS)
        first.send(submit)
        first.until(StepFinished, where=lambda event: event.job == "job" and step(5, batch=1)(event))
    finally:
        first.stop()
    told = [event for event in first.seen if isinstance(event, StepFinished) and event.job == "job" and event.batch_index == 1]
    saved = [event for event in first.seen if isinstance(event, ImageSaved) and event.job == "job"]
    second = WorkerProcess(tmp_path)
    try:
        second.send(resumed(submit, len(told), batch_index=1))
        again = second.until(JobResumed)
        # The step that was told last may have been on its way to the tape yet.
        assert again.batch_index == 1 and again.steps_done > 0 and again.images_done == 2 and not again.detail
        finished = second.until(*ENDS)
    finally:
        second.stop()
    assert isinstance(finished, JobFinished) and pixels(finished.images) == pixels(whole.images)
    assert [event.path for event in saved] == list(finished.images[:2])
    assert len(list((tmp_path / "out").iterdir())) == 4, "a picture was saved twice, or something was left behind"
    first_new = min(again.steps_done, len(told))
    new = [event for event in second.seen if isinstance(event, StepFinished)]
    assert [(event.batch_index, event.step_index) for event in new] == [(1, index) for index in range(first_new, STEPS)]
    assert sum(event.replayed for event in new) == max(0, again.steps_done - len(told))


def test_a_worker_whose_server_has_gone_leaves_a_tape_that_is_whole(tiny_dir: Path, tmp_path: Path) -> None:
    process = WorkerProcess(tmp_path)
    try:
        process.send(a_long_job("job", tiny_dir, tmp_path / "out", num_inference_steps=500))
        process.until(StepFinished, where=step(3))
        assert process.process.stdin is not None
        process.process.stdin.close()
        process.ended()
    finally:
        process.stop()
    tape = tmp_path / "data" / "sdtui" / "tapes" / "job" / "batch-0000.tape"
    calls = read_tape(tape)[1]
    assert len(calls) >= 4
    assert tape.stat().st_size == calls[-1].offset + calls[-1].length, "the tape has a torn end"


def test_a_job_that_an_abandoned_worker_still_runs_is_waited_for(tiny_dir: Path, tmp_path: Path) -> None:
    submit = a_long_job("job", tiny_dir, tmp_path / "out", num_inference_steps=300)
    abandoned = WorkerProcess(tmp_path)
    other = WorkerProcess(tmp_path)
    try:
        other.send(LoadModel(model=str(tiny_dir)))
        other.until(ModelLoaded)
        abandoned.send(submit)
        abandoned.until(StepFinished, where=step(2))
        other.send(resumed(submit, 0), Cancel(job="nobody"))
        abandoned.stop()
        again = other.until(JobResumed, *ENDS)
        assert isinstance(again, JobResumed) and again.steps_done > 0
        other.send(Cancel(job="job"))
        assert isinstance(other.until(*ENDS), JobCancelled)
    finally:
        abandoned.stop()
        other.stop()


def test_a_broken_device_ends_the_worker_and_the_next_one_goes_on(tiny_dir: Path, tmp_path: Path) -> None:
    code = """
import os
import sdtui.worker.__main__ as worker
wire = worker.take_the_wire()
worker.take_the_wire = lambda: wire
from sdtui.worker.steps import StepLog
real = StepLog.__call__
def call(self, step):
    if self._job == "job" and step.index == 3:
        raise RuntimeError("CUDA error: device-side assert triggered")
    real(self, step)
StepLog.__call__ = call
os._exit(worker.main())
"""
    submit = a_long_job("job", tiny_dir, tmp_path / "out")
    process = WorkerProcess(tmp_path, code=code)
    try:
        process.send(submit)
        assert process.ended() == 71
        assert "device-side assert" in process.log.read_text()
    finally:
        process.stop()
    after = WorkerProcess(tmp_path)
    try:
        after.send(resumed(submit, 3))
        assert after.until(JobResumed).steps_done == 4, "the call before the error was not flushed"
        assert isinstance(after.until(*ENDS), JobFinished)
    finally:
        after.stop()
