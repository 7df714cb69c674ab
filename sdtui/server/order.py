"""The jobs that wait, in the order in which they will run: by priority, then by rank.

Ten thousand jobs are a list that is kept sorted; every change finds its place by bisection.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Final, Literal

from sdtui.server.job import Job

RANK_GAP: Final = 1 << 10
"""Between the ranks of neighbours; new first and last ranks are one gap further out, so none is ever used up."""
_ORDER: Final = attrgetter("order")


class WaitingJobs:
    """Jobs by name and in order. Methods that change ranks or priorities return the jobs they changed."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._sorted: list[Job] = sorted(jobs, key=_ORDER)
        self._by_name = {job.name: job for job in self._sorted}

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Job]:
        return iter(self._sorted)

    def get(self, name: str) -> Job | None:
        """The job of this name, None when it does not wait."""
        return self._by_name.get(name)

    def slice(self, start: int, stop: int) -> list[Job]:
        """Jobs from place `start` up to `stop`."""
        return self._sorted[start:stop]

    def position(self, job: Job) -> int:
        """How many waiting jobs come before it."""
        return bisect_left(self._sorted, job.order, key=_ORDER)

    def next(self) -> Job:
        """Take out the one that comes first."""
        job = self._sorted.pop(0)
        del self._by_name[job.name]
        return job

    def pop(self, name: str) -> Job | None:
        """Take out a job; None when it does not wait."""
        job = self._by_name.pop(name, None)
        if job is not None:
            del self._sorted[self.position(job)]
        return job

    def last_rank(self, priority: int) -> int:
        """The rank of a job behind all of this priority."""
        group = self._group(priority)
        return group[-1].rank + RANK_GAP if group else 0

    def add(self, job: Job) -> None:
        """Put a job where its priority and rank say."""
        self._insert(job, job.row.priority, job.rank)

    def append(self, job: Job) -> None:
        """Put a job behind those of its priority."""
        self._insert(job, job.row.priority, self.last_rank(job.row.priority))

    def prepend(self, job: Job) -> None:
        """Put a job before those of its priority."""
        group = self._group(job.row.priority)
        self._insert(job, job.row.priority, group[0].rank - RANK_GAP if group else 0)

    def set_priority(self, job: Job, priority: int) -> list[Job]:
        """Change a job's priority and put it behind the others of the new one."""
        if priority == job.row.priority:
            return []
        self.pop(job.name)
        job.change(priority=priority)
        self.append(job)
        return [job]

    def move(self, job: Job, to: Literal["first", "up", "down", "last"]) -> list[Job]:
        """Move a job; past one of another priority it takes that priority."""
        place = self.position(job)
        target = {"first": 0, "up": place - 1, "down": place + 1, "last": len(self) - 1}[to]
        if target == place or not 0 <= target < len(self):
            return []
        other = self._sorted[target]
        self.pop(job.name)
        if to in ("first", "last"):
            job.change(priority=other.row.priority)
            (self.prepend if to == "first" else self.append)(job)
            return [job]
        return self._change_places(job, other, after=to == "down")

    def _change_places(self, job: Job, other: Job, *, after: bool) -> list[Job]:
        """Put `job`, which is taken out, right before or after its neighbour."""
        priority, rank = other.row.priority, other.rank
        own = job.rank if job.row.priority == priority else rank + (-RANK_GAP if after else RANK_GAP)
        # in another group the neighbour stands at its end, so there is room beyond
        self.pop(other.name)
        self._insert(other, priority, own)
        self._insert(job, priority, rank)
        return [job, other]

    def _group(self, priority: int) -> list[Job]:
        """First and last of the jobs of one priority, or none."""
        low = bisect_left(self._sorted, -priority, key=lambda job: -job.row.priority)
        high = bisect_left(self._sorted, -priority + 1, key=lambda job: -job.row.priority)
        return [self._sorted[low], self._sorted[high - 1]] if high > low else []

    def _insert(self, job: Job, priority: int, rank: int) -> None:
        job.rank = rank
        job.change(priority=priority)
        self._sorted.insert(bisect_left(self._sorted, job.order, key=_ORDER), job)
        self._by_name[job.name] = job
