"""What the Timeline screen does with what the server says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sdtui.protocol import (
    JOB_STOPS,
    JobChanged,
    JobDeleted,
    JobFailed,
    JobQueued,
    JobRow,
    Jobs,
    JobStarted,
    Message,
    ModelLoaded,
    QueueChanged,
    Refused,
    StepDecoded,
    StepFinished,
    StepNotDecoded,
)
from sdtui.text import safe_text
from sdtui.ui.feed import FeedState
from sdtui.ui.screens import timeline_open
from sdtui.ui.screens.create_jobs import short_name

if TYPE_CHECKING:
    from sdtui.ui.screens.timeline import TimelineScreen


def show_state(screen: TimelineScreen, state: FeedState) -> None:
    """The connection is there, or is not: steps are read from the disk all the same."""
    screen.header.take_state(state)
    screen.lost = "No server: steps can be looked at, and not decoded or branched. F8 tries now." if state.state == "lost" else ""
    if state.state == "lost":
        screen.running = None
        screen.decoding.lose(screen)
    elif state.welcome is not None:
        screen.running = state.welcome.queue.running
        screen.model = state.welcome.model or screen.model
        screen.jobs.rows |= {row.job: row for row in state.welcome.jobs}
        if screen.job is not None:
            screen.jobs.ask(screen, screen.job)
            timeline_open.look_again(screen)
    screen.show_step()
    screen.show_notice()


def show_event(screen: TimelineScreen, event: Message, *, replayed: bool) -> None:
    """Show one event of the server; `replayed`: from a record, so it happened long ago."""
    screen.header.take_event(event)
    if screen.dialog is not None and not replayed:
        screen.dialog.take(event)
    match event:
        case ModelLoaded():
            screen.model = event.info
        case Jobs():
            screen.jobs.take(event)
        case JobChanged():
            _take_row(screen, event.row)
        case JobQueued() if not replayed:
            _take_row(screen, JobRow(job=event.job, state="queued", params=event.params, created_at=time.time()))
        case StepDecoded() | StepNotDecoded() if not replayed:
            screen.decoding.take(screen, event)
        case Refused() if not replayed:
            screen.decoding.take(screen, event)
        case QueueChanged():
            _take_running(screen, event.running)
        case JobDeleted():
            _take_deleted(screen, event.job)
        case StepFinished() if not replayed and screen.other is not None and event.job == screen.other.job:
            timeline_open.grow_other(screen)
        case _ if not replayed and getattr(event, "job", None) == screen.job:
            _take_job_event(screen, event)


def _take_row(screen: TimelineScreen, row: JobRow) -> None:
    before = screen.jobs.rows.get(row.job)
    screen.jobs.rows[row.job] = row
    if row.job == screen.job:
        screen.refresh_bindings()
        if screen.record is None and (before is None or before.state != row.state):
            timeline_open.open_job(screen, row.job)  # what was said of it may not be true any more


def _take_running(screen: TimelineScreen, running: str | None) -> None:
    if running != screen.running:
        screen.running = running
        screen.show_step()


def _take_deleted(screen: TimelineScreen, job: str) -> None:
    screen.jobs.rows.pop(job, None)
    if job == screen.job:
        screen.show_nothing(f"Job {short_name(job)} was deleted, and its steps with it. o shows another job.")
    elif screen.other is not None and job == screen.other.job:
        screen.leave_comparing()
        screen.show_notice(f"Job {short_name(job)}, which was compared, was deleted.")


def _take_job_event(screen: TimelineScreen, event: Message) -> None:
    match event:
        case StepFinished():
            timeline_open.grow(screen, event.batch_index, event.step_index + 1)
        case JobStarted():
            screen.running = event.job
            timeline_open.look_again(screen)
        case _ if isinstance(event, JOB_STOPS):
            screen.running = None if screen.running == screen.job else screen.running
            screen.jobs.ask(screen, str(screen.job))
            timeline_open.look_again(screen)
            screen.show_step()
    if isinstance(event, JobFailed):
        screen.show_notice(f"Job {short_name(event.job)} failed: {safe_text(event.message, limit=300)}", "error")
