"""The prompt boxes: text over several lines, counted in tokens as the model counts, with the prompts used before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Final

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import TextArea

from sdtui.params import MAX_PROMPT_CHARACTERS
from sdtui.text import safe_text
from sdtui.ui.history import PromptHistory

if TYPE_CHECKING:
    from sdtui.tokens import TokenCounter

_COUNT_AT_ONCE: Final = 2_000
"""Characters that are counted in well under a millisecond; longer texts are counted in a thread."""


class PromptBox(TextArea):
    """One prompt. Control characters never get in; the text survives whatever the generation does."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "older", "Older prompt", show=False, id="prompt.older", tooltip="In the first line: the prompt before"),
        Binding("down", "newer", "Newer prompt", show=False, id="prompt.newer", tooltip="In the last line: the prompt after"),
    ]

    class Refused(Message):
        """A paste was not taken."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    def __init__(self, title: str, name: str, past: PromptHistory, placeholder: str) -> None:
        super().__init__(
            id=name.replace("_", "-"), soft_wrap=True, show_line_numbers=False, tab_behavior="focus", placeholder=placeholder
        )
        self.field = name
        self.past = past
        self.border_title = title
        self.highlight_cursor_line = False
        self._counter: TokenCounter | None = None
        self._error = ""
        self._counted: asyncio.Task[None] | None = None

    def on_mount(self) -> None:
        """Before the tokenizer is there, the count is unknown."""
        self._show_count(None)

    def set_counter(self, counter: TokenCounter | None) -> None:
        """Count with the loaded model's tokenizer."""
        self._counter = counter
        self._recount()

    def show_error(self, message: str) -> None:
        """Mark the box as wrong; an empty message takes the mark away."""
        self._error = message
        self.set_class(bool(message), "-invalid")
        self._recount()

    @property
    def error(self) -> str:
        """What is wrong with the text, as it was last told."""
        return self._error

    def on_text_area_changed(self) -> None:
        """Count again."""
        self._recount()

    def _recount(self) -> None:
        if self._counter is None or len(self.text) > MAX_PROMPT_CHARACTERS:
            self._show_count(None)
        elif len(self.text) <= _COUNT_AT_ONCE:
            self._show_count(self._counter.count(self.text))
        elif self._counted is None or self._counted.done():
            self._counted = asyncio.create_task(self._count_in_thread())

    async def _count_in_thread(self) -> None:
        text = None
        while self._counter is not None and text != self.text:
            text = self.text
            self._show_count(await asyncio.to_thread(self._counter.count, text))

    def _show_count(self, count: int | None) -> None:
        limit = self._counter.max_tokens if self._counter is not None else 77
        over = count is not None and count > limit
        self.set_class(over, "-over")
        figures = f"{'–' if count is None else count}/{limit}"
        if over and self._counter is not None:
            figures = f"the end is not read · {figures}"
        self.border_subtitle = Content(figures)

    async def _on_key(self, event: events.Key) -> None:
        """Typing makes a new draft. Textual then calls TextArea's own handler."""
        if event.is_printable:
            self.past.leave()

    async def _on_paste(self, event: events.Paste) -> None:
        """Take the text without control characters; refuse what no prompt can hold, before it is laid out."""
        event.prevent_default()
        event.stop()
        room = MAX_PROMPT_CHARACTERS - len(self.text) + len(self.selected_text)
        if len(event.text) > max(room, 0):
            self.post_message(
                self.Refused(
                    f"The pasted text has {len(event.text):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken. "
                    "Nothing was pasted."
                )
            )
            return
        self.past.leave()
        result = self.replace(safe_text(event.text, multiline=True), *self.selection)
        self.move_cursor(result.end_location)

    def action_older(self) -> None:
        """Up: in the first line the prompt before, else the line above."""
        if not self.cursor_at_first_line or not self._at_visual_edge(first=True):
            self.action_cursor_up()
        elif (entry := self.past.older(self.text)) is not None:
            self._show_entry(entry)

    def action_newer(self) -> None:
        """Down: in the last line the prompt after, else the line below."""
        if not self.cursor_at_last_line or not self._at_visual_edge(first=False):
            self.action_cursor_down()
        elif (entry := self.past.newer()) is not None:
            self._show_entry(entry)

    def _at_visual_edge(self, *, first: bool) -> bool:
        """Whether the cursor is in the first or last line as wrapped."""
        row = self.wrapped_document.location_to_offset(self.cursor_location).y
        return row == 0 if first else row == self.wrapped_document.height - 1

    def _show_entry(self, entry: str) -> None:
        self.load_text(safe_text(entry, multiline=True, limit=MAX_PROMPT_CHARACTERS))
        self.move_cursor(self.document.end)
