"""An app with two pictures, wired as sdtui itself, for tests in real terminals: `python demo_app.py STATE`.

It tells in the file STATE where it believes the pictures to be. Keys: m a dialog, escape closes it, t a toast, d dark or
light, h hides the pictures or shows them, s scrolls down, b back up, n the next pictures, f many frames, q quits.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from PIL import Image
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from sdtui.terminal.picture import CellSize, Frame, fit
from sdtui.terminal.probe import Probe, start_probe
from sdtui.terminal.verdict import settle_colorterm
from sdtui.ui.terminal_app import TerminalApp
from sdtui.ui.themes import VARIABLE_DEFAULTS, load_theme, theme_files
from sdtui.ui.widgets.preview.live import LivePicture

SIZES_PX = {"one": (480, 320), "two": (256, 256)}
FRAMES = 150
DIALOG_COLOUR = (32, 64, 96)
TELL_S = 0.05


def scene(name: str, number: int) -> Image.Image:
    """The picture that `name` shows as its `number`th: other colours in every corner, an edge, and some texture."""
    width, height = SIZES_PX[name]
    down, across = np.mgrid[0:height, 0:width] / max(width, height)
    turn = number * 1.3 + len(name)
    red, green, blue = 110 + 90 * np.sin(across * 5 + turn), 60 + 150 * down, 120 + 100 * np.cos((across + down) * 4 - turn)
    pixels = np.stack([red, green, blue], axis=2) + 8 * np.sin(across * 60)[..., None]
    pixels[height // 4 : height // 2, width // 8 : width // 3] = (230, 200, 40)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


class State(msgspec.Struct, kw_only=True):
    """What the app believes. Spots are column, row, columns and rows on the screen."""

    spots: dict[str, tuple[int, int, int, int]]
    shown: dict[str, int]
    cell_px: tuple[float, float]
    protocol: str
    dialog: tuple[int, int, int, int] | None
    toast: tuple[int, int, int, int] | None
    theme: str
    scrolled: int
    size: tuple[int, int]


class Dialog(ModalScreen[None]):
    """A box of one colour in the middle."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        yield Static("", id="box")


class Demo(Screen[None]):
    """Two pictures beside each other on a page that scrolls, and a line below it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("m", "open_dialog", "Dialog"),
        ("t", "say", "Toast"),
        ("d", "change_theme", "Dark or light"),
        ("h", "hide", "Hide or show"),
        ("s", "scroll", "Scroll down"),
        ("b", "scroll_back", "Scroll back"),
        ("n", "show_next", "Next pictures"),
        ("f", "stream", "Many frames"),
        ("q", "app.quit", "Quit"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.counts = dict.fromkeys(SIZES_PX, -1)

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            with Horizontal(id="pictures"):
                yield LivePicture(id="one")
                yield LivePicture(id="two")
            yield Static("", id="rest")
        yield Static("demo", id="keys")

    @property
    def pictures(self) -> list[LivePicture]:
        return list(self.query(LivePicture))

    def on_mount(self) -> None:
        self.action_show_next()

    def action_show_next(self) -> None:
        for picture in self.pictures:
            path = Path(os.environ["HOME"], f"{picture.id}-{self.number}.png")
            scene(str(picture.id), self.number).save(path)
            picture.show_file(path)
            self.counts[str(picture.id)] = self.number
        self.number += 1

    def action_stream(self) -> None:
        self.run_worker(self._stream(), exit_on_error=True)

    async def _stream(self) -> None:
        frames = {name: [Frame.of(scene(name, number)) for number in range(5)] for name in SIZES_PX}
        for count in range(FRAMES):
            for picture in self.pictures:
                picture.show_frame(frames[str(picture.id)][count % 5])
            await asyncio.sleep(0.02)
        self.action_show_next()

    def action_open_dialog(self) -> None:
        self.app.push_screen(Dialog())

    def action_say(self) -> None:
        self.notify("A toast over the pictures' corner.\nIt goes by itself.\n" * 6, title="Toast", timeout=2)

    def action_change_theme(self) -> None:
        self.app.theme = "sdtui-light" if self.app.theme == "sdtui-dark" else "sdtui-dark"

    def action_hide(self) -> None:
        for picture in self.pictures:
            picture.display = not picture.display

    def action_scroll(self) -> None:
        self.query_one("#page").scroll_to(y=8, animate=False)

    def action_scroll_back(self) -> None:
        self.query_one("#page").scroll_to(y=0, animate=False)


class DemoApp(TerminalApp[None]):
    """Knows no server."""

    CSS = """
    Dialog { align: center middle; }
    #box { width: 40; height: 9; background: rgb(32,64,96); }
    #page { scrollbar-size: 0 0; }
    #pictures { height: 90%; margin: 1 2; }
    #one { width: 3fr; margin: 0 2 0 0; }
    #two { width: 2fr; }
    #rest { height: 60; }
    #keys { dock: bottom; height: 1; background: $primary; }
    """

    def __init__(self, state: Path, probe: Probe) -> None:
        self._state = state
        self._told = b""
        super().__init__(probe=probe)
        for path in theme_files():
            self.register_theme(load_theme(path))
        self.theme = "sdtui-dark"

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return VARIABLE_DEFAULTS

    def get_default_screen(self) -> Screen[Any]:
        return Demo()

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(TELL_S, self._tell)

    def _tell(self) -> None:
        demo = next((screen for screen in self.screen_stack if isinstance(screen, Demo)), None)
        if demo is None:
            return
        cell = self.terminal_display.cell
        boxes = {name: _regions(self.screen, selector) for name, selector in (("dialog", "#box"), ("toast", "Toast"))}
        state = State(
            spots={str(picture.id): _spot(picture, cell) for picture in demo.pictures if picture.display},
            shown=demo.counts,
            cell_px=(cell.width_px, cell.height_px),
            protocol=demo.pictures[0]._own_sink().name if demo.pictures[0]._own_sink() else "text",
            dialog=boxes["dialog"],
            toast=boxes["toast"],
            theme=self.theme,
            scrolled=round(demo.query_one("#page").scroll_y),
            size=tuple(self.size),
        )
        told = msgspec.json.encode(state)
        if told != self._told:
            part = self._state.with_suffix(".part")
            part.write_bytes(told)
            part.rename(self._state)
            self._told = told


def _regions(screen: Screen[Any], selector: str) -> tuple[int, int, int, int] | None:
    found = [widget.region for widget in screen.query(selector) if widget.region.area]
    return tuple(found[0]) if found else None


def _spot(picture: Widget, cell: CellSize) -> tuple[int, int, int, int]:
    region, (width, height) = picture.region, SIZES_PX[str(picture.id)]
    columns, rows = fit(width, height, region.width, region.height, cell)
    return region.x + (region.width - columns) // 2, region.y + (region.height - rows) // 2, columns, rows


def main() -> None:
    probe = start_probe()
    try:
        settle_colorterm(probe.collect(), os.environ)
        DemoApp(Path(sys.argv[1]), probe).run()
    finally:
        probe.restore()


if __name__ == "__main__":
    main()
