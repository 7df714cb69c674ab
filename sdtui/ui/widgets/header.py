"""The first line: which screens there are, and how things stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.content import Content
from textual.events import Click
from textual.widget import Widget

from sdtui.protocol import Heartbeat, Message, ModelInfo, ModelLoaded, QueueChanged
from sdtui.text import format_bytes, safe_text
from sdtui.ui.feed import FeedState

if TYPE_CHECKING:
    from sdtui.ui.screens import ScreenEntry

_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class HeaderLine(Widget):
    """The screens' names at the left; model, device, memory and queue at the right."""

    def __init__(self, screens: Sequence[ScreenEntry], current: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._screens = list(screens)
        self._current = current
        self._model = ""
        self._place = ""
        self._memory = ""
        self._queue = ""
        self._trouble = ""
        self._notice = ""
        self._line = ""
        self._spots: list[tuple[range, str]] = []

    @property
    def status(self) -> str:
        """The right side as text."""
        notice = self._notice or self._trouble
        parts = (self._line, notice or self._model, "" if notice else self._place, self._memory, self._queue)
        return " · ".join(part for part in parts if part)

    def set_model(self, info: ModelInfo) -> None:
        """A model is loaded."""
        name = info.model.rstrip("/").rpartition("/")[2] or info.model
        self._model = safe_text(name, limit=32)
        self._place = safe_text(f"{info.device} {_DTYPES.get(info.dtype, info.dtype)}", limit=24)
        self._notice = ""
        self.refresh()

    def set_memory(self, used_bytes: int, total_bytes: int = 0) -> None:
        """Memory that the worker holds, of how much where that is the device's own."""
        total = f" of {format_bytes(total_bytes)}" if total_bytes else ""
        shown = format_bytes(used_bytes) + total
        if shown != self._memory:
            self._memory = shown
            self.refresh()

    def set_queue(self, queue: QueueChanged) -> None:
        """How many jobs wait, and whether something keeps them waiting."""
        shown = " ".join(("queue", *([str(queue.queued)] if queue.queued else []), *(["held"] if queue.held else [])))
        shown = shown if queue.queued or queue.held else ""
        trouble = safe_text(queue.trouble, limit=60)
        if (shown, trouble) != (self._queue, self._trouble):
            self._queue, self._trouble = shown, trouble
            self.refresh()

    def take_state(self, state: FeedState) -> None:
        """The connection changed."""
        self.set_notice("no server" if state.state == "lost" else "")
        if state.welcome is not None:
            self.set_queue(state.welcome.queue)
            if state.welcome.model is not None:
                self.set_model(state.welcome.model)

    def take_event(self, event: Message) -> None:
        """Show what concerns this line of what the server says."""
        match event:
            case Heartbeat():
                self.set_memory(event.device_bytes or event.rss_bytes, event.device_total_bytes)
            case QueueChanged():
                self.set_queue(event)
            case ModelLoaded():
                self.set_model(event.info)

    def set_line(self, text: str) -> None:
        """What the pictures cost the line to the terminal, as `12 kB/frame, 5 fps`; empty while none go there."""
        if text != self._line:
            self._line = text
            self.refresh()

    def set_notice(self, text: str) -> None:
        """Something that matters more than the model's name, such as a lost server; empty takes it away."""
        if text != self._notice:
            self._notice = text
            self.refresh()

    def render(self) -> Content:
        """One line, the status right-aligned and cut first."""
        width = self.size.width
        parts: list[Content | tuple[str, str]] = [("sdtui", "bold $accent"), "   "]  # type: ignore[list-item]
        at = len("sdtui") + 3
        self._spots = []
        for entry in self._screens:
            text = f"{entry.number} {entry.label}"
            parts += [(text, "$foreground" if entry.name == self._current else "$muted"), ("  ", "")]
            self._spots.append((range(at, at + len(text)), entry.name))
            at += len(text) + 2
        status = self.status
        room = max(0, width - at)
        if len(status) > room:
            status = f"{status[: room - 1]}…" if room > 1 else ""
        parts += [(" " * max(0, room - len(status)), ""), (status, "$warning" if self._notice or self._trouble else "$muted")]
        return Content.assemble(*parts)

    async def on_click(self, event: Click) -> None:
        """A screen's name was clicked."""
        for spot, name in self._spots:
            if event.get_content_offset_capture(self).x in spot:
                await self.run_action(f"app.show_screen('{name}')")
