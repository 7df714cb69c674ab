"""The tabs of narrow terminals: one line, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget


class TabLine(Widget, can_focus=True):
    """Left and right go through the panes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", "Previous pane", show=False, id="tabs.previous", tooltip="The pane before"),
        Binding("right", "turn(1)", "Next pane", show=False, id="tabs.next", tooltip="The pane after"),
    ]
    active: reactive[str] = reactive("", init=False)

    class Chosen(Message):
        """Another pane is to be shown."""

        def __init__(self, pane: str) -> None:
            super().__init__()
            self.pane = pane

    def __init__(self, panes: Sequence[tuple[str, str]], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._panes = list(panes)
        self.set_reactive(TabLine.active, self._panes[0][0])

    def watch_active(self, pane: str) -> None:
        """Tell the screen."""
        self.post_message(self.Chosen(pane))

    def render(self) -> Content:
        """The names, the active one in the accent colour."""
        parts: list[tuple[str, str]] = []
        for pane, label in self._panes:
            here = pane == self.active
            style = ("reverse $accent" if self.has_focus else "$accent underline") if here else "$muted"
            parts += [(label, style), ("   ", "")]
        return Content.assemble(*parts)

    def action_turn(self, by: int) -> None:
        """The pane before or after."""
        names = [pane for pane, _ in self._panes]
        self.active = names[(names.index(self.active) + by) % len(names)]

    def on_click(self, event: Click) -> None:
        """Show the pane whose name was clicked."""
        at = self.gutter.left
        for pane, label in self._panes:
            if at <= event.x < at + len(label):
                self.active = pane
            at += len(label) + 3
