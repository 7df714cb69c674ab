"""The server's jobs as one long list of which only the pages in view are held: what is in the queue, then what has ended.

No Textual here. Who shows the list asks `wanted` for what to request, sends that, and gives the answers to `take`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol

from sdtui.protocol import ENDED, JobRow, Jobs, ListJobs

PAGE: Final = 50
"""Jobs asked for at once: two pages fill the tallest terminal."""
KEPT_PAGES: Final = 40
"""Older ones are forgotten: a list of any length takes the same memory."""
Section = Literal["queue", "ended"]
Page = tuple[Section, int]
"""A section and the number of a page in it."""
_SECTIONS: Final[tuple[Section, ...]] = ("queue", "ended")


class JobList(Protocol):
    """What a table of jobs needs."""

    @property
    def count(self) -> int:
        """How many lines there are."""

    def row_at(self, index: int) -> JobRow | None:
        """The job of a line; None while it is not known."""

    def place_of(self, index: int) -> int:
        """How soon it runs, from 1; 0 for what does not wait."""

    def index_of(self, job: str) -> int | None:
        """The line of a job, where that is known for certain."""


class JobPages:
    """Pages that were asked for, and which of them may be outdated."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._totals: dict[Section, int] = {"queue": 0, "ended": 0}
        self._rows: dict[Page, list[JobRow]] = {}
        self._fresh: set[Page] = set()
        self._asked: dict[tuple[Section, int], int] = {}
        """Section and offset of the requests under way, and the state of things when they were sent."""
        self._changes = 0
        self.priorities = False
        """Whether any job that was seen has a priority."""

    @property
    def count(self) -> int:
        """How many jobs there are."""
        return self._totals["queue"] + self._totals["ended"]

    @property
    def ended_count(self) -> int:
        """How many have ended."""
        return self._totals["ended"]

    @property
    def is_known(self) -> bool:
        """Whether any answer has come."""
        return bool(self._rows)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is under way."""
        return bool(self._asked)

    def row_at(self, index: int) -> JobRow | None:
        """The job of a line; None while it is not known."""
        section, at = self._section(index)
        page = self._rows.get((section, at // PAGE), ())
        return page[at % PAGE] if at >= 0 and at % PAGE < len(page) else None

    def place_of(self, index: int) -> int:
        """How soon it runs, from 1; 0 for what does not wait."""
        row = self.row_at(index)
        if row is None or row.state not in ("queued", "interrupted"):
            return 0
        return index + 1 - self.counts.get("running", 0)

    def index_of(self, job: str) -> int | None:
        """The line of a job, where a page that is not outdated holds it."""
        for section, number in self._fresh:
            for at, row in enumerate(self._rows[section, number]):
                if row.job == job:
                    return self._start(section) + number * PAGE + at
        return None

    def stale(self) -> None:
        """Something changed: what is held may be wrong, and so may be answers under way."""
        self._changes += 1
        self._fresh.clear()

    def forget_requests(self) -> None:
        """The connection is lost: no answer comes any more."""
        self._asked.clear()
        self.stale()

    def replace(self, row: JobRow) -> bool:
        """A job is known to be different now; whether it is held."""
        for rows in self._rows.values():
            for at, old in enumerate(rows):
                if old.job == row.job:
                    rows[at] = row
                    return True
        return False

    def find(self, job: str) -> JobRow | None:
        """A job that is held, outdated or not."""
        return next((row for rows in self._rows.values() for row in rows if row.job == job), None)

    def wanted(self, first: int, lines: int, *, newest_ended: bool = False) -> list[ListJobs]:
        """Requests for what these lines show and is not held, or outdated; none that are under way already.

        `newest_ended`: a job is looked for that ended just now.
        """
        pages = list(self._pages(first, lines))
        if newest_ended or not self.is_known:
            pages += [("queue", 0), ("ended", 0)]
        requests = []
        for page in dict.fromkeys(pages):
            section, offset = page[0], page[1] * PAGE
            if page not in self._fresh and (section, offset) not in self._asked:
                self._asked[section, offset] = self._changes
                requests.append(ListJobs(which=section, offset=offset, limit=PAGE))
        return requests

    def take(self, jobs: Jobs) -> list[ListJobs]:
        """Hold an answer; what it had no room for is asked for again."""
        if jobs.which == "all" or (jobs.which, jobs.offset) not in self._asked:
            return []
        section: Section = jobs.which
        asked_at = self._asked.pop((section, jobs.offset))
        number, at = divmod(jobs.offset, PAGE)
        page = (section, number)
        before = self._rows.pop(page, [])  # put back as the newest
        self._rows[page] = [*before[:at], *jobs.jobs]
        self.counts = jobs.counts
        if jobs.counts:  # the other section may have another length too, and what is in view of it is fetched next
            ended = sum(jobs.counts.get(state, 0) for state in ENDED)
            self._totals = {"queue": sum(jobs.counts.values()) - ended, "ended": ended}
        self._totals[section] = jobs.total
        self.priorities = self.priorities or any(row.priority for row in jobs.jobs)
        end = jobs.offset + len(jobs.jobs)
        if jobs.jobs and end < min(jobs.total, (number + 1) * PAGE):
            self._asked[section, end] = asked_at
            return [ListJobs(which=section, offset=end, limit=(number + 1) * PAGE - end)]
        if asked_at == self._changes:
            self._fresh.add(page)
        self._trim(section)
        return []

    def _trim(self, section: Section) -> None:
        """Drop what lies beyond the end, and the pages that were asked for longest ago."""
        last = max(0, self._totals[section] - 1) // PAGE
        beyond = [page for page in self._rows if page[0] == section and page[1] > last]
        for page in (*beyond, *list(self._rows)[: max(0, len(self._rows) - KEPT_PAGES)]):
            self._rows.pop(page, None)
            self._fresh.discard(page)

    def _start(self, section: Section) -> int:
        return 0 if section == "queue" else self._totals["queue"]

    def _section(self, index: int) -> tuple[Section, int]:
        queued = self._totals["queue"]
        return ("queue", index) if index < queued else ("ended", index - queued)

    def _pages(self, first: int, lines: int) -> Iterator[Page]:
        for section in _SECTIONS:
            start, total = self._start(section), self._totals[section]
            low, high = max(0, first - start), min(total, first + lines - start)
            if low < high:
                yield from ((section, number) for number in range(low // PAGE, (high - 1) // PAGE + 1))


def matches(row: JobRow, words: str) -> bool:
    """Whether every word stands in a job's prompts, state or model, or is its seed, its name, or the end of that."""
    params = row.params
    text = " ".join((params.prompt, params.negative_prompt, row.state, params.model)).casefold()
    return all(word in text or word == str(params.seed) or row.job.endswith(word) for word in words.casefold().split())


