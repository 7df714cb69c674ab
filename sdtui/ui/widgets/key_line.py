"""The last line: the keys that matter here and now. One widget that draws, as Textual's Footer remounts at each change."""

from __future__ import annotations

from textual.binding import Binding
from textual.content import Content
from textual.events import Click
from textual.screen import Screen
from textual.widget import Widget

from sdtui.ui.bindings import own_bindings


class KeyLine(Widget):
    """Keys of the bindings with `show`; what is not possible now is dimmed, so nothing moves."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._spots: list[tuple[range, str]] = []

    def on_mount(self) -> None:
        """Draw again when what is possible changes."""
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_changed)

    def _bindings_changed(self, screen: Screen[object]) -> None:
        if screen is self.screen:
            self.refresh()

    def _in_order(self) -> list[tuple[Binding, bool]]:
        """The two that matter most, help and commands, which say all others, what has the focus, then the rest as declared."""
        found = reversed(self.screen.active_bindings.values())  # of a binding's keys the first one
        shown = {entry.binding.id: entry for entry in found if entry.binding.show}
        owners = (self.screen, self.screen.focused, self.app)
        ids = [[entry.id for entry in own_bindings(type(owner)) if entry.id in shown] for owner in owners]
        declared, within, everywhere = ids
        order = dict.fromkeys([*declared[:2], "app.help", "app.commands", *within, *declared, *everywhere, *shown])
        return [(shown[name].binding, shown[name].enabled) for name in order if name in shown]

    def render(self) -> Content:
        """Key and name of each binding, until the line is full."""
        parts: list[tuple[str, str]] = []
        self._spots = []
        at = 0
        seen: set[str] = set()
        for binding, enabled in self._in_order():
            if binding.action in seen:
                continue
            key = self.app.get_key_display(binding)
            width = len(key) + 1 + len(binding.description)
            if at + width > self.size.width:
                break
            seen.add(binding.action)
            parts += [(key, "$accent" if enabled else "$rule"), (f" {binding.description}   ", "$muted" if enabled else "$rule")]
            self._spots.append((range(at, at + width), binding.key))
            at += width + 3
        return Content.assemble(*parts)

    def on_click(self, event: Click) -> None:
        """A key's name does what the key does."""
        for spot, key in self._spots:
            if event.x - self.gutter.left in spot:
                self.app.simulate_key(key)
