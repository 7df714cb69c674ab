"""The table of jobs through Textual's line API: ten thousand jobs cost what the visible ones cost."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sdtui.protocol import JobRow
from sdtui.ui.job_pages import JobList, JobPages
from sdtui.ui.queue_rows import Column, columns_for, head_text, line_spans
from sdtui.ui.widgets.table_box import TableBox


class JobTable(ScrollView, can_focus=True):
    """Shows a `JobList`. The selection stays on its job, wherever that goes; who owns the list fetches what is in view."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "job-table--text",
        "job-table--muted",
        "job-table--rule",
        "job-table--accent",
        "job-table--success",
        "job-table--warning",
        "job-table--error",
        "job-table--cursor",
        "job-table--cursor-blurred",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move_cursor(-1)", "Job up", show=False, id="jobs.up", tooltip="Select the job above"),
        Binding("down,j", "move_cursor(1)", "Job down", show=False, id="jobs.down", tooltip="Select the job below"),
        Binding("pageup", "move_page(-1)", "Page up", show=False, id="jobs.page_up", tooltip="One page up"),
        Binding("pagedown", "move_page(1)", "Page down", show=False, id="jobs.page_down", tooltip="One page down"),
        Binding("home,g", "go_to_end(False)", "Top", show=False, id="jobs.top", tooltip="Select the first job"),
        Binding("end,G", "go_to_end(True)", "Bottom", show=False, id="jobs.bottom", tooltip="Select the last job"),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

    class Selected(Message):
        """Another job is selected, or the selected one is different now; None where there is none, or it is not known yet."""

        def __init__(self, row: JobRow | None) -> None:
            super().__init__()
            self.row = row

    class Opened(Message):
        """A job was clicked twice."""

    class Scrolled(Message):
        """Other lines are in view."""

        def can_replace(self, message: Message) -> bool:
            """One is enough."""
            return isinstance(message, JobTable.Scrolled)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.jobs: JobList = JobPages()
        self.columns: tuple[Column, ...] = ()
        self.priorities = False
        self._selected: JobRow | None = None
        self._placing = False

    @property
    def selected(self) -> JobRow | None:
        """The selected job as it was last known."""
        return self._selected

    @property
    def lines(self) -> int:
        """How many jobs can be in view."""
        return max(1, self.size.height)

    @property
    def first(self) -> int:
        """The first job in view."""
        return self.scroll_offset.y

    # --- what it is told ---------------------------------------------------------------------------------------------

    def show(self, jobs: JobList) -> None:
        """Show another list, from its beginning."""
        self.jobs = jobs
        self._place(0)
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.list_changed()

    def list_changed(self) -> None:
        """The list has other jobs, or they are in other places."""
        if self.virtual_size.height != self.jobs.count:
            self.virtual_size = Size(0, self.jobs.count)
        if self._selected is not None and (at := self.jobs.index_of(self._selected.job)) is not None:
            self._place(at)
        else:
            self._place(self.cursor)
        self.refresh()

    def row_changed(self, row: JobRow) -> None:
        """One job is different now; it is in the same place."""
        at = next((at for at in self._in_view() if (old := self.jobs.row_at(at)) is not None and old.job == row.job), None)
        if at is not None:
            self.refresh(Region(0, at - self.first, self.size.width, 1))
        if self._selected is not None and self._selected.job == row.job:
            self._select(row)

    def go_to(self, index: int) -> None:
        """The selected job is in this line now."""
        self._place(index)

    def let_go(self) -> None:
        """The selected job is gone: select what is in its line."""
        self._selected = None
        self._place(self.cursor)

    def _in_view(self) -> range:
        return range(self.first, min(self.jobs.count, self.first + self.lines))

    def _place(self, index: int) -> None:
        """Put the cursor on a line that is there."""
        index = max(0, min(self.jobs.count - 1, index))
        self._placing = True
        self.cursor = index
        self._placing = False
        row = self.jobs.row_at(index)
        if self._selected is None or row is None or row.job == self._selected.job:
            self._select(row if row is not None else self._selected)
        elif not self.jobs.count:
            self._select(None)
        self.refresh()

    def _select(self, row: JobRow | None) -> None:
        if row != self._selected:
            self._selected = row
            self.post_message(self.Selected(row))

    # --- what happens to it ------------------------------------------------------------------------------------------

    def watch_cursor(self, cursor: int) -> None:
        """Keep the selected line in view; a line that the user went to is the selection from now on."""
        self.scroll_to_region(Region(0, cursor, 1, 1), animate=False, force=True, immediate=True)
        if not self._placing:
            self._selected = None
            self._select(self.jobs.row_at(cursor))
            if self._selected is None:
                self.post_message(self.Selected(None))
            self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Other jobs come into view."""
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.post_message(self.Scrolled())

    def on_resize(self) -> None:
        """Other columns may fit, and more lines."""
        self.lay_out()
        self.post_message(self.Scrolled())

    def lay_out(self) -> None:
        """Choose the columns."""
        self.columns = columns_for(max(1, self.scrollable_content_region.width - 1), priorities=self.priorities)
        self.refresh()
        if isinstance(self.parent, TableBox):
            self.parent.head.show(head_text(self.columns))

    def on_focus(self) -> None:
        """The selected line is brighter."""
        self.refresh()

    def on_blur(self) -> None:
        """The selected line is darker."""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The job at a line of the window."""
        index, width = y + self.first, max(1, self.scrollable_content_region.width - 1)
        if index >= self.jobs.count:
            return Strip.blank(self.size.width, self.rich_style)
        ground = Style()
        if index == self.cursor:
            name = "job-table--cursor" if self.has_focus else "job-table--cursor-blurred"
            ground = self.get_component_rich_style(name, partial=True)
        row = self.jobs.row_at(index)
        spans = [("…", "muted")] if row is None else line_spans(row, self.jobs.place_of(index), self.columns)
        segments = [
            Segment(text, self.get_component_rich_style(f"job-table--{tone}", partial=True) + ground) for text, tone in spans
        ]
        return Strip(segments).adjust_cell_length(width, ground).apply_style(self.rich_style)

    # --- what the user does ------------------------------------------------------------------------------------------

    def action_move_cursor(self, by: int) -> None:
        """Select the job above or below."""
        self.cursor = max(0, min(self.jobs.count - 1, self.cursor + by))

    def action_move_page(self, by: int) -> None:
        """Move the selection by a page."""
        self.action_move_cursor(by * max(1, self.lines - 1))

    def action_go_to_end(self, last: bool) -> None:
        """Select the first or the last job."""
        self.cursor = max(0, self.jobs.count - 1) if last else 0

    def on_click(self, event: Click) -> None:
        """Select the job that was clicked; a second click opens it."""
        index = event.y - self.gutter.top + self.first
        if 0 <= index < self.jobs.count:
            self.cursor = index
            if event.chain > 1:
                self.post_message(self.Opened())
