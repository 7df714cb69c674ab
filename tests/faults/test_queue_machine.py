"""The queue as a state machine: whatever clients, workers and crashes do to it, it is as a simple model of it says."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdtui.params import GenerationParams
from sdtui.protocol import (
    ENDED,
    BranchPoint,
    Cancel,
    CancelWaiting,
    CancelWhen,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    Hold,
    Message,
    Move,
    Pause,
    Refused,
    Resume,
    Retry,
    SetPriority,
    Submit,
)
from tests.faults.house import LONG
from tests.faults.scripted_queue import Desk
from tests.server.harness import job

MAX_ATTEMPTS = 2
PRIORITIES = st.integers(-1, 1)
HOW = st.sampled_from(["now", "after_image", "after_step"])
STRENGTH = {"pause": 1, "after_image": 2, "after_step": 3, "now": 4}
T = TypeVar("T")


@dataclass
class Model:
    """A job as the model has it."""

    priority: int
    prompt: str = "a red cat"
    state: str = "queued"
    steps: int = 0
    images: set[int] = field(default_factory=set)
    attempts: int = 0
    begun: bool = False
    asked: str = ""
    parent: str | None = None
    """The job that it branches from."""
    needs_steps: bool = False
    """Whether the parent had steps when this job was queued; then they stay until it has ended."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def is_running(self: QueueMachine) -> bool:
    return self.running is not None


def any_job(self: QueueMachine) -> bool:
    return bool(self.jobs)


