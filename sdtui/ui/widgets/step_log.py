"""The step log: rows of facts through Textual's line API, so thousands of rows cost what the visible ones cost."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.events import Click
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sdtui.protocol import ModulesRan
from sdtui.ui.log_rows import LogRows
from sdtui.ui.private import grow
from sdtui.ui.rows import LogRow, ModuleRow, Target, row_text

MAX_ROWS: Final = 50_000
"""A 1000-step job has about 1,020 rows; this is forty of them, some 20 MB."""
_DROPPED_AT_ONCE: Final = 5_000
_FLUSH_S: Final = 1 / 30
"""Rows that arrive within this time are shown together."""
_Anchor = tuple[LogRow, LogRow | None]
"""A row, and the job's own row nearest above it."""


class StepLog(ScrollView, can_focus=True):
    """Follows the newest row while it is scrolled to the end; else stays where the user reads."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "step-log--text",
        "step-log--muted",
        "step-log--accent",
        "step-log--success",
        "step-log--warning",
        "step-log--error",
        "step-log--cursor",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move_cursor(-1)", "Row up", show=False, id="log.up", tooltip="Select the row above"),
        Binding("down,j", "move_cursor(1)", "Row down", show=False, id="log.down", tooltip="Select the row below"),
        Binding("pageup", "move_page(-1)", "Page up", show=False, id="log.page_up", tooltip="One page back"),
        Binding("pagedown", "move_page(1)", "Page down", show=False, id="log.page_down", tooltip="One page on"),
        Binding("home,g", "move_home", "First row", show=False, id="log.first", tooltip="Go to the first row"),
        Binding("end,G", "follow", "Follow", show=False, id="log.follow", tooltip="Go to the newest row and follow"),
        Binding("y,ctrl+c", "copy_row", "Copy row", show=False, id="log.copy", tooltip="Copy the selected row"),
        Binding("i", "inspect", "Inspect", id="log.inspect", tooltip="Show the module that the selected row is about"),
        Binding("m", "toggle_modules", "Modules", id="log.modules", tooltip="Show or hide what each module gave in a step"),
        Binding("Y", "copy_all", "Copy log", show=False, id="log.copy_all", tooltip="Copy every row"),
    ]
    DEFAULT_CSS = """
    StepLog {
        .step-log--text { color: $foreground; }
        .step-log--muted { color: $muted; }
        .step-log--accent { color: $accent; }
        .step-log--success { color: $success; }
        .step-log--warning { color: $warning; }
        .step-log--error { color: $error; }
        .step-log--cursor { background: $panel; }
    }
    """
    cursor: reactive[int | None] = reactive(None, repaint=False)

    class Copied(Message):
        """Text was put on the clipboard."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class InspectWanted(Message):
        """The module that a row is about is wanted; whoever knows the tree shows it."""

        def __init__(self, target: Target) -> None:
            super().__init__()
            self.target = target

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Steps"
        self._log = LogRows()
        self._waiting = False
        self._following = True
        self._lines: LRUCache[tuple[int, int, bool], Strip] = LRUCache(512)

    @property
    def _rows(self) -> list[LogRow]:
        return self._log.shown

    @property
    def row_count(self) -> int:
        """Rows in the log."""
        return len(self._rows)

    @property
    def following(self) -> bool:
        """Whether new rows scroll into view."""
        return self._following

    def text_of(self, index: int) -> str:
        """A row as plain text."""
        return row_text(self._rows[index], max(40, self.scrollable_content_region.width - 1))

    def append(self, *rows: LogRow) -> None:
        """Add rows at the end; they are shown within a thirtieth of a second."""
        self._log.append(rows)
        if self._log.own_count > MAX_ROWS:
            anchors = self._anchors()
            self._log.drop(_DROPPED_AT_ONCE)
            self._restore(anchors)
        if rows:
            self._flush_soon()

    def append_modules(self, event: ModulesRan) -> None:
        """Rows of modules, which are hidden until they are asked for."""
        anchors = self._anchors() if self._log.unfolded else (None, None)
        if self._log.append_modules(event):
            self._restore(anchors)
        if self._log.unfolded:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._waiting:
            self._waiting = True
            self.set_timer(_FLUSH_S, self._flush)

    def clear(self) -> None:
        """Forget every row."""
        self._log.clear()
        self._lines.clear()
        self.cursor = None
        self._following = True
        grow(self, 0)
        self.scroll_to(y=0, animate=False)
        self.refresh()

    def _anchor(self, place: int | None) -> _Anchor | None:
        rows = self._rows
        return (rows[place], self._log.own_before(place)) if place is not None and place < len(rows) else None

    def _anchors(self) -> tuple[_Anchor | None, _Anchor | None]:
        return self._anchor(self.scroll_offset.y), self._anchor(self.cursor)

    def _restore(self, anchors: tuple[_Anchor | None, _Anchor | None]) -> None:
        """Rows have other places: what is read and what is selected stay."""
        first, selected = (self._find_again(anchor) for anchor in anchors)
        self._lines.clear()
        grow(self, len(self._rows))
        if self.cursor is not None:
            self.set_reactive(StepLog.cursor, selected)
        if self._following:
            self._go_to_end()
        else:
            self.scroll_to(y=first or 0, animate=False, immediate=True, force=True)
        self.refresh()

    def _find_again(self, anchor: _Anchor | None) -> int | None:
        if anchor is None:
            return None
        place = self._log.place_of(anchor[0])
        if place is None and anchor[1] is not None:
            place = self._log.place_of(anchor[1])
        return place or 0

    def _flush(self) -> None:
        self._waiting = False
        if not self.is_attached:
            return
        first_new = self.virtual_size.height
        grow(self, len(self._rows))
        top = self.scroll_offset.y
        if self._following:
            self._go_to_end()
        if self.scroll_offset.y == top:  # else all of it was drawn again by scrolling
            new = Region(0, first_new - top, self.size.width, len(self._rows) - first_new)
            self.refresh(new.intersection(self.size.region))
        self._show_position()

    def _go_to_end(self) -> None:
        # by force: whether there is a scrollbar is only known after the next layout
        self.scroll_end(animate=False, immediate=True, force=True, x_axis=False)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Following ends when the user scrolls up, and begins again at the end."""
        super().watch_scroll_y(old_value, new_value)
        self._following = new_value >= self.max_scroll_y
        self._show_position()

    def _show_position(self) -> None:
        behind = len(self._rows) - self.scroll_offset.y - self.size.height
        position = "" if self._following or behind <= 0 else f"{behind:,} below · end follows"
        if position != (self.border_subtitle or ""):
            self.border_subtitle = position

    def on_resize(self) -> None:
        """Rows are laid out for the width."""
        self._lines.clear()
        if self._following:
            self._go_to_end()

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        self._lines.clear()

    def watch_cursor(self, cursor: int | None) -> None:
        """Keep the selected row in view."""
        if cursor is not None:
            self.scroll_to_region(Region(0, cursor, 1, 1), animate=False, force=True, immediate=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The row at a line of the window."""
        index = y + self.scroll_offset.y
        width = max(1, self.scrollable_content_region.width - 1)  # a cell of air before the scrollbar
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        selected = index == self.cursor and self.has_focus
        key = (index, width, selected)
        strip = self._lines.get(key)
        if strip is None:
            strip = self._lay_out(self._rows[index], width, selected)
            self._lines[key] = strip
        return strip

    def _lay_out(self, row: LogRow, width: int, selected: bool) -> Strip:
        ground = self.get_component_rich_style("step-log--cursor", partial=True) if selected else Style()
        segments = [
            Segment(text, self.get_component_rich_style(f"step-log--{tone}", partial=True) + ground)
            for text, tone in row.spans(width)
        ]
        return Strip(segments).adjust_cell_length(width, ground).apply_style(self.rich_style)

    def action_move_cursor(self, by: int) -> None:
        """Select the row above or below."""
        if not self._rows:
            return
        last = len(self._rows) - 1
        start = self.cursor if self.cursor is not None else last + (1 if by < 0 else 0)
        self.cursor = max(0, min(last, start + by))
        if self.cursor == last:
            self.action_follow()

    def action_move_page(self, by: int) -> None:
        """Move the selection by a page."""
        self.action_move_cursor(by * max(1, self.size.height - 1))

    def action_move_home(self) -> None:
        """Select the first row."""
        if self._rows:
            self.cursor = 0

    def action_follow(self) -> None:
        """Go to the end and follow."""
        self._go_to_end()
        self._following = True
        if self._rows:
            self.cursor = len(self._rows) - 1

    def action_toggle_modules(self) -> None:
        """Show or hide the rows of modules."""
        anchors = self._anchors()
        self._log.toggle()
        self._restore(anchors)
        self._show_position()

    def action_inspect(self) -> None:
        """Show the module that the selected row, else the newest that has one, is about."""
        rows = self._rows[::-1] if self.cursor is None else [self._rows[self.cursor]]
        target = next((row.target for row in rows if row.target is not None), None)
        if target is not None:
            self.post_message(self.InspectWanted(target))

    def go_to(self, target: Target) -> bool:
        """Select the last row about a module; says whether there is one."""
        row = self._log.last_of(target)
        if row is None:
            return False
        if isinstance(row, ModuleRow) and not self._log.unfolded:
            self._log.toggle()
        self._following = False
        self._lines.clear()
        grow(self, len(self._rows))
        self.cursor = self._log.place_of(row)
        self.refresh()
        return True

    def action_copy_row(self) -> None:
        """Put the selected row, else the newest, on the clipboard."""
        if self._rows:
            self._copy(self.text_of(self.cursor if self.cursor is not None else -1))

    def action_copy_all(self) -> None:
        """Put the whole log on the clipboard."""
        if self._rows:
            self._copy("\n".join(row_text(row) for row in self._rows))

    def _copy(self, text: str) -> None:
        self.app.copy_to_clipboard(text)
        self.post_message(self.Copied(text))

    def on_click(self, event: Click) -> None:
        """Select the row that was clicked; a second click shows its module."""
        index = event.y - self.gutter.top + self.scroll_offset.y
        if 0 <= index < len(self._rows):
            self.cursor = index
            if event.chain == 2:
                self.action_inspect()
