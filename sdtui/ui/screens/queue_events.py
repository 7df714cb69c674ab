"""What the Queue screen does with what the server says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sdtui.protocol import (
    JOB_STOPS,
    EndedDeleted,
    GetJob,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobFailed,
    JobInterrupted,
    JobQueued,
    JobRow,
    Jobs,
    JobStarted,
    Message,
    QueueChanged,
    Refused,
    Replay,
    ReplayDone,
    StepFinished,
)
from sdtui.text import count_noun, format_seconds, safe_text
from sdtui.ui.feed import FeedState
from sdtui.ui.screens.create_jobs import short_name

if TYPE_CHECKING:
    from sdtui.ui.screens.queue import QueueScreen

_TAIL_LINES: Final = 10
_TAILS: Final = 50
"""Jobs whose last log lines are remembered."""


class Story:
    """What the records of jobs that went wrong say of it: asked for once, when such a job is selected."""

    def __init__(self) -> None:
        self._tails: dict[str, tuple[str, ...]] = {}
        self._asked: set[tuple[str, int, str]] = set()

    def ask_for(self, row: JobRow | None) -> Replay | None:
        """The request for a job's record, where it would tell something that is not known yet."""
        if row is None or not (row.state == "failed" or row.attempts):
            return None
        key = (row.job, row.attempts, row.state)
        if key in self._asked:
            return None
        self._asked.add(key)
        return Replay(job=row.job)

    def take(self, event: Message) -> None:
        """Remember the last lines of the log of a worker that died, or the end of a traceback."""
        text = event.log_tail if isinstance(event, JobInterrupted) else event.detail if isinstance(event, JobFailed) else ""
        lines = [line.rstrip() for line in safe_text(text, multiline=True).splitlines() if line.strip()]
        if lines and isinstance(event, JobInterrupted | JobFailed):
            self._tails.pop(event.job, None)
            self._tails[event.job] = tuple(lines[-_TAIL_LINES:])
            while len(self._tails) > _TAILS:
                self._tails.pop(next(iter(self._tails)))

    def tail_of(self, row: JobRow | None) -> tuple[str, ...]:
        """The last lines that are known for a job."""
        return self._tails.get(row.job, ()) if row is not None else ()


def show_state(screen: QueueScreen, state: FeedState) -> None:
    """The connection is there, or is not."""
    screen.header.take_state(state)
    screen.lost = "No server; what is shown may be old. F8 tries now." if state.state == "lost" else ""
    if state.state == "lost":
        screen.pages.forget_requests()
        if screen.search is not None:
            screen.search.forget_requests()
    elif state.welcome is not None:
        _take_queue(screen, state.welcome.queue)
        _changed(screen)
        screen.fetch()
    screen.show_notice()


def show_event(screen: QueueScreen, event: Message, *, replayed: bool) -> None:
    """Show one event of the server; `replayed`: from a record, so it happened long ago."""
    screen.header.take_event(event)
    match event:
        case Jobs():
            _take_jobs(screen, event)
        case QueueChanged():
            _take_queue(screen, event)
            _changed(screen)
        case JobChanged():
            _take_row(screen, event)
        case JobDeleted():
            _let_go(screen, event.job)
            _changed(screen)
        case EndedDeleted():
            screen.show_notice(f"{count_noun(event.count, 'record')} deleted.")
            _changed(screen)
        case Refused(job=str(job)) if job == screen.looking_for:
            _let_go(screen, job)
        case JobFailed() | JobInterrupted() if replayed:
            screen.story.take(event)
        case ReplayDone():
            screen.show_detail()
        case _ if not replayed:
            _take_job_event(screen, event)


def _take_queue(screen: QueueScreen, queue: QueueChanged) -> None:
    screen.held, screen.trouble = queue.held, queue.trouble
    screen.box.border_title = "Queue · held" if queue.held else "Queue"
    screen.box.set_class(queue.held, "-held")
    screen.show_notice()


def _changed(screen: QueueScreen) -> None:
    screen.pages.stale()
    if screen.search is not None:
        screen.search.stale()
    screen.fetch_soon()


def _take_jobs(screen: QueueScreen, jobs: Jobs) -> None:
    if jobs.which == "all":
        return
    more = screen.pages.take(jobs)
    if screen.search is not None:
        more += screen.search.take(jobs)
    if more:
        screen.send(*more)
    screen.list_changed()
    _look_for_selected(screen)
    if not screen.pages.is_waiting:
        screen.fetch_soon()  # what changed meanwhile; nothing is sent if nothing did


def _look_for_selected(screen: QueueScreen) -> None:
    """The selected job is not where it was: it has moved, or ended, or its record is gone."""
    row, table = screen.table.selected, screen.table
    if row is None or screen.pages.is_waiting or screen.search is not None:
        return
    if table.jobs.index_of(row.job) is not None:
        screen.looking_for = None
        return
    here = table.jobs.row_at(table.cursor)
    if here is not None and here.job != row.job:
        if screen.looking_for != row.job:
            screen.looking_for, screen.looked_up = row.job, False
            screen.send(GetJob(job=row.job))
        elif screen.looked_up:
            _let_go(screen, row.job)  # among the newest it is not either


def _let_go(screen: QueueScreen, job: str) -> None:
    screen.looking_for = None
    if screen.table.selected is not None and screen.table.selected.job == job:
        screen.table.let_go()


def _take_row(screen: QueueScreen, event: JobChanged) -> None:
    screen.looked_up = screen.looked_up or event.job == screen.looking_for
    _replace(screen, event.row)
    selected = screen.table.selected
    if selected is not None and selected.job == event.job and event.position is not None and screen.search is None:
        screen.table.go_to(event.position)
    _changed(screen)


def _replace(screen: QueueScreen, row: JobRow) -> None:
    screen.pages.replace(row)
    if screen.search is not None:
        screen.search.replace(row)
    screen.table.row_changed(row)


def _take_job_event(screen: QueueScreen, event: Message) -> None:
    match event:
        case StepFinished():
            _take_step(screen, event)
        case JobCancelled() if event.latency_s:
            screen.show_notice(f"Job {short_name(event.job)} stopped in {format_seconds(event.latency_s)}.")
            _changed(screen)
        case JobFailed() | JobInterrupted():
            screen.story.take(event)
            _changed(screen)
        case JobQueued() | JobStarted():
            _changed(screen)
        case _ if isinstance(event, JOB_STOPS):
            _changed(screen)


def _take_step(screen: QueueScreen, event: StepFinished) -> None:
    row = screen.pages.find(event.job)
    if row is not None:
        screen.running_changed(
            msgspec.structs.replace(
                row, batch_index=event.batch_index, steps_done=event.step_index + 1, total_steps=event.total_steps
            )
        )