class QueueMachine(RuleBasedStateMachine):
    """Two queues side by side: the real one with its database, and lists in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="sdtui-q-"))
        self.runner = asyncio.Runner()
        self.desk = self.do(Desk.open(self.directory, MAX_ATTEMPTS))
        self.jobs: dict[str, Model] = {}
        self.order: list[str] = []
        """Names of those that wait."""
        self.paused: list[str] = []
        self.running: str | None = None
        self.held = self.ready = False
        self.made = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.do(self.desk.crash())
        self.runner.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.jobs)), label="job")

    # --- the model's own moves --------------------------------------------------------------------------------------

    def _insert(self, name: str, *, first: bool) -> None:
        priority = self.jobs[name].priority
        others = [self.jobs[other].priority for other in self.order]
        place = sum(other > priority for other in others) if first else sum(other >= priority for other in others)
        self.order.insert(place, name)

    def _advance(self) -> None:
        if self.running is None and self.order and self.ready and not self.held:
            self.running = self.order.pop(0)
            model = self.jobs[self.running]
            model.state, model.begun, model.asked = "running", True, ""

    def _remove(self, name: str) -> None:
        for names in (self.order, self.paused):
            if name in names:
                names.remove(name)

    def _off(self, state: str) -> Model:
        assert self.running is not None
        name, self.running = self.running, None
        model = self.jobs[name]
        model.state = state
        if state == "paused":
            self.paused.append(name)
        if state == "interrupted":
            self._insert(name, first=True)
        return model

    def _next_name(self) -> str:
        self.made += 1
        return f"job-{self.made:03d}"

    def _new(self, name: str, model: Model) -> None:
        self.jobs[name] = model
        self._queued(name, first=False)

    def _queued(self, name: str, *, first: bool) -> None:
        model = self.jobs[name]
        model.needs_steps = model.parent is not None and self._has_steps(model.parent)
        self._insert(name, first=first)
        self._advance()

    def _has_steps(self, name: str) -> bool:
        return (self.desk.tapes / name / "batch-0000.tape").exists()

    def _can_be_branched_from(self, parent: str | None) -> bool:
        return parent is None or (parent in self.jobs and (not self.jobs[parent].ended or self._has_steps(parent)))

    def _is_needed(self, name: str) -> bool:
        return not self.jobs[name].ended or any(job.parent == name and not job.ended for job in self.jobs.values())

    def ask(self, command: Any) -> Message | None:
        async def asked() -> Message | None:
            answer = await self.desk.ask(command)
            await self.desk.settle()
            return answer

        return self.do(asked())

    def worker(self, work: Any) -> None:
        async def worked() -> None:
            work()
            await self.desk.settle()

        self.do(worked())

    # --- clients ----------------------------------------------------------------------------------------------------

    @rule(priority=PRIORITIES)
    def submit(self, priority: int) -> None:
        name = self._next_name()
        assert self.do(self.desk.submit(job(name, priority=priority))) is None
        self._new(name, Model(priority))

    @precondition(any_job)
    @rule(data=st.data(), priority=PRIORITIES)
    def submit_a_branch(self, data: st.DataObject, priority: int) -> None:
        parent, name = self.pick(data), self._next_name()
        possible = self._can_be_branched_from(parent)
        answer = self.do(self.desk.submit(job(name, priority=priority, branch=BranchPoint(job=parent, step=1))))
        assert isinstance(answer, Refused) == (not possible)
        if possible:
            self._new(name, Model(priority, parent=parent))

    @precondition(any_job)
    @rule(data=st.data())
    def submit_a_name_that_is_taken(self, data: st.DataObject) -> None:
        assert isinstance(self.do(self.desk.submit(job(self.pick(data)))), Refused)

    @precondition(any_job)
    @rule(data=st.data(), when=HOW)
    def cancel(self, data: st.DataObject, when: CancelWhen) -> None:
        name = self.pick(data)
        model = self.jobs[name]
        answer = self.ask(Cancel(job=name, when=when))
        assert isinstance(answer, Refused) == (model.state in ENDED)
        if name == self.running:
            model.asked = max(model.asked, when, key=lambda how: STRENGTH.get(how, 0))
        elif model.state not in ENDED:
            self._remove(name)
            model.state = "cancelled"
            if when != "after_step":
                model.steps = 0
        self._advance()

    @rule()
    def cancel_waiting(self) -> None:
        self.ask(CancelWaiting())
        for name in self.order:
            self.jobs[name].state, self.jobs[name].steps = "cancelled", 0
        self.order.clear()

    @precondition(any_job)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        name = self.pick(data)
        model = self.jobs[name]
        answer = self.ask(Pause(job=name))
        if name in self.order:
            self.order.remove(name)
            self.paused.append(name)
            model.state = "paused"
        elif name == self.running and model.asked in ("", "pause"):
            model.asked = "pause"
        else:
            assert isinstance(answer, Refused)
            return
        assert not isinstance(answer, Refused)
        self._advance()

    @precondition(any_job)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        name = self.pick(data)
        answer = self.ask(Resume(job=name))
        assert isinstance(answer, Refused) == (name not in self.paused)
        if name in self.paused:
            self.paused.remove(name)
            self.jobs[name].state = "queued"
            self._insert(name, first=True)
            self._advance()

    @precondition(any_job)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        name = self.pick(data)
        model = self.jobs[name]
        possible = model.state in ("failed", "cancelled") and self._can_be_branched_from(model.parent)
        answer = self.ask(Retry(job=name))
        assert isinstance(answer, Refused) == (not possible)
        if possible:
            model.state, model.attempts = "queued", 0
            self._queued(name, first=True)

    @precondition(any_job)
    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        source = self.jobs[name := self.pick(data)]
        copy, possible = self._next_name(), self._can_be_branched_from(source.parent)
        assert isinstance(self.ask(Duplicate(job=name, new_job=copy)), Refused) == (not possible)
        if possible:
            self._new(copy, Model(source.priority, source.prompt, parent=source.parent))

    @precondition(any_job)
    @rule(data=st.data(), prompt=st.sampled_from(["a blue bird", "a tree"]))
    def edit(self, data: st.DataObject, prompt: str) -> None:
        name = self.pick(data)
        model = self.jobs[name]
        answer = self.ask(Edit(job=name, params=GenerationParams(prompt=prompt)))
        possible = model.state not in (*ENDED, "running") and not model.begun
        assert isinstance(answer, Refused) == (not possible)
        if possible:
            model.prompt = prompt

    @precondition(any_job)
    @rule(data=st.data(), to=st.sampled_from(["first", "up", "down", "last"]))
    def move(self, data: st.DataObject, to: Any) -> None:
        name = self.pick(data)
        answer = self.ask(Move(job=name, to=to))
        assert isinstance(answer, Refused) == (name not in self.order)
        if name in self.order:
            place, last = self.order.index(name), len(self.order) - 1
            target = {"first": 0, "up": max(0, place - 1), "down": min(last, place + 1), "last": last}[to]
            if target != place:
                self.jobs[name].priority = self.jobs[self.order[target]].priority
                self.order.remove(name)
                self.order.insert(target, name)

    @precondition(any_job)
    @rule(data=st.data(), priority=PRIORITIES)
    def set_priority(self, data: st.DataObject, priority: int) -> None:
        name = self.pick(data)
        answer = self.ask(SetPriority(job=name, priority=priority))
        assert isinstance(answer, Refused) == (name not in self.order)
        if name in self.order and self.jobs[name].priority != priority:
            self.jobs[name].priority = priority
            self.order.remove(name)
            self._insert(name, first=False)

    @rule(on=st.booleans())
    def hold(self, on: bool) -> None:
        self.ask(Hold(on=on))
        self.held = on
        self._advance()

    @precondition(any_job)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = self.pick(data)
        needed = self._is_needed(name)
        assert isinstance(self.ask(Delete(job=name)), Refused) == needed
        if not needed:
            del self.jobs[name]

    @precondition(lambda self: any(model.parent is not None and not model.ended for model in self.jobs.values()))
    @rule(data=st.data())
    def delete_a_parent(self, data: st.DataObject) -> None:
        parents = {model.parent for model in self.jobs.values() if model.parent is not None and not model.ended}
        assert isinstance(self.ask(Delete(job=data.draw(st.sampled_from(sorted(parents)), label="parent"))), Refused)

    @rule()
    def delete_ended(self) -> None:
        self.ask(DeleteEnded())
        self.jobs = {name: model for name, model in self.jobs.items() if self._is_needed(name)}

    # --- the worker -------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.ready)
    @rule()
    def worker_is_ready(self) -> None:
        self.worker(self.desk.get_ready)
        self.ready = True
        self._advance()

    @precondition(is_running)
    @rule()
    def worker_begins(self) -> None:
        self.worker(self.desk.begin)

    @precondition(is_running)
    @rule(many=st.integers(1, 3))
    def worker_steps(self, many: int) -> None:
        for _ in range(many):
            self.worker(self.desk.step)
        self.jobs[self.running or ""].steps += many

    @precondition(is_running)
    @rule(index=st.integers(0, 2))
    def worker_saves(self, index: int) -> None:
        """A picture that it saved before is told again by a worker that takes up a job."""
        self.worker(lambda: self.desk.save(index))
        self.jobs[self.running or ""].images.add(index)

    @precondition(is_running)
    @rule()
    def worker_finishes(self) -> None:
        self.worker(self.desk.finish)
        self._off("done")
        self._advance()

    @precondition(is_running)
    @rule()
    def worker_does_it_all(self) -> None:
        """What ends jobs often enough, with steps that others can branch from."""
        self.worker_begins()
        self.worker_steps(1)
        self.worker_finishes()

    @precondition(is_running)
    @rule()
    def worker_fails(self) -> None:
        self.worker(self.desk.fail)
        self._off("failed")
        self._advance()

    @precondition(lambda self: self.running is not None and self.jobs[self.running].asked)
    @rule()
    def worker_obeys(self) -> None:
        asked = self.jobs[self.running or ""].asked
        if asked == "pause":
            self.worker(self.desk.paused)
            self._off("paused")
        else:
            self.worker(lambda: self.desk.cancelled(keep=asked == "after_step"))
            model = self._off("cancelled")
            if asked != "after_step":
                model.steps = 0
        self._advance()

    @precondition(lambda self: self.ready)
    @rule(given_up=st.booleans())
    def worker_dies(self, given_up: bool) -> None:
        self.worker(lambda: self.desk.die(given_up=given_up))
        self.ready = False
        if self.running is None:
            return
        model = self.jobs[self.running]
        model.attempts = max(model.attempts, MAX_ATTEMPTS if given_up else 0) + 1
        if model.asked == "pause":
            self._off("paused")
        elif model.asked:
            self._off("cancelled")
            if model.asked != "after_step":
                model.steps = 0
        else:
            self._off("failed" if model.attempts > MAX_ATTEMPTS else "interrupted")

    # --- the server -------------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        self.desk = self.do(Desk.open(self.directory, MAX_ATTEMPTS))
        self.do(self.desk.settle())
        self.ready = False
        self.paused = [name for name in self.jobs if name in self.paused]  # they have no order but that of their making

    @rule(unwritten=st.integers(0, 2))
    def server_is_killed(self, unwritten: int) -> None:
        """With steps that it has not written yet, which are lost to it, though not to the worker's tape."""

        async def killed() -> None:
            for _ in range(unwritten if self.running is not None else 0):
                self.desk.step()
            await self.desk.crash()

        self.do(killed())
        if self.running is not None:
            self._off("interrupted")
        self._reopen()

    @rule()
    def server_is_stopped(self) -> None:
        self.do(self.desk.stop())
        if self.running is not None:
            self._off("paused" if self.jobs[self.running].asked == "pause" else "interrupted")
        self._reopen()

    # --- what must be true ------------------------------------------------------------------------------------------

    @invariant()
    def the_queue_is_as_the_model_says(self) -> None:
        queue = self.desk.queue
        assert (queue.running and queue.running.name) == self.running
        assert [row.job for row in queue.rows(1000)] == [*([self.running] if self.running else []), *self.order, *self.paused]
        assert queue.held == self.held
        for row in queue.rows(1000):
            model = self.jobs[row.job]
            assert (row.state, row.priority, row.steps_done) == (model.state, model.priority, model.steps), row.job

    @invariant()
    def the_database_is_as_the_model_says(self) -> None:
        self.do(self.desk.settle())
        database = sqlite3.connect(f"file:{self.directory / 'queue.sqlite3'}?mode=ro", uri=True)
        try:
            columns = "job, state, priority, steps_done, attempts"
            found = {row[0]: row[1:] for row in database.execute(f"SELECT {columns} FROM jobs")}
            waiting = "SELECT job FROM jobs WHERE state IN ('queued', 'interrupted') ORDER BY priority DESC, rank, job"
            order = [name for (name,) in database.execute(waiting)]
            images = set(database.execute("SELECT job, image_index FROM images"))
        finally:
            database.close()
        assert found == {name: (job.state, job.priority, job.steps, job.attempts) for name, job in self.jobs.items()}
        assert order == self.order
        assert images == {(name, index) for name, job in self.jobs.items() for index in job.images}

    @invariant()
    def what_branches_go_on_from_is_there(self) -> None:
        for name, model in self.jobs.items():
            if model.parent is not None and not model.ended:
                assert model.parent in self.jobs, f"{model.parent} was deleted under {name}"
                assert self._has_steps(model.parent) or not model.needs_steps, f"the steps of {model.parent} went under {name}"

    @invariant()
    def the_worker_was_told_of_each_job_as_it_is(self) -> None:
        submits = [message for message in self.desk.worker.sent if isinstance(message, Submit)]
        if self.running is not None:
            assert submits[-1].job == self.running
            assert submits[-1].params.prompt == self.jobs[self.running].prompt
            point = submits[-1].branch
            assert (point and point.job) == self.jobs[self.running].parent
            assert len(submits) == 1 or submits[-1] is not submits[-2]


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=400 if LONG else 60,
    stateful_step_count=40 if LONG else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
