"""Full pictures of steps on the Timeline screen: asking for them, what is under way, and which there are."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from textual.timer import Timer

from sdtui.protocol import DecodeStep, Message, Refused, StepDecoded, StepNotDecoded
from sdtui.text import format_seconds, safe_text
from sdtui.ui.timeline_record import Record
from sdtui.ui.timeline_rows import Side
from sdtui.ui.widgets.pages.beside import run_beside

if TYPE_CHECKING:
    from sdtui.ui.screens.timeline import TimelineScreen

_TICK_S: Final = 0.5


class Key(NamedTuple):
    """One step of one picture."""

    job: str
    batch_index: int
    picture: int
    step: int


def key_of(side: Side) -> Key:
    """The step that is shown."""
    record = side.record
    return Key(record.job, record.facts.batch_index, record.picture_in_batch, side.step)


class Decoding:
    """Which steps are being decoded, could not be, or are."""

    def __init__(self) -> None:
        self.steps: frozenset[int] = frozenset()
        """Of the shown record, those whose full picture is there."""
        self._since: dict[Key, float] = {}
        self._failed: dict[Key, str] = {}
        self._ticker: Timer | None = None

    def ask(self, screen: TimelineScreen) -> None:
        """Have the shown steps decoded that are not, and are not being."""
        for side in screen.sides():
            if not side.record.is_empty and not (side.record is screen.record and side.step in self.steps):
                self.request(screen, key_of(side))
        screen.show_step()

    def request(self, screen: TimelineScreen, key: Key) -> None:
        """Have one step decoded, if that is not being done."""
        if key in self._since:
            return
        if screen.feed.last.state != "connected":
            screen.show_notice("There is no server to decode with; F8 tries to reach it.", "error")
            self._failed[key] = "there is no server"
            return
        self._failed.pop(key, None)
        self._since[key] = time.monotonic()
        screen.send(DecodeStep(job=key.job, batch_index=key.batch_index, picture=key.picture, step_index=key.step))
        if self._ticker is None:
            self._ticker = screen.set_interval(_TICK_S, screen.show_step)

    def waits_for(self, key: Key) -> bool:
        """Whether the answer is still to come."""
        return key in self._since

    def failure(self, key: Key) -> str:
        """Why a step was not decoded when it was asked for last; empty where it was."""
        return self._failed.get(key, "")

    def doing(self, side: Side) -> str:
        """What is to be said of a step in its picture's border; empty where nothing is done for it."""
        key = key_of(side)
        if key in self._since:
            waited_s = time.monotonic() - self._since[key]
            return f"decoding with the full VAE{f', {waited_s:.0f} s' if waited_s >= 1 else ' …'}"
        return f"not decoded: {self._failed[key]}" if key in self._failed else ""

    def take(self, screen: TimelineScreen, event: Message) -> None:
        """The server answered."""
        match event:
            case StepDecoded():
                self._end(Key(event.job, event.batch_index, event.picture, event.step_index))
                if event.elapsed_s:
                    screen.show_notice(f"Step {event.step_index + 1} decoded in {format_seconds(event.elapsed_s)}.")
                self.look_again(screen)
            case StepNotDecoded():
                self._fail(screen, Key(event.job, event.batch_index, event.picture, event.step_index), event.message)
            case Refused(job=str(job)):
                for key in [key for key in self._since if key.job == job]:
                    self._fail(screen, key, event.message)
        self._rest()

    def _fail(self, screen: TimelineScreen, key: Key, message: str) -> None:
        if self._end(key):
            self._failed[key] = safe_text(message, limit=300)
            screen.show_step()
            screen.show_notice(f"Step {key.step + 1} is not decoded: {self._failed[key]}", "error")

    def _end(self, key: Key) -> bool:
        self._failed.pop(key, None)
        return self._since.pop(key, None) is not None

    def lose(self, screen: TimelineScreen) -> None:
        """The server is gone, and with it what was asked."""
        for key in list(self._since):
            self._fail(screen, key, "The server has gone.")
        self._rest()

    def _rest(self) -> None:
        if not self._since and self._ticker is not None:
            self._ticker.stop()
            self._ticker = None

    def look_again(self, screen: TimelineScreen) -> None:
        """Find out which steps have full pictures."""
        if screen.record is not None:
            run_beside(screen, partial(self._look, screen, screen.record), "decoded", exclusive=True)

    async def _look(self, screen: TimelineScreen, record: Record) -> None:
        steps = await asyncio.to_thread(record.decoded)
        if screen.record is record:
            self.steps = steps
            screen.show_step()
            for picture in (screen.one, screen.two):
                if picture.seen is not None and picture.wish is not None and picture.wish.view == "vae":
                    picture.show_again()
