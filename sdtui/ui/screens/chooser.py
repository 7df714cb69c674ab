"""Choose one of a list, over the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option


class Chooser(ModalScreen[str | None]):
    """Returns the value chosen, or None. `Looked` tells the caller what the cursor is on."""

    CSS_PATH = "chooser.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss_none", "Close", id="chooser.close", tooltip="Close and change nothing"),
        Binding("j", "next", show=False, id="chooser.down", tooltip="One down"),
        Binding("k", "previous", show=False, id="chooser.up", tooltip="One up"),
    ]

    class Looked(Message):
        """The cursor is on a value."""

        def __init__(self, chooser_title: str, value: str) -> None:
            super().__init__()
            self.chooser_title = chooser_title
            self.value = value

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], current: str) -> None:
        super().__init__()
        self._title = title
        self._choices = list(choices)
        self._current = current

    def compose(self) -> ComposeResult:
        """A box with the list."""
        with Vertical(id="chooser") as box:
            box.border_title = self._title
            box.border_subtitle = "enter takes · esc leaves"
            yield OptionList(
                *(Option(Content(label), id=f"at-{at}") for at, (_, label) in enumerate(self._choices)), markup=False
            )

    def on_mount(self) -> None:
        """The cursor starts on what is chosen now."""
        values = [value for value, _ in self._choices]
        options = self.query_one(OptionList)
        options.highlighted = values.index(self._current) if self._current in values else 0
        options.focus()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Tell the app, for a look before choosing."""
        event.stop()
        self.app.post_message(self.Looked(self._title, self._choices[event.option_index][0]))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take it."""
        event.stop()
        self.dismiss(self._choices[event.option_index][0])

    def action_dismiss_none(self) -> None:
        """Close and change nothing."""
        self.dismiss(None)

    def action_next(self) -> None:
        """One down."""
        self.query_one(OptionList).action_cursor_down()

    def action_previous(self) -> None:
        """One up."""
        self.query_one(OptionList).action_cursor_up()
