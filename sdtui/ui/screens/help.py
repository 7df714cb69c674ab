"""F1: every key, read from the bindings themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from sdtui.ui.bindings import key_text, own_bindings

_COLUMN = 22


class HelpScreen(ModalScreen[None]):
    """The keys of the app, of the screen below, and of each kind of widget on it."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q", "app.pop_screen", "Close", id="help.close", tooltip="Close the help", priority=True),
    ]

    def __init__(self, below: Screen[Any], keymap: Mapping[str, str]) -> None:
        super().__init__()
        self._below = below
        self._keymap = keymap

    def compose(self) -> ComposeResult:
        """A box that scrolls."""
        with VerticalScroll(id="help-box") as box:
            box.border_title = "Keys"
            box.border_subtitle = "esc closes"
            yield Static(self._text(), markup=False)

    def on_mount(self) -> None:
        """Arrow keys scroll at once."""
        self.query_one("#help-box").focus()

    def _text(self) -> Content:
        parts: list[Content | str | tuple[str, str]] = []
        for title, bindings in self._sections():
            parts.append((f"{title}\n", "bold $foreground"))
            for binding in bindings:
                keys = self._keys(binding)
                gap = " " * max(1, _COLUMN - len(keys))
                parts += [("  ", ""), (keys, "$accent"), (f"{gap}{binding.tooltip or binding.description}\n", "$muted")]
            parts.append("\n")
        return Content.assemble(*parts)

    def _sections(self) -> Iterable[tuple[str, list[Binding]]]:
        """Title and bindings, each binding once; only those with an id are ours."""
        yield "Everywhere", own_bindings(type(self.app))
        yield type(self._below).__name__.removesuffix("Screen"), own_bindings(type(self._below))
        shown: set[type] = set()
        for widget in self._below.query("*"):
            kind = type(widget)
            if widget.can_focus and kind not in shown and (bindings := own_bindings(kind)):
                shown.add(kind)
                yield _TITLES.get(kind.__name__, kind.__name__), bindings

    def _keys(self, binding: Binding) -> str:
        keys = self._keymap.get(binding.id or "", binding.key)
        return " or ".join(key_text(key.strip()) for key in keys.split(","))


_TITLES = {
    "PromptBox": "In a prompt",
    "TabLine": "On the tabs",
    "FieldInput": "In a number",
    "Choice": "In a choice",
    "StepLog": "In the step log",
    "JobTable": "In the table of jobs",
    "ModuleLines": "In the tree of modules",
    "Schematic": "In the schematic",
    "SourceLines": "In the source",
    "WordsView": "Where the words act",
}
