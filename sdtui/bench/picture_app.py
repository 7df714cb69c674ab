"""The least app that shows pictures which form, with our widget or with textual-image's; a child of `bench terminal`.

Arguments: library, protocol, kind of frames, how many, seconds between them, a pipe's path. Writes JSON lines there:
`{"type": "began", "at": monotonic seconds}`, and at the end `{"type": "done", "at": ..., "cpu_s": ..., "gaps": [[wall_s, busy_s],
...]}`; `cpu_s` is the whole process's, `gaps` lie between the ticks of the event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Literal, cast, get_args

from PIL import Image
from textual.app import App, ComposeResult
from textual.widget import Widget

from sdtui.bench.picture_frames import Kind, frames
from sdtui.bench.ticker import Gap, tick
from sdtui.terminal.picture import Frame
from sdtui.terminal.probe import start_probe
from sdtui.terminal.verdict import settle_colorterm
from sdtui.ui.terminal_app import TerminalApp
from sdtui.ui.widgets.preview.live import LivePicture

Library = Literal["sdtui", "textual-image"]
COLUMNS: Final = 64
ROWS: Final = 30
_SETTLE_S: Final = 1.0
"""Until what an app does when it starts is over, and what it draws last is drawn."""
_CSS: Final = f"#picture {{ width: {COLUMNS}; height: {ROWS}; }}"


class Showing:
    """Shows the frames at their times while a ticker ticks."""

    def __init__(self, show: Callable[[int], None], count: int, every_s: float, descriptor: int) -> None:
        self._show, self._count, self._every_s, self._descriptor = show, count, every_s, descriptor

    async def run(self) -> None:
        """All of it."""
        await asyncio.sleep(_SETTLE_S)
        gaps: list[Gap] = []
        ticking = asyncio.create_task(tick(gaps.append))
        began, worked = time.monotonic(), time.process_time()
        self._tell("began", at=began)
        for number in range(self._count):
            self._show(number)
            await asyncio.sleep(max(0.0, began + (number + 1) * self._every_s - time.monotonic()))
        used = time.process_time() - worked
        ticking.cancel()
        await asyncio.sleep(_SETTLE_S)
        self._tell("done", at=time.monotonic(), cpu_s=used, gaps=gaps)

    def _tell(self, kind: str, **more: Any) -> None:
        os.write(self._descriptor, json.dumps({"type": kind, **more}).encode() + b"\n")


def _ours(protocol: str, pictures: list[Image.Image]) -> tuple[App[None], LivePicture, Callable[[int], None]]:
    probe = start_probe()
    settle_colorterm(probe.collect(1.0), os.environ)
    shown = [Frame.of(picture) for picture in pictures]
    widget = LivePicture(id="picture")

    class OurApp(TerminalApp[None]):
        CSS = _CSS

        def compose(self) -> ComposeResult:
            yield widget

    return OurApp(probe=probe, image_protocol=protocol), widget, lambda number: widget.show_frame(shown[number])


def _theirs(protocol: str, pictures: list[Image.Image]) -> tuple[App[None], Widget, Callable[[int], None]]:
    from textual_image import widget as widgets

    made = {"kitty": widgets.TGPImage, "sixel": widgets.SixelImage, "half": widgets.HalfcellImage}[protocol](id="picture")

    class TheirApp(App[None]):
        CSS = _CSS

        def compose(self) -> ComposeResult:
            yield made

    def show(number: int) -> None:
        made.image = pictures[number]

    return TheirApp(), made, show


def main() -> None:
    """Run one of the two apps until all frames are shown."""
    library, protocol, kind = sys.argv[1:4]
    count, every_s, descriptor = int(sys.argv[4]), float(sys.argv[5]), os.open(sys.argv[6], os.O_WRONLY)
    if library not in get_args(Library) or kind not in get_args(Kind):
        raise SystemExit(f"{library}, {kind}: not known")
    os.environ["TEXTUAL_COLOR_SYSTEM"] = "truecolor"  # textual-image's placeholders are lost with fewer colours
    pictures = frames(cast("Kind", kind), count)
    app, widget, show = (_ours if library == "sdtui" else _theirs)(protocol, pictures)

    async def run_and_leave() -> None:
        await Showing(show, count, every_s, descriptor).run()
        app.exit()

    widget.call_after_refresh(lambda: app.run_worker(run_and_leave()))
    app.run()


if __name__ == "__main__":
    main()
