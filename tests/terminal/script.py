"""What every terminal is put through: each function does something to the demo app and leaves it as it was.

They raise `AssertionError`, with the paths of what was seen and wanted, where the pictures are not as they should be.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .demo import APP, COLUMNS, ROWS, Demo
from .demo_app import FRAMES
from .real import Emulator, wait_for

FEW_COLOURS = 500
"""More than text has, fewer than pictures."""


def show_the_next(demo: Demo) -> None:
    """Other pictures."""
    number = demo.state.shown["one"]
    demo.terminal.keys("n")
    demo.wait(lambda state: state.shown["one"] == number + 1, "the next pictures")
    demo.wait_to_see()


def stream(demo: Demo) -> None:
    """Many frames of pictures that form, and the finished ones."""
    number = demo.state.shown["one"]
    demo.terminal.keys("f")
    demo.wait(lambda state: state.shown["one"] > number, f"{FRAMES} frames", 90)
    demo.wait_to_see()


def cover_with_a_dialog(demo: Demo) -> None:
    """A dialog over pictures that move, which must stay on top, and away."""
    number = demo.state.shown["one"]
    demo.terminal.keys("f", "m")
    box = demo.wait(lambda state: state.dialog, "the dialog").dialog
    assert box is not None
    demo.wait_to_be_covered(box)
    while demo.state.shown["one"] == number:
        demo.must_be_covered(box)
    demo.terminal.keys("Escape")
    demo.wait(lambda state: not state.dialog, "the end of the dialog")
    demo.wait_to_see()


def open_a_dialog_at_once(demo: Demo) -> None:
    """A dialog that opens before the next pictures are drawn, and away."""
    demo.terminal.keys("n", "m")
    demo.wait(lambda state: state.dialog, "the dialog")
    demo.terminal.keys("Escape")
    demo.wait(lambda state: not state.dialog, "the end of the dialog")
    demo.wait_to_see()


def cover_with_a_toast(demo: Demo) -> None:
    """A toast over a corner, which goes by itself."""
    demo.terminal.keys("t")
    box = demo.wait(lambda state: state.toast, "the toast").toast
    assert box is not None
    demo.wait(lambda _: demo.share_of_one_colour(box) > 0.5, "the toast on the screen", 10)
    demo.wait(lambda state: not state.toast, "the end of the toast")
    demo.wait_to_see()


def change_the_theme(demo: Demo) -> None:
    """Light and dark again."""
    for _ in range(2):
        before = demo.state.theme
        demo.terminal.keys("d")
        demo.wait(lambda state, before=before: state.theme != before, "the other theme")
        demo.wait_to_see()


def hide_and_scroll(demo: Demo) -> None:
    """Not displayed, then scrolled away in part, and back."""
    demo.terminal.keys("h")
    demo.wait(lambda state: not state.spots, "no picture")
    demo.terminal.keys("h")
    demo.wait(lambda state: state.spots, "the pictures")
    demo.wait_to_see()
    demo.terminal.keys("s")
    demo.wait(lambda state: state.scrolled, "the page to scroll")
    demo.terminal.keys("b")
    demo.wait(lambda state: not state.scrolled, "the page to scroll back")
    demo.wait_to_see()


def resize(demo: Demo) -> None:
    """A smaller window, not a whole number of cells, and the first one again."""
    size, (width, height) = demo.state.size, demo.terminal.size_px()
    demo.terminal.resize(width * 4 // 5 + 3, height * 5 // 6 + 5)
    demo.wait(lambda state: state.size != size, "a smaller window")
    demo.wait_to_see()
    demo.terminal.resize(width, height)
    demo.wait(lambda state: state.size == size, "the window as it was")
    demo.wait_to_see()


def zoom(demo: Demo) -> None:
    """A larger font."""
    before = demo.state.cell_px
    demo.terminal.zoom()
    demo.wait(lambda state: state.cell_px > before, "larger cells")
    demo.wait_to_see()


def leave(kind: type[Emulator], home: Path | None = None) -> None:
    """What the shell wrote before the app is there after it, and nothing else is."""
    with tempfile.TemporaryDirectory(prefix="sdtui-d-") as directory:
        place = home or Path(directory)
        env = {"PYTHONPATH": str(Path.cwd()), "HOME": str(place)}
        app = f"{sys.executable} {APP} {place}/state"
        shell = f"printf 'before\r\n'; : > {place}/ready; read _; {app}; printf 'after\r\n'; : > {place}/done; read _"
        with kind(["sh", "-c", shell], columns=COLUMNS, rows=ROWS, env=env) as terminal:
            wait_for((place / "ready").exists, "the shell", 30)
            width, height = map(int, terminal.cell_px(COLUMNS, ROWS))
            left, top = kind.origin_px
            first_line = (left, top, left + COLUMNS * width, top + height)
            # A window that is still empty stands still as well.
            wait_for(lambda: terminal.image().crop(first_line).getcolors(1) is None, "the shell's line", 30)
            before = terminal.settled()
            terminal.keys("Return")
            wait_for((place / "state").exists, "the app", 30)
            wait_for(lambda: terminal.count_colours() > FEW_COLOURS, "the pictures", 30)
            terminal.settled()
            terminal.keys("q")
            wait_for((place / "done").exists, "the end of the app", 20)
            after = terminal.settled()
    assert after.crop(first_line).tobytes() == before.crop(first_line).tobytes(), "the shell's lines are not as they were"
    # Below are the new line that was typed, "after", and nothing.
    rest = after.crop((left, top + 6 * height, left + (COLUMNS - 1) * width, top + (ROWS - 1) * height))
    assert len(rest.getcolors(1 << 24) or ()) == 1, "something is left on the screen"
