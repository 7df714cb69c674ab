"""The order of waiting jobs, against the simplest model of it: a list of names and priorities."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sdtui.server.job import Job
from sdtui.server.order import WaitingJobs
from tests.server.harness import job

PRIORITIES = st.integers(-2, 2)


def make(name: str, priority: int = 0) -> Job:
    return Job.new(job(name, priority=priority), 1.0)


class Order(RuleBasedStateMachine):
    """Whatever is done to the queue, it is in the order of the model, and in the same order after a restart."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = WaitingJobs()
        self.model: list[tuple[str, int]] = []
        self.made = 0

    def pick(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.model) - 1), label="place")

    def group_end(self, priority: int) -> int:
        return sum(other >= priority for _, other in self.model)

    def group_start(self, priority: int) -> int:
        return sum(other > priority for _, other in self.model)

    @rule(priority=PRIORITIES, first=st.booleans())
    def add(self, priority: int, first: bool) -> None:
        name = f"job-{self.made}"
        self.made += 1
        place = self.group_start(priority) if first else self.group_end(priority)
        self.model.insert(place, (name, priority))
        (self.jobs.prepend if first else self.jobs.append)(make(name, priority))

    @precondition(lambda self: self.model)
    @rule()
    def take_next(self) -> None:
        assert self.jobs.next().name == self.model.pop(0)[0]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name, _ = self.model.pop(self.pick(data))
        gone = self.jobs.pop(name)
        assert gone is not None
        assert gone.name == name

    @precondition(lambda self: self.model)
    @rule(data=st.data(), priority=PRIORITIES)
    def set_priority(self, data: st.DataObject, priority: int) -> None:
        place = self.pick(data)
        name, before = self.model[place]
        if priority != before:
            del self.model[place]
            self.model.insert(self.group_end(priority), (name, priority))
        waiting = self.jobs.get(name)
        assert waiting is not None
        changed = self.jobs.set_priority(waiting, priority)
        assert [other.name for other in changed] == ([] if priority == before else [name])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), to=st.sampled_from(["first", "up", "down", "last"]))
    def move(self, data: st.DataObject, to: str) -> None:
        place = self.pick(data)
        target = {"first": 0, "up": max(0, place - 1), "down": min(len(self.model) - 1, place + 1), "last": len(self.model) - 1}[
            to
        ]
        name, priority = self.model[place]
        if target != place:
            priority = self.model[target][1]
            del self.model[place]
            self.model.insert(target, (name, priority))
        waiting = self.jobs.get(name)
        assert waiting is not None
        self.jobs.move(waiting, to)

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert [(other.name, other.row.priority) for other in self.jobs] == self.model
        assert len(self.jobs) == len(self.model)
        for place, other in enumerate(self.jobs):
            assert self.jobs.position(other) == place
        assert [other.name for other in self.jobs.slice(1, 3)] == [name for name, _ in self.model[1:3]]

    @invariant()
    def it_is_the_same_after_a_restart(self) -> None:
        again = WaitingJobs(reversed(list(self.jobs)))
        assert [other.name for other in again] == [name for name, _ in self.model]

    @invariant()
    def no_two_have_the_same_place(self) -> None:
        assert len({other.order[:2] for other in self.jobs}) == len(self.jobs)


TestOrder = Order.TestCase
TestOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_ten_thousand_jobs_keep_their_places() -> None:
    jobs = WaitingJobs()
    for number in range(10_000):
        jobs.append(make(f"job-{number}", priority=number % 3))
    names = [other.name for other in jobs]
    middle = jobs.get(names[5_000])
    assert middle is not None
    jobs.move(middle, "first")
    assert jobs.position(middle) == 0
    assert jobs.next() is middle
    assert [other.name for other in jobs] == names[:5_000] + names[5_001:]
