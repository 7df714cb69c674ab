"""The real app in a pseudo-terminal with a real server and worker: how smooth its loop runs, how soon a job begins."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from sdtui.bench.figures import Figure, milliseconds, percentile
from sdtui.bench.isolation import isolated
from sdtui.bench.terminal import Terminal, in_terminal
from sdtui.bench.ticker import Gap, IdleProcess

STALL_TARGET_MS: Final = 25.0
FIRST_STEP_TARGET_MS: Final = 150.0
_GENERATE: Final = "\x1b[15~"
"""F5, as xterm sends it."""
_PROMPT: Final = "a red cat"
_KEY_TIMEOUT_S: Final = 20.0
_LOAD_TIMEOUT_S: Final = 240.0
_JOB_TIMEOUT_S: Final = 240.0
_LOOK_S: Final = 0.1
"""How long one look waits; then the deadlines are minded."""


Told = Iterator[dict[str, Any] | None]
"""What the app tells, None while it says nothing."""


@dataclass
class Job:
    """One job as the app saw it, in monotonic seconds."""

    pressed: float
    marks: list[tuple[str, float]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def first(self, kind: str) -> float:
        """When the first event of this kind came, after the key press."""
        return next(at for mark, at in self.marks if mark == kind) - self.pressed

    def count(self, kind: str) -> int:
        """How many events of this kind came."""
        return sum(mark == kind for mark, _ in self.marks)


@dataclass
class Session:
    """The warm jobs of one run of the app, and the ticks of an idle process meanwhile."""

    jobs: list[Job]
    idle: list[Gap]


def run_jobs(count: int) -> Session:
    """Start the app, wait for the model, make a first picture, then so many more, each after the end of the one before."""
    with watched_app() as (terminal, told):

        def begin() -> float:
            return terminal.type(_GENERATE)

        terminal.type(_PROMPT)
        terminal.wait_for(_PROMPT, _KEY_TIMEOUT_S)  # keys that are bound on the screen overtake those that are typed
        run_job(begin, told)
        with IdleProcess() as idle:
            jobs = [run_job(begin, told) for _ in range(count)]
            return Session(jobs, idle.gaps())


@contextmanager
def watched_app() -> Iterator[tuple[Terminal, Told]]:
    """The app in a terminal with its model loaded, and what it tells."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "sdtui.bench.watched_app", str(writing)]
    try:
        with isolated(), in_terminal(command, pass_fds=[writing]) as terminal:
            told = _told(terminal, reading)
            _until(told, "ModelLoaded", _LOAD_TIMEOUT_S)
            yield terminal, told
    finally:
        os.close(reading)
        os.close(writing)


def run_job(begin: Callable[[], float], told: Told) -> Job:
    """Begin a job and see it to its end; `begin` returns the monotonic time. Raises `TimeoutError`, `RuntimeError`."""
    job = Job(pressed=begin())
    deadline = time.monotonic() + _JOB_TIMEOUT_S
    for fact in told:
        if time.monotonic() > deadline:
            raise TimeoutError(f"A job did not end within {_JOB_TIMEOUT_S:.0f} s.")
        if fact is None:
            continue
        job.marks.append((fact["type"], fact["at"]))
        if fact["type"] in ("JobFailed", "JobCancelled"):
            raise RuntimeError(f"A job of the bench ended with {fact['type']}.")
        if fact["type"] == "ticks":
            job.gaps = [Gap(*gap) for gap in fact["gaps"]]
            return job
    raise RuntimeError("The app ended during a job.")


def _until(told: Told, kind: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for fact in told:
        if fact is not None and fact["type"] == kind:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{kind} did not come within {timeout_s:.0f} s.")
    raise RuntimeError("The app ended while it started.")


def _told(terminal: Terminal, descriptor: int) -> Told:
    """What the app tells, line by line, None while it says nothing."""
    rest = b""
    while terminal.process.poll() is None:
        if not select.select([descriptor], [], [], _LOOK_S)[0]:
            yield None
            continue
        rest += os.read(descriptor, 1 << 20)
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield json.loads(line)


def measure_stall(session: Session) -> list[Figure]:
    """The gaps of a 10 ms ticker on the app's event loop while jobs run with previews."""
    jobs = session.jobs
    gaps = [gap.wall_s for job in jobs for gap in job.gaps]
    busy = [gap.busy_s for job in jobs for gap in job.gaps]
    idle = [gap.wall_s for gap in session.idle]
    previews = sum(job.count("PreviewReady") for job in jobs)
    note = f"{len(gaps)} ticks, {len(jobs)} jobs, {previews} previews"
    steady, any_process = "hardly moved by other programs", "what the machine does to any"
    return [
        milliseconds("stall", "gap of a 10 ms ticker, median", median(gaps)),
        milliseconds("stall", "gap of a 10 ms ticker, 99th percentile", percentile(gaps, 0.99), STALL_TARGET_MS, note),
        milliseconds("stall", "gap of a 10 ms ticker, longest", max(gaps)),
        milliseconds("stall", "work of the loop in a gap, 99th percentile", percentile(busy, 0.99), note=steady),
        milliseconds("stall", "work of the loop in a gap, longest", max(busy)),
        milliseconds("stall", "gap in an idle process meanwhile, 99th percentile", percentile(idle, 0.99), note=any_process),
        milliseconds("stall", "gap in an idle process meanwhile, longest", max(idle)),
    ]


def measure_first_step(session: Session) -> list[Figure]:
    """From the key press to the start of the first step and to its end, for jobs on a warm worker."""
    jobs = session.jobs
    starts = [job.first("denoise") for job in jobs]
    ends = [job.first("StepFinished") for job in jobs]
    note = f"{len(jobs)} warm jobs; key press to the event's arrival in the app"
    return [
        milliseconds("first-step", "first step starts after, median", median(starts), FIRST_STEP_TARGET_MS, note),
        milliseconds("first-step", "first step starts after, longest", max(starts)),
        milliseconds("first-step", "first step is done after, median", median(ends)),
    ]
