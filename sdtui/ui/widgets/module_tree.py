"""The tree of a model's modules through Textual's line API: ten thousand modules cost what the visible ones cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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

from sdtui.ui.live_figures import LiveFigures
from sdtui.ui.module_rows import Column, columns_for, head_text, line_spans, name_indent
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.private import grow
from sdtui.ui.widgets.table_box import TableBox

_LINES_AT_ONCE: Final = 16
"""With other figures: a few milliseconds of work, ten times a second."""
_KEPT_LINES: Final = 1024
"""A dozen screens: what is scrolled back to need not be laid out again."""


class ModuleLines(ScrollView, can_focus=True):
    """Shows an `Outline`. The selection stays on its module, whatever is folded, sorted or left out around it."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "module-lines--text",
        "module-lines--strong",
        "module-lines--muted",
        "module-lines--rule",
        "module-lines--accent",
        "module-lines--secondary",
        "module-lines--warning",
        "module-lines--error",
        "module-lines--active",
        "module-lines--cursor",
        "module-lines--cursor-blurred",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move_cursor(-1)", "Up", show=False, id="modules.up", tooltip="The line above"),
        Binding("down,j", "move_cursor(1)", "Down", show=False, id="modules.down", tooltip="The line below"),
        Binding("pageup", "move_page(-1)", "Page up", show=False, id="modules.page_up", tooltip="A page up"),
        Binding("pagedown", "move_page(1)", "Page down", show=False, id="modules.page_down", tooltip="A page down"),
        Binding("home,g", "go_to_end(False)", "Top", show=False, id="modules.top", tooltip="The model itself"),
        Binding("end,G", "go_to_end(True)", "Bottom", show=False, id="modules.bottom", tooltip="The last line"),
        Binding("right,l", "go_in", "In", show=False, id="modules.in", tooltip="Unfold, or go to the first module below"),
        Binding("left,h", "go_out", "Out", show=False, id="modules.out", tooltip="Fold, or go to the module that holds this one"),
        Binding("enter,space", "fold", "Fold", show=False, id="modules.toggle", tooltip="Fold or unfold the module"),
        Binding(
            "asterisk",
            "fold_all(True)",
            show=False,
            key_display="*",
            id="modules.toggle_branch",
            tooltip="Unfold everything below, or fold it again",
        ),
        Binding("A", "fold_all(False)", show=False, id="modules.toggle_all", tooltip="Unfold the whole model, or fold it again"),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

    class Selected(Message):
        """Another module is selected."""

        def __init__(self, node: int) -> None:
            super().__init__()
            self.node = node

        def can_replace(self, message: Message) -> bool:
            """Who scrolls sees the last one."""
            return isinstance(message, ModuleLines.Selected)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.outline: Outline | None = None
        self.columns: tuple[Column, ...] = ()
        self.marked: Collection[int] = ()
        self.live: LiveFigures | None = None
        self._node: int | None = None
        self._strips: LRUCache[tuple[object, ...], Strip] = LRUCache(_KEPT_LINES)
        self._styles: dict[tuple[str, str], Style] = {}
        self._drawn: dict[int, tuple[int, int]] = {}
        """Of each line in view, what its live figures and its brightness were."""

    @property
    def selected(self) -> int | None:
        """The selected node; None while no model is shown."""
        return self._node

    @property
    def line_count(self) -> int:
        """How many lines are unfolded."""
        return len(self.outline.lines) if self.outline is not None else 0

    @property
    def first(self) -> int:
        """The first line in view."""
        return self.scroll_offset.y

    # --- what it is told --------------------------------------------------------------------------------------------

    def show(self, outline: Outline, node: int = MODEL) -> None:
        """Another model, with one of its modules selected."""
        self.outline, self.marked, self._node = outline, (), None
        self._strips.clear()
        self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self.lines_changed(node)

    def mark(self, nodes: Collection[int]) -> None:
        """What a search or a comparison found."""
        self.marked = nodes
        self.refresh()

    def go_to(self, node: int) -> None:
        """Select a module, wherever it is hidden."""
        if self.outline is not None:
            self.outline.reveal(node)
            self.lines_changed(node)

    def show_live(self, live: LiveFigures | None) -> None:
        """Show what the modules did instead of what they are made of; None: no longer."""
        if live is not self.live:
            self.live = live
            self._choose_columns()

    def live_changed(self) -> bool:
        """Time has passed, or there are newer figures: draw lines in view that look different now; says whether some are left.

        Those that light up or fade are all drawn, of those with other figures a few, the ones that are behind the most first.
        """
        if self.outline is None or self.live is None:
            return False
        lit: list[int] = []
        behind: list[tuple[int, int]] = []
        for y in range(min(self.size.height, self.line_count - self.first)):
            stamp, level = self._looks(self.outline.lines[y + self.first])
            before = self._drawn.get(y, (-1, 0))
            if before[1] != level:
                lit.append(y)
            elif before[0] != stamp:
                behind.append((before[0], y))
        room = max(0, _LINES_AT_ONCE - len(lit))
        for top, count in _runs(sorted([*lit, *(y for _, y in sorted(behind)[:room])])):
            self.refresh(Region(0, top, self.size.width, count))
        return len(behind) > room

    def _looks(self, node: int) -> tuple[int, int]:
        return (self.live.stamp(node), self.live.level(node)) if self.live is not None else (0, 0)

    def lines_changed(self, node: int | None = None) -> None:
        """Other lines are unfolded, or they are in other places; the selection stays on its module, or goes to this one."""
        if self.outline is None:
            return
        node = node if node is not None else self._node
        if self.virtual_size.height != self.line_count:
            grow(self, self.line_count)
        line = self.outline.line_of(node if node is not None else MODEL)
        self.refresh()
        if line == self.cursor:
            self.watch_cursor(line, line)
        else:
            self.cursor = line

    # --- what happens to it -----------------------------------------------------------------------------------------

    def watch_cursor(self, before: int, cursor: int) -> None:
        """Keep the line in view, and draw no more than the two lines that changed."""
        top = self.first
        self.scroll_to_region(Region(0, cursor, 1, 1), animate=False, force=True, immediate=True)
        if self.first == top:
            for line in {before, cursor}:
                self.refresh(Region(0, line - top, self.size.width, 1).intersection(self.size.region))
        node = self.outline.lines[cursor] if self.outline is not None else None
        if node is not None and node != self._node:
            self._node = node
            self.post_message(self.Selected(node))

    def on_resize(self) -> None:
        """Other columns may fit."""
        self._choose_columns()

    def _choose_columns(self) -> None:
        self.columns = columns_for(max(1, self.scrollable_content_region.width - 1), live=self.live is not None)
        self._strips.clear()
        self.refresh()
        if isinstance(self.parent, TableBox):
            self.parent.head.show(head_text(self.columns))

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        self._strips.clear()
        self._styles.clear()

    def on_focus(self) -> None:
        """The selected line is brighter."""
        self.refresh()

    def on_blur(self) -> None:
        """The selected line is darker."""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The module at a line of the window."""
        line, width = y + self.first, max(1, self.scrollable_content_region.width - 1)
        if self.outline is None or line >= self.line_count:
            return Strip.blank(width, self.rich_style)
        node = self.outline.lines[line]
        looks = self._drawn[y] = self._looks(node)
        ground = "active" if looks[1] == 2 and not (self.outline.is_unfolded(node) and self.outline.has_children(node)) else ""
        if line == self.cursor:
            ground = "cursor" if self.has_focus else "cursor-blurred"
        key = (node, self.outline.is_unfolded(node), node in self.marked, ground, width, *looks)
        strip = self._strips.get(key)
        if strip is None:
            strip = self._strips[key] = self._lay_out(self.outline, node, width, ground)
        return strip

    def _lay_out(self, outline: Outline, node: int, width: int, ground: str) -> Strip:
        spans = line_spans(outline, node, self.columns, self.marked, self.live)
        segments = [Segment(text, self._style(tone, ground)) for text, tone in spans]
        return Strip(segments).adjust_cell_length(width, self._style("text", ground))

    def _style(self, tone: str, ground: str) -> Style:
        style = self._styles.get((tone, ground))
        if style is None:
            behind = self.get_component_rich_style(f"module-lines--{ground}", partial=True) if ground else Style()
            style = self.rich_style + self.get_component_rich_style(f"module-lines--{tone}", partial=True) + behind
            self._styles[tone, ground] = style
        return style

    # --- what the user does -----------------------------------------------------------------------------------------

    def action_move_cursor(self, by: int) -> None:
        """Select another line."""
        self.cursor = max(0, min(self.line_count - 1, self.cursor + by))

    def action_move_page(self, by: int) -> None:
        """Move the selection by a page."""
        self.action_move_cursor(by * max(1, self.size.height - 1))

    def action_go_to_end(self, last: bool) -> None:
        """Select the first or the last line."""
        self.cursor = max(0, self.line_count - 1) if last else 0

    def action_fold(self) -> None:
        """Fold or unfold the selected module."""
        if self.outline is not None and self._node is not None:
            self.outline.fold(self.cursor, folded=self.outline.is_unfolded(self._node))
            self.lines_changed()

    def action_fold_all(self, below: bool) -> None:
        """Fold or unfold everything below the selected module, or the whole model."""
        if self.outline is not None and self._node is not None:
            self.outline.fold_all(self._node if below else MODEL)
            self.lines_changed()

    def action_go_in(self) -> None:
        """Unfold; where that is done already, go to the first below."""
        outline = self.outline
        if outline is None or self._node is None or not outline.has_children(self._node):
            return
        if outline.is_unfolded(self._node):
            if outline.children(self._node):
                self.action_move_cursor(1)
        else:
            self.action_fold()

    def action_go_out(self) -> None:
        """Fold; where that is done already, go to what holds it."""
        outline = self.outline
        if outline is None or self._node is None:
            return
        if outline.is_unfolded(self._node) and outline.has_children(self._node):
            self.action_fold()
        elif (above := outline.parent(self._node)) is not None:
            self.cursor = outline.line_of(above)

    def on_click(self, event: Click) -> None:
        """Select the line that was clicked; a click on its mark, or a second one, folds it."""
        line = event.y - self.gutter.top + self.first
        if self.outline is None or not 0 <= line < self.line_count:
            return
        self.cursor = line
        _, mark = name_indent(self.outline.depths[self.outline.lines[line]], self.columns[0].width)
        if event.x - self.gutter.left in (mark, mark + 1) or event.chain == 2:
            self.action_fold()


def _runs(lines: list[int]) -> Iterator[tuple[int, int]]:
    """Lines that lie together: the first of them and how many there are."""
    start = 0
    for place, line in enumerate(lines):
        if place + 1 == len(lines) or lines[place + 1] != line + 1:
            yield lines[start], place + 1 - start
            start = place + 1
