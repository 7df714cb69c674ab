"""What the Timeline screen knows of jobs: the rows that the server told, and choosing among those with recorded steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from sdtui.protocol import GetJob, JobRow, Jobs, ListJobs
from sdtui.settings import tapes_dir
from sdtui.ui.timeline_jobs import family_lines, line_text, read_params, recorded_jobs
from sdtui.ui.widgets.pages.beside import run_beside

if TYPE_CHECKING:
    from sdtui.ui.screens.timeline import TimelineScreen

_PAGE: Final = 200
_MOST_PAGES: Final = 5
"""Jobs that are older than so many have no tapes any more, unless somebody raised that budget."""
_PATIENCE_S: Final = 1.0
"""Then the list is shown with what the files say."""
_BORDER_CELLS: Final = 6


class Known:
    """Rows by job, as the server told them last."""

    def __init__(self) -> None:
        self.rows: dict[str, JobRow] = {}
        self._asked: asyncio.Future[Jobs] | None = None

    def ask(self, screen: TimelineScreen, job: str) -> None:
        """Have one job told, where there is somebody to ask."""
        if screen.feed.last.state == "connected":
            screen.send(GetJob(job=job))

    def take(self, jobs: Jobs) -> None:
        """A page of all jobs."""
        self.rows |= {row.job: row for row in jobs.jobs}
        if jobs.which == "all" and self._asked is not None and not self._asked.done():
            self._asked.set_result(jobs)

    async def update(self, screen: TimelineScreen, wanted: list[str]) -> None:
        """Have all of these told, as far as the server knows of them and answers in time."""
        offset, missing = 0, set(wanted)
        for _ in range(_MOST_PAGES):
            if not missing or screen.feed.last.state != "connected":
                return
            self._asked = asyncio.get_running_loop().create_future()
            screen.send(ListJobs(which="all", limit=_PAGE, offset=offset))
            try:
                told = await asyncio.wait_for(self._asked, _PATIENCE_S)
            except TimeoutError:
                return
            missing -= {row.job for row in told.jobs}
            offset = told.offset + len(told.jobs)
            if not told.jobs or offset >= told.total:
                return


def choose(screen: TimelineScreen, title: str, take: Callable[[str], object], *, but: str | None = None) -> None:
    """Choose a job, and hand it to `take`; `but` is not offered."""
    run_beside(screen, partial(_choose, screen, title, take, but), "choose", exclusive=True)


async def _choose(screen: TimelineScreen, title: str, take: Callable[[str], object], but: str | None) -> None:
    from sdtui.ui.screens.chooser import Chooser

    tapes, rows = tapes_dir(), screen.jobs.rows
    jobs = [job for job in await asyncio.to_thread(recorded_jobs, tapes) if job != but]
    if not jobs:
        screen.show_notice("There is no other job with recorded steps." if but else "There is no job with recorded steps.")
        return
    await screen.jobs.update(screen, jobs)
    params = await asyncio.to_thread(read_params, tapes, [job for job in jobs if job not in rows])
    lines = family_lines(jobs, rows, params)
    width = screen.size.width * 8 // 10 - _BORDER_CELLS
    deepest = max(line.depth for line in lines)
    choices = [(line.job, line_text(line, width, deepest)) for line in lines]

    def answer(job: str | None) -> None:
        if job is not None:
            take(job)

    if screen.is_current:
        screen.app.push_screen(Chooser(title, choices, screen.job or ""), answer)
