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
        """The two that matter most, then help and commands, which say all others, then the rest as declared."""
        declared = [binding.id for owner in (self.screen, self.app) for binding in own_bindings(type(owner))]
        order = [*declared[:2], "app.help", "app.commands", *declared]
        shown = [(entry.binding, entry.enabled) for entry in self.screen.active_bindings.values() if entry.binding.show]
        return sorted(shown, key=lambda pair: order.index(pair[0].id) if pair[0].id in order else len(order))

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
