"""What the UI's tests share: an app on a scripted client, and waiting for conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from sdtui.protocol import JobRow
from sdtui.settings import General, Inspect, Settings
from sdtui.ui.app import SdtuiApp
from sdtui.ui.screens.create import CreateScreen
from sdtui.ui.screens.queue import QueueScreen
from tests.ui.scripted import ScriptedClient

DEADLINE_S = 10.0


async def until(condition: Callable[[], Any], what: str = "condition", *, within_s: float = DEADLINE_S) -> None:
    """Wait until `condition()` is true; fail after the deadline."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(0.01)


class Stage:
    """A running app with what tests look at."""

    def __init__(self, app: SdtuiApp, pilot: Pilot[None], client: ScriptedClient) -> None:
        self.app = app
        self.pilot = pilot
        self.client = client

    @property
    def screen(self) -> CreateScreen:
        """The Create screen, also when something lies over it or another screen is shown."""
        screen = self.app._made["create"]
        assert isinstance(screen, CreateScreen)
        return screen

    @property
    def queue(self) -> QueueScreen:
        """The Queue screen, once it was shown."""
        screen = self.app._made["queue"]
        assert isinstance(screen, QueueScreen)
        return screen

    async def open_queue(self) -> None:
        """Go to the Queue screen and wait for its jobs."""
        await self.pilot.press("alt+5")
        await until(lambda: isinstance(self.app.screen, QueueScreen) and self.queue.pages.is_known, "the queue's jobs")
        await until(lambda: not self.queue.pages.is_waiting, "all that is in view")
        await self.pilot.pause()

    async def select(self, number: int) -> None:
        """Select the job in the queue whose name ends with this number."""
        await self._select(lambda row: row.job.endswith(f"{number:04d}"))

    async def select_words(self, words: str) -> None:
        """Select the job in the queue with these words in its prompt."""
        await self._select(lambda row: words in row.params.prompt)

    async def _select(self, wanted: Callable[[JobRow], bool]) -> None:
        table = self.queue.table
        rows = (table.jobs.row_at(at) for at in range(table.jobs.count))
        table.cursor = next(at for at, row in enumerate(rows) if row is not None and wanted(row))
        await until(lambda: table.selected is not None and wanted(table.selected), "the job is selected")
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        """Type into what has the focus: all but the last character at once, as each key takes the pilot some 50 ms."""
        focused = self.app.focused
        if isinstance(focused, Input):
            focused.insert_text_at_cursor(text[:-1])
        elif isinstance(focused, TextArea):
            focused.insert(text[:-1])
        if text:
            await self.pilot.press({" ": "space", "\n": "enter"}.get(text[-1], text[-1]))

    def log_text(self) -> str:
        """The whole step log."""
        steps = self.screen.steps
        return "\n".join(steps.text_of(index) for index in range(steps.row_count))

    def screen_text(self) -> str:
        """Everything that can be seen, as text."""
        return "\n".join(strip.text for strip in self.app.screen._compositor.render_strips())

    def toasts(self) -> str:
        """The messages of all toasts."""
        return "\n".join(note.message for note in self.app._notifications)

    async def finished(self) -> None:
        """Wait until the followed job is over."""
        await until(lambda: self.screen.following.job and self.screen.following.over, "job over")
        await self.pilot.pause()


@asynccontextmanager
async def stage(
    client: ScriptedClient | None = None,
    *,
    size: tuple[int, int] = (120, 36),
    settings: Settings | None = None,
    connect: Any = None,
) -> AsyncIterator[Stage]:
    """Run the app, connected and with its form, without animation."""
    client = client or ScriptedClient()
    app = SdtuiApp(settings or Settings(general=General(), inspect=Inspect(estimate=False)), connect=connect or client.connect)
    async with app.run_test(size=size, notifications=True) as pilot:
        running = Stage(app, pilot, client)
        await until(lambda: running.screen.form.row("device") is not None and running.screen.form.row("device").is_attached)
        if connect is None:
            await until(lambda: running.screen.model is not None, "model")
        await pilot.pause()
        yield running