class JobSearch:
    """The jobs with certain words in them. The server cannot search, so it reads page after page and keeps what matches.

    While it reads again because something changed, what it found before stays in view.
    """

    def __init__(self, words: str) -> None:
        self.words = words
        self.read = 0
        """Jobs looked at so far."""
        self.total = 0
        self.complete = False
        """Whether all of them were, once."""
        self._rows: list[JobRow] = []
        self._places: list[int] = []
        self._next_rows: list[JobRow] = []
        self._next_places: list[int] = []
        self._totals: dict[str, int] = {}
        self._asked: tuple[Section, int] | None = None
        self._changed = True

    @property
    def count(self) -> int:
        """How many match."""
        return len(self._rows)

    @property
    def is_waiting(self) -> bool:
        """Whether it is reading."""
        return self._asked is not None

    def row_at(self, index: int) -> JobRow | None:
        """A job that matches."""
        return self._rows[index] if 0 <= index < len(self._rows) else None

    def place_of(self, index: int) -> int:
        """How soon it runs, from 1."""
        return self._places[index] if 0 <= index < len(self._places) else 0

    def index_of(self, job: str) -> int | None:
        """The line of a job."""
        return next((at for at, row in enumerate(self._rows) if row.job == job), None)

    def stale(self) -> None:
        """Something changed."""
        self._changed = True

    def forget_requests(self) -> None:
        """The connection is lost."""
        self._asked = None
        self._changed = True

    def replace(self, row: JobRow) -> bool:
        """A job is known to be different now."""
        at = self.index_of(row.job)
        if at is not None:
            self._rows[at] = row
        return at is not None

    def find(self, job: str) -> JobRow | None:
        """A job that matches."""
        at = self.index_of(job)
        return None if at is None else self._rows[at]

    def wanted(self) -> list[ListJobs]:
        """The first request of a reading, if one is due and none is under way."""
        if self._asked is not None or not self._changed:
            return []
        self._changed = False
        self._next_rows, self._next_places, self._totals, self.read = [], [], {}, 0
        return [self._ask("queue", 0)]

    def _ask(self, section: Section, offset: int) -> ListJobs:
        self._asked = (section, offset)
        return ListJobs(which=section, offset=offset, limit=PAGE * 4)

    def take(self, jobs: Jobs) -> list[ListJobs]:
        """Look through an answer; the next request, if it was not the last page."""
        if self._asked is None or (jobs.which, jobs.offset) != self._asked:
            return []
        section, offset = self._asked
        self._asked = None
        self.read += len(jobs.jobs)
        self._totals[section] = jobs.total
        self.total = sum(jobs.counts.values()) or sum(self._totals.values())
        running = jobs.counts.get("running", 0)
        for at, row in enumerate(jobs.jobs, start=offset + 1 - running):
            if matches(row, self.words):
                self._next_rows.append(row)
                self._next_places.append(at if row.state in ("queued", "interrupted") else 0)
        if not self.complete:  # the first reading shows what it finds at once
            self._rows, self._places = self._next_rows, self._next_places
        end = offset + len(jobs.jobs)
        if jobs.jobs and end < jobs.total:
            return [self._ask(section, end)]
        if section == "queue":
            return [self._ask("ended", 0)]
        self.complete = True
        self._rows, self._places = self._next_rows, self._next_places
        return []
