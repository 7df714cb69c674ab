"""The Queue screen: what runs, what waits in which order, what is paused, and what has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Final, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.getters import query_one
from textual.message import Message as UiMessage
from textual.widgets import Input, Static

from sdtui.protocol import (
    ENDED,
    WAITING,
    Cancel,
    Delete,
    DeleteEnded,
    Duplicate,
    Hold,
    JobRow,
    ListJobs,
    Move,
    Pause,
    Resume,
    Retry,
    SetPriority,
    new_job_id,
)
from sdtui.text import count_noun, safe_text
from sdtui.ui.feed import Feed, FeedEvent, FeedState
from sdtui.ui.job_pages import JobPages, JobSearch
from sdtui.ui.screens import SCREENS
from sdtui.ui.screens.base import FeedScreen
from sdtui.ui.screens.create_jobs import CANCEL_WAYS, cancel_way, short_name
from sdtui.ui.screens.queue_events import Story, show_event, show_state
from sdtui.ui.widgets.header import HeaderLine
from sdtui.ui.widgets.job_detail import JobDetail
from sdtui.ui.widgets.job_table import JobTable
from sdtui.ui.widgets.key_line import KeyLine
from sdtui.ui.widgets.table_box import TableBox

REFRESH_S: Final = 0.1
"""Changes within this time are fetched together, and a running job's line moves no more often."""
_SEARCH_AGAIN_S: Final = 3.0
"""A search reads every job, so it is not done anew with each change of a long queue."""
_LONG: Final = 500
_REST_S: Final = 0.25
"""Who scrolls through failed jobs does not want the record of each."""
_CLOCK_S: Final = 20.0
"""How often the times of what waits are written anew."""
_PRIORITY: Final = 100
_CAN: Final[dict[str, tuple[str, ...]]] = {
    "pause_job": ("running", *WAITING, "paused"),
    "cancel_job": ("running", *WAITING, "paused"),
    "move_job": WAITING,
    "change_priority": WAITING,
    "edit_job": ("queued", "paused"),
    "retry_job": ("failed", "cancelled"),
    "delete_job": ENDED,
}
"""What can be done with a job in which states."""


