"""The source of a function that runs line by line: which line runs next, which ones ran, and a cursor to read with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Final, NamedTuple

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sdtui.ui.explain_run import Run, is_heading
from sdtui.ui.private import grow
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.pages.source_code import broken, coloured

_TONES: Final = ("text", "strong", "muted", "accent", "secondary", "success", "warning")
_NEXT: Final = "▶ "
_RAN: Final = "· "
_QUIET: Final = "  "
_LEAST: Final = 16
"""Cells that are left to the code however narrow the window is."""
_AROUND: Final = 3
"""Lines that stay in view above and below what runs."""


class Row(NamedTuple):
    """A line of the window: a line of the source, or a part of one."""

    line: int
    is_first: bool
    text: Text


class SourceLines(ScrollView, can_focus=True):
    """Shows a `Run`'s source. The cursor goes over the lines that can run; it runs none."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "source-lines--text",
        "source-lines--strong",
        "source-lines--muted",
        "source-lines--accent",
        "source-lines--secondary",
        "source-lines--success",
        "source-lines--warning",
        "source-lines--next",
        "source-lines--cursor",
        "source-lines--cursor-blurred",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move_cursor(-1)", "Up", show=False, id="source.up", tooltip="Read the line above; nothing runs"),
        Binding("down,j", "move_cursor(1)", "Down", show=False, id="source.down", tooltip="Read the line below; nothing runs"),
        Binding("pageup", "move_page(-1)", show=False, id="source.page_up", tooltip="A page up"),
        Binding("pagedown", "move_page(1)", show=False, id="source.page_down", tooltip="A page down"),
        Binding("home", "go_to_end(False)", show=False, id="source.first", tooltip="The first line"),
        Binding("end", "go_to_end(True)", show=False, id="source.last", tooltip="The last line"),
        Binding("f", "follow", "Follow", show=False, id="source.follow", tooltip="Back to the line that ran last"),
    ]
    cursor: reactive[int] = reactive(0, repaint=False, init=False)
    """The line that is read, by its number in the file."""

    class Moved(Message):
        """Another line is read."""

        def can_replace(self, message: Message) -> bool:
            """Who scrolls sees the last one."""
            return isinstance(message, SourceLines.Moved)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.follows = True
        """Whether the cursor goes with what runs."""
        self._run: Run | None = None
        self._hints: dict[int, str] = {}
        self._coloured: dict[int, Text] = {}
        self._rows: list[Row] = []
        self._styles: dict[str, Style] = {}

    # --- what it is told ---------------------------------------------------------------------------------------------

    def show(self, run: Run, hints: Mapping[int, str]) -> None:
        """Another run; `hints` stand behind their lines."""
        self._run, self._hints, self.follows = run, dict(hints), True
        self._coloured = {line: Text(text) for line, text in run.text.items()}
        self._break()
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.set_reactive(SourceLines.cursor, run.started.next_line)
        run_beside(self, partial(self._colour, run), "colour", exclusive=True)
        self.ran()

    def set_hints(self, hints: Mapping[int, str]) -> None:
        """What stands behind lines has changed."""
        if dict(hints) != self._hints:
            self._hints = dict(hints)
            self._break()

    def ran(self) -> None:
        """Lines ran: mark them, and go with them."""
        if self._run is None:
            return
        if self.follows:
            self.action_follow()
        self.refresh()

    async def _colour(self, run: Run) -> None:
        coloured = await asyncio.to_thread(_coloured, run, {tone: self._style(tone) for tone in _TONES})
        if run is self._run:
            self._coloured = coloured
            self._break()

    # --- lines of the window -----------------------------------------------------------------------------------------

    @property
    def _gutter(self) -> int:
        """Cells before the code: the mark, the number, a gap."""
        return len(_NEXT) + self._digits + 2

    @property
    def _digits(self) -> int:
        return len(str(max(self._coloured, default=1)))

    def _break(self) -> None:
        """Lines in as many rows as they need, the rest of each further in; none before it is known how wide they may be."""
        if not self.size.width:
            return
        room = max(_LEAST, self.scrollable_content_region.width - 1 - self._gutter)
        self._rows = []
        for line, text in self._coloured.items():
            hint = self._hints.get(line)
            whole = Text.assemble(text, (f"  ← {hint}", self._style("accent"))) if hint else text
            pieces = broken(whole.copy(), room, self.app.console)
            self._rows += [Row(line, at == 0, piece) for at, piece in enumerate(pieces)]
        grow(self, len(self._rows))
        self.refresh()

    def on_resize(self) -> None:
        """Lines break elsewhere, and what is read stays in view."""
        self._break()
        self._keep_in_view()

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        self._styles.clear()
        if self._run is not None and self.is_attached:
            run_beside(self, partial(self._colour, self._run), "colour", exclusive=True)

    def on_focus(self) -> None:
        """The line that is read is brighter."""
        self.refresh()

    def on_blur(self) -> None:
        """The line that is read is darker."""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The row at a line of the window."""
        at = y + self.scroll_offset.y
        width = self.scrollable_content_region.width
        if self._run is None or at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[at]
        is_next, is_read = row.line == self._run.next_line, row.line == self.cursor
        ground = "next" if is_next else ("cursor" if self.has_focus else "cursor-blurred") if is_read else ""
        behind = self._style(ground) if ground else Style()
        mark = _NEXT if is_next else _RAN if row.line in self._run.ran else _QUIET
        number_tone = "accent" if is_next else "text" if is_read else "muted"
        gutter = [
            Segment(mark if row.is_first else _QUIET, self._style("accent" if is_next else "secondary") + behind),
            Segment(f"{row.line if row.is_first else '':>{self._digits}}  ", self._style(number_tone) + behind),
        ]
        code = Strip(row.text.render(self.app.console)).apply_style(self._style("text") + behind)
        return Strip([*gutter, *code]).adjust_cell_length(width, self.rich_style + behind).apply_style(self.rich_style)

    def _style(self, tone: str) -> Style:
        style = self._styles.get(tone)
        if style is None:
            style = self._styles[tone] = self.get_component_rich_style(f"source-lines--{tone}", partial=True)
        return style

    # --- the cursor --------------------------------------------------------------------------------------------------

    def watch_cursor(self) -> None:
        """Keep the line in view."""
        self._keep_in_view()
        self.refresh()
        self.post_message(self.Moved())

    def _keep_in_view(self) -> None:
        """The cursor, with what runs next where it goes with that; from the first line on all that stands above it."""
        if self._run is None or not self._rows or not self.size.height:
            return
        lines = {self.cursor, self._run.next_line} if self.follows else {self.cursor}
        places = [at for at, row in enumerate(self._rows) if row.line in lines]
        if not places:
            return
        if self.cursor == self._run.started.lines[0] and places[-1] < self.size.height:
            self.scroll_to(y=0, animate=False, immediate=True, force=True)
            return
        around = min(_AROUND, (self.size.height - 1) // 3)
        first, last = max(0, places[0] - around), min(len(self._rows), places[-1] + 1 + around)
        if last - first > self.size.height:  # they lie far from each other: what ran matters more
            places = [at for at, row in enumerate(self._rows) if row.line == self.cursor]
            first, last = max(0, places[0] - around), min(len(self._rows), places[-1] + 1 + around)
        self.scroll_to_region(Region(0, first, 1, last - first), animate=False, force=True, immediate=True)

    def _move(self, by: int) -> None:
        if self._run is None:
            return
        lines = self._run.started.lines
        at = lines.index(self.cursor) if self.cursor in lines else 0
        self.follows = False
        self.cursor = lines[max(0, min(len(lines) - 1, at + by))]

    def action_move_cursor(self, by: int) -> None:
        """Read another line."""
        self._move(by)

    def action_move_page(self, by: int) -> None:
        """Read what is a page away."""
        self._move(by * max(1, self.size.height // 2))

    def action_go_to_end(self, last: bool) -> None:
        """Read the first or the last line."""
        if self._run is not None:
            self._move(len(self._run.started.lines) * (1 if last else -1))

    def action_follow(self) -> None:
        """Go with what runs: the line that ran last, before any ran the one that comes first."""
        if self._run is None:
            return
        self.follows = True
        there = self._run.last.line if self._run.last is not None else self._run.started.next_line
        if there == self.cursor:
            self._keep_in_view()
        self.cursor = there

    def on_click(self, event: Click) -> None:
        """Read the line that was clicked."""
        at = event.y - self.gutter.top + self.scroll_offset.y
        if self._run is not None and 0 <= at < len(self._rows) and self._rows[at].line in self._run.started.lines:
            self.follows = False
            self.cursor = self._rows[at].line


def _coloured(run: Run, tones: Mapping[str, Style]) -> dict[int, Text]:
    """Each line of the source in the theme's colours; headings of stages stand out. Takes tenths of a second."""
    whole = coloured("\n".join(run.text.values()), tones)
    lines = dict(zip(run.text, whole.split("\n", allow_blank=True), strict=False))
    for line, text in run.text.items():
        if is_heading(text):
            lines[line] = Text.assemble((text, tones["strong"]))
    return {line: lines.get(line, Text(text)) for line, text in run.text.items()}
