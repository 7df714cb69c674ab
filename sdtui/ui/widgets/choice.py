"""A field with a few possible values, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from sdtui.text import safe_text


class Choice(Widget, can_focus=True):
    """Arrow keys go through the values; enter opens the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "turn(-1)", "Previous", show=False, id="choice.previous", tooltip="The value before"),
        Binding("right,down", "turn(1)", "Next", show=False, id="choice.next", tooltip="The value after"),
        Binding("enter,space", "open", "List", show=False, id="choice.open", tooltip="Choose from the list"),
    ]
    value: reactive[str] = reactive("", init=False)

    class Changed(Message):
        """Another value was chosen."""

        def __init__(self, choice: Choice, value: str) -> None:
            super().__init__()
            self.choice = choice
            self.value = value

        @property
        def control(self) -> Choice:
            """The field."""
            return self.choice

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], value: str) -> None:
        super().__init__(classes="editor")
        self._title = title
        self._choices = list(choices)
        self.set_reactive(Choice.value, value)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Values and what they are called."""
        return list(self._choices)

    def set_choices(self, choices: Sequence[tuple[str, str]]) -> None:
        """Other values are possible now; the value stays, also when it is not among them."""
        self._choices = list(choices)
        self.refresh()

    def watch_value(self, value: str) -> None:
        """Tell the form."""
        self.post_message(self.Changed(self, value))

    def render(self) -> Content:
        """The value's name; with the focus, arrows that say it can be turned."""
        label = safe_text(dict(self._choices).get(self.value, self.value))
        room = max(1, self.size.width - (4 if self.has_focus else 0))
        label = label if len(label) <= room else f"{label[: room - 1]}…"
        if not self.has_focus:
            return Content(label)
        return Content.assemble(("‹ ", "$accent"), label, (" ›", "$accent"))

    def action_turn(self, by: int) -> None:
        """The value before or after, around the ends."""
        values = [value for value, _ in self._choices]
        if not values:
            return
        at = values.index(self.value) if self.value in values else -1 if by > 0 else 0
        self.value = values[(at + by) % len(values)]

    def action_open(self) -> None:
        """Choose from the list."""
        from sdtui.ui.screens.chooser import Chooser

        def take(value: str | None) -> None:
            if value is not None:
                self.value = value

        self.app.push_screen(Chooser(self._title, self._choices, self.value), take)

    def on_click(self, event: Click) -> None:
        """A second click opens the list, as does enter."""
        event.stop()
        self.focus()
        if event.chain > 1:
            self.action_open()