class QueueScreen(FeedScreen):
    """Owns the list and asks for it; the table and the detail show what they are given."""

    CSS_PATH = "queue.tcss"
    AUTO_FOCUS = "#job-table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open_job", "Open", id="queue.open", tooltip="Show the job in Create: its steps and its picture"),
        Binding("t", "show_timeline", "Steps", show=False, id="queue.timeline", tooltip="Show the job's steps in Timeline"),
        Binding("p", "pause_job", "Pause", id="queue.pause", tooltip="Pause the job, or let it go on"),
        Binding("c,delete", "cancel_job", "Cancel", id="queue.cancel", tooltip="Cancel the job; a running one when you say"),
        Binding("e", "edit_job", "Edit", id="queue.edit", tooltip="Change a job that has not begun, in Create's form"),
        Binding("r", "retry_job", "Retry", id="queue.retry", tooltip="Queue a failed or cancelled job again"),
        Binding("H", "hold", "Hold", id="queue.hold", tooltip="Begin no further job, or go on"),
        Binding("slash", "find", "Find", key_display="/", id="queue.find", tooltip="Show only jobs with these words"),
        Binding("d", "duplicate_job(True)", "Copy", id="queue.copy", tooltip="Queue a copy with the same seed"),
        Binding("x", "delete_job", "Delete", id="queue.delete", tooltip="Forget an ended job; its pictures stay"),
        Binding("shift+up,K", "move_job('up')", "Up", show=False, id="queue.move_up", tooltip="Move the job up"),
        Binding("shift+down,J", "move_job('down')", "Down", show=False, id="queue.move_down", tooltip="Move the job down"),
        Binding("shift+home,T", "move_job('first')", show=False, id="queue.move_first", tooltip="Run the job next"),
        Binding("shift+end,B", "move_job('last')", show=False, id="queue.move_last", tooltip="Run the job last"),
        Binding("plus", "change_priority(1)", show=False, key_display="+", id="queue.more", tooltip="A higher priority"),
        Binding("minus", "change_priority(-1)", show=False, key_display="-", id="queue.less", tooltip="A lower priority"),
        Binding("D", "duplicate_job(False)", show=False, id="queue.copy_anew", tooltip="Queue a copy with a new seed"),
        Binding("X", "clear_ended", show=False, id="queue.clear", tooltip="Forget every ended job; pictures stay"),
        Binding("escape", "leave_find", show=False, id="queue.leave_find", tooltip="Show all jobs again"),
        Binding("f8", "reconnect", show=False, id="queue.reconnect", tooltip="Try to reach the server now"),
    ]
    header = query_one("#header", HeaderLine)
    box = query_one("#jobs", TableBox)
    table = query_one("#job-table", JobTable)
    detail = query_one("#detail", JobDetail)
    say = query_one("#say", Static)
    words = query_one("#find", Input)

    class Opened(UiMessage):
        """A job is to be shown in Create; with `edit`, its parameters in the form."""

        def __init__(self, row: JobRow, *, edit: bool = False) -> None:
            super().__init__()
            self.row = row
            self.edit = edit

    class TimelineWanted(UiMessage):
        """The steps of a job are to be shown."""

        def __init__(self, job: str) -> None:
            super().__init__()
            self.job = job

    class Queued(UiMessage):
        """A job was queued from here: it is the user's own."""

        def __init__(self, job: str) -> None:
            super().__init__()
            self.job = job

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.pages = JobPages()
        self.search: JobSearch | None = None
        self.story = Story()
        self.held = False
        self.trouble = ""
        self.lost = ""
        self.looking_for: str | None = None
        """The selected job while it is not known where it went."""
        self.looked_up = False
        """Whether the server has said what became of it."""
        self._said = ""
        self._refreshing = False
        self._moved: JobRow | None = None
        self._read_at = 0.0

    def compose(self) -> ComposeResult:
        """The table, and beside or below it the selected job."""
        yield HeaderLine(SCREENS, "queue", id="header")
        with Container(id="queue-body"):
            box = TableBox(JobTable(id="job-table"), id="jobs")
            box.border_title = "Queue"
            box.table.jobs = self.pages
            yield box
            yield JobDetail(id="detail")
        yield Static(id="say", markup=False)
        yield Input(placeholder="words in prompts, names, states …", compact=True, max_length=200, id="find")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show what the server has."""
        self.feed.listen(self)
        self.set_interval(_CLOCK_S, self.table.refresh)

    # --- what comes in ---------------------------------------------------------------------------------------------

    def on_feed_state(self, message: FeedState) -> None:
        """The connection changed."""
        show_state(self, message)

    def on_feed_event(self, message: FeedEvent) -> None:
        """The server told something."""
        show_event(self, message.event, replayed=message.replayed)

    def fetch_soon(self) -> None:
        """Something changed, or other lines are in view: ask for what is shown, together with what else changes now."""
        if not self._refreshing:
            self._refreshing = True
            self.set_timer(REFRESH_S, self.fetch)

    def fetch(self) -> None:
        """Ask for what is shown."""
        self._refreshing = False
        if self.feed.last.state != "connected":
            return
        requests: list[ListJobs] = []
        if not self.pages.is_waiting:
            first, lines = (0, 0) if self.search is not None else (self.table.first, self.table.lines)
            requests += self.pages.wanted(first, lines, newest_ended=self.looking_for is not None)
        if self.search is not None and not self.search.is_waiting:
            rest_s = _SEARCH_AGAIN_S - (time.monotonic() - self._read_at)
            if self.search.complete and self.search.total > _LONG and rest_s > 0:
                self.set_timer(rest_s, self.fetch_soon)
            else:
                self._read_at = time.monotonic()
                requests += self.search.wanted()
        if requests:
            self.send(*requests)

    def running_changed(self, row: JobRow) -> None:
        """A step is done; the line moves with the others of this tenth of a second."""
        waits = self._moved is not None
        self._moved = row
        if not waits:
            self.set_timer(REFRESH_S, self._show_running)

    def _show_running(self) -> None:
        row, self._moved = self._moved, None
        if row is not None:
            self.pages.replace(row)
            if self.search is not None:
                self.search.replace(row)
            self.table.row_changed(row)

    def list_changed(self) -> None:
        """Other jobs, or other places of them."""
        if self.table.priorities != self.pages.priorities:
            self.table.priorities = self.pages.priorities
            self.table.lay_out()
        self.table.list_changed()
        self.show_counts()
        self.refresh_bindings()

    def show_counts(self) -> None:
        """How many jobs there are of each kind, in the border."""
        counts = self.pages.counts
        waiting = sum(counts.get(state, 0) for state in WAITING)
        parts = [f"{counts.get('running', 0)} runs" if counts.get("running") else "", f"{waiting:,} wait" if waiting else ""]
        parts += [f"{counts[state]:,} {state}" for state in ("paused", *ENDED) if counts.get(state)]
        words = " · ".join(part for part in parts if part)
        if self.search is not None:
            more = "" if self.search.complete else f", {self.search.read:,} of {self.search.total:,} read"
            words = f"{self.search.count:,} with “{safe_text(self.search.words, limit=30)}”{more}"
        self.box.border_subtitle = Content(words or "no jobs")

    def show_notice(self, words: str | None = None) -> None:
        """The line below: what keeps the queue from going on, else what was done last."""
        self._said = self._said if words is None else words
        words, tone = self._said, "muted"
        if self.lost:
            words, tone = self.lost, "error"
        elif self.trouble:
            words, tone = safe_text(self.trouble, limit=300), "error"
        elif self.held:
            words, tone = "Held: nothing begins until H.", "warning"
        self.say.update(Content.styled(words, f"${tone}"))

    # --- the selection ----------------------------------------------------------------------------------------------

    @on(JobTable.Selected)
    def _selected(self, event: JobTable.Selected) -> None:
        self.show_detail()
        self.refresh_bindings()
        if event.row is not None:
            self.set_timer(_REST_S, partial(self._ask_story, event.row.job))

    def _ask_story(self, job: str) -> None:
        """Ask for the record of a job on which the selection rests, where it tells why that went wrong."""
        row = self.table.selected
        if row is not None and row.job == job and (ask := self.story.ask_for(row)) is not None:
            self.send(ask)

    def show_detail(self) -> None:
        """The selected job, with what its record says of its end."""
        row = self.table.selected
        self.detail.show(row, self.story.tail_of(row))

    @on(JobTable.Scrolled)
    def _scrolled(self) -> None:
        if self.pages.is_waiting:
            self.fetch_soon()
        else:
            self.fetch()

    @on(JobTable.Opened)
    def _clicked(self) -> None:
        self.action_open_job()

    # --- what the user does -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is impossible with the selected job is shown, but dim."""
        row = self.table.selected if self.is_mounted else None
        if action in ("open_job", "duplicate_job", "show_timeline"):
            return row is not None or None
        if action == "clear_ended":
            return self.pages.ended_count > 0 or None
        if action == "edit_job" and row is not None and row.started_at is not None:
            return None
        if action in _CAN:
            return (row is not None and row.state in _CAN[action]) or None
        return super().check_action(action, parameters)

    def action_open_job(self) -> None:
        """Show the job in Create."""
        if self.table.selected is not None:
            self.post_message(self.Opened(self.table.selected))

    def action_show_timeline(self) -> None:
        """Show the job's steps."""
        if self.table.selected is not None:
            self.post_message(self.TimelineWanted(self.table.selected.job))

    def action_edit_job(self) -> None:
        """Change the job in Create's form."""
        if self.table.selected is not None:
            self.post_message(self.Opened(self.table.selected, edit=True))

    def action_pause_job(self) -> None:
        """Pause it, or let it go on."""
        if (row := self.table.selected) is not None:
            self.send(Resume(job=row.job) if row.state == "paused" else Pause(job=row.job))

    def action_cancel_job(self) -> None:
        """A job that waits is cancelled at once; for one that runs, choose when."""
        row = self.table.selected
        if row is None:
            return
        if row.state != "running":
            self.send(Cancel(job=row.job))
            return
        self._choose(
            f"Stop job {short_name(row.job)}", CANCEL_WAYS, lambda when: self.send(Cancel(job=row.job, when=cancel_way(when)))
        )

    def action_move_job(self, to: Literal["first", "up", "down", "last"]) -> None:
        """Another place in the queue."""
        row = self.table.selected
        if row is not None:
            self.send(Move(job=row.job, to=to))

    def action_change_priority(self, by: int) -> None:
        """A higher or a lower priority."""
        row = self.table.selected
        if row is not None and abs(row.priority + by) <= _PRIORITY:
            self.send(SetPriority(job=row.job, priority=row.priority + by))

    def action_duplicate_job(self, same_seed: bool) -> None:
        """Queue a copy."""
        if (row := self.table.selected) is not None:
            copy = new_job_id()
            self.post_message(self.Queued(copy))
            self.send(Duplicate(job=row.job, new_job=copy, same_seed=same_seed))
            self.show_notice(f"Queued as job {short_name(copy)}.")

    def action_retry_job(self) -> None:
        """Queue it again."""
        if (row := self.table.selected) is not None:
            self.post_message(self.Queued(row.job))
            self.send(Retry(job=row.job))

    def action_delete_job(self) -> None:
        """Forget it, if the user means it."""
        if (row := self.table.selected) is not None:
            self._ask(f"Delete job {short_name(row.job)}?", "Delete its record; pictures stay", Delete(job=row.job))

    def action_clear_ended(self) -> None:
        """Forget all that has ended, if the user means it."""
        ended = self.pages.ended_count
        self._ask(f"Delete {count_noun(ended, 'ended job')}?", "Delete their records; pictures stay", DeleteEnded())

    def _ask(self, title: str, yes: str, command: Delete | DeleteEnded) -> None:
        self._choose(title, (("no", "Keep"), ("yes", yes)), lambda answer: self.send(command) if answer == "yes" else None)

    def _choose(self, title: str, choices: Sequence[tuple[str, str]], take: Callable[[str], object]) -> None:
        from sdtui.ui.screens.chooser import Chooser

        def answer(value: str | None) -> None:
            if value is not None:
                take(value)

        self.app.push_screen(Chooser(title, choices, choices[0][0]), answer)

    def action_hold(self) -> None:
        """Begin no further job, or go on."""
        self.send(Hold(on=not self.held))

    def action_reconnect(self) -> None:
        """Try to reach the server now."""
        self.feed.retry()

    # --- finding ----------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Type words."""
        self.set_class(True, "-finding")
        self.words.focus()

    def action_leave_find(self) -> None:
        """Show all jobs again."""
        self.words.value = ""
        self.set_class(False, "-finding")
        self.table.focus()

    @on(Input.Submitted, "#find")
    def _found(self) -> None:
        if not self.words.value.strip():
            self.set_class(False, "-finding")
        self.table.focus()

    @on(Input.Changed, "#find")
    def _find(self, event: Input.Changed) -> None:
        words = event.value.strip()
        if words == (self.search.words if self.search is not None else ""):
            return
        self.search = JobSearch(words) if words else None
        self.table.show(self.search or self.pages)
        self.show_counts()
        self.fetch_soon()
