"""Pictures in real terminal emulators: what is on the screen is compared with the files it should show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .demo import APP, COLUMNS, ROWS, Demo
from .demo_app import FRAMES
from .real import Alacritty, Emulator, Kitty, SixelXterm, TmuxInXterm, missing_tools, wait_for

pytestmark = [pytest.mark.xdist_group("end_to_end"), pytest.mark.timeout(240)]
MEMORY_BYTES = 6 << 20
"""Far less than 300 pictures of 256 pixels, which are 59 MB."""


class Case(NamedTuple):
    """One kind of terminal: what should be chosen for it, and how well it shows a picture."""

    kind: type[Emulator]
    protocol: str
    tolerance: float
    grainy: bool | None


CASES = [
    Case(SixelXterm, "sixel", 8, True),
    Case(Kitty, "kitty", 2, True),
    Case(Alacritty, "quadrant", 4, None),
    Case(TmuxInXterm, "half", 5, False),
]
ids = [case.kind.name for case in CASES]


def need(kind: type[Emulator]) -> None:
    """Skip, saying why, where a program is not installed."""
    missing = missing_tools(*kind.needed())
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; .ci/run installs them on Debian")


@pytest.fixture(scope="module", params=CASES, ids=ids)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Demo]]:
    """Gives the demo app as it was when it started: the running one, or a new one where a test left it otherwise."""
    case: Case = request.param
    need(case.kind)
    running: list[Demo] = []

    def give() -> Demo:
        if running and not running[0].is_untouched():
            running.pop().__exit__(None, None, None)
        if not running:
            evidence = tmp_path_factory.mktemp("seen")
            running.append(Demo(case.kind, evidence, tolerance=case.tolerance, grainy=case.grainy))
            running[0].wait_to_see()
            assert running[0].state.protocol == case.protocol
        return running[0]

    yield give
    for demo in running:
        demo.__exit__(None, None, None)


@pytest.fixture
def demo(start: Callable[[], Demo]) -> Demo:
    """The demo app with both pictures on the screen."""
    demo = start()
    demo.wait_to_see()
    return demo


def test_the_screen_shows_the_pictures_of_the_files(demo: Demo) -> None:
    number = demo.state.shown["one"]
    demo.terminal.keys("n")
    demo.wait(lambda state: state.shown["one"] == number + 1, "the next pictures")
    demo.wait_to_see()


def test_a_dialog_covers_pictures_that_move_and_leaves_them_whole(demo: Demo) -> None:
    number = demo.state.shown["one"]
    demo.terminal.keys("f", "m")
    box = demo.wait(lambda state: state.dialog, "the dialog").dialog
    assert box is not None
    demo.wait_to_be_covered(box)
    while demo.state.shown["one"] == number:
        assert demo.is_covered(box)
    demo.terminal.keys("Escape")
    demo.wait(lambda state: not state.dialog, "the end of the dialog")
    demo.wait_to_see()


def test_a_dialog_that_opens_before_the_first_picture_is_drawn_is_no_hindrance(start: Callable[[], Demo]) -> None:
    demo = start()
    demo.terminal.keys("n", "m")
    demo.wait(lambda state: state.dialog, "the dialog")
    demo.terminal.keys("Escape")
    demo.wait(lambda state: not state.dialog, "the end of the dialog")
    demo.wait_to_see()


def test_a_toast_covers_a_corner_until_it_goes(demo: Demo) -> None:
    demo.terminal.keys("t")
    box = demo.wait(lambda state: state.toast, "the toast").toast
    assert box is not None

    def covered() -> bool:
        toast = demo.crop(box)
        return max(count for count, _ in toast.getcolors(1 << 24) or [(0, 0)]) > toast.width * toast.height / 2

    wait_for(covered, "the toast on the screen", 10)
    demo.wait(lambda state: not state.toast, "the end of the toast")
    demo.wait_to_see()


def test_another_theme_leaves_the_pictures_alone(demo: Demo) -> None:
    for _ in range(2):
        before = demo.state.theme
        demo.terminal.keys("d")
        demo.wait(lambda state, before=before: state.theme != before, "the other theme")
        demo.wait_to_see()


def test_pictures_come_back_when_they_were_hidden_or_scrolled_away(demo: Demo) -> None:
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


def test_pictures_follow_the_size_of_the_window(demo: Demo) -> None:
    demo.terminal.resize(90, 30)
    demo.wait(lambda state: state.size == (90, 30), "a smaller window")
    demo.wait_to_see()
    demo.terminal.resize(COLUMNS, ROWS)
    demo.wait(lambda state: state.size == (COLUMNS, ROWS), "the window as it was")
    demo.wait_to_see()


def test_pictures_keep_their_proportions_when_the_font_grows(demo: Demo) -> None:
    if not demo.terminal.zoom_key:
        pytest.skip(f"no key of {demo.terminal.name} changes the font")
    demo.terminal.zoom()
    demo.wait(lambda state: state.cell_px[0] > 8, "larger cells")
    assert demo.state.cell_px == demo.cell_px()
    demo.wait_to_see()


@pytest.mark.parametrize("kind", [case.kind for case in CASES], ids=ids)
def test_nothing_remains_when_the_app_has_ended(kind: type[Emulator], home: Path) -> None:
    need(kind)
    script = f"printf 'before\\r\\n'; read _; {sys.executable} {APP} {home}/state; printf 'after\\r\\n'; read _"
    with kind(["sh", "-c", script], columns=COLUMNS, rows=ROWS, env={"PYTHONPATH": str(Path.cwd())}) as terminal:
        wait_for(lambda: terminal.count_colours() > 2, "the first word", 10)
        before = terminal.settled().crop((0, 0, COLUMNS * 8, 17))
        terminal.keys("Return")
        wait_for(lambda: terminal.count_colours() > 500, "the pictures", 30)
        terminal.settled()
        terminal.keys("q")
        wait_for(lambda: terminal.count_colours() < 500, "the end of the app", 20)
        shot = terminal.settled()
    assert shot.crop((0, 0, COLUMNS * 8, 17)).tobytes() == before.tobytes()
    # Below are the new line that was typed, and "after": two colours and their mixtures at edges.
    below = shot.crop((0, 17 * 4, *shot.size)).getcolors(1 << 24)
    assert below is not None
    assert len(below) == 1


def test_many_frames_leave_the_memory_of_the_terminal_as_it_was(demo: Demo) -> None:
    if demo.state.protocol not in ("kitty", "sixel"):
        pytest.skip("characters are not kept")
    rounds = []
    for _ in range(3):
        number = demo.state.shown["one"]
        demo.terminal.keys("f")
        demo.wait(lambda state, number=number: state.shown["one"] > number, f"{FRAMES} frames", 90)
        demo.wait_to_see()
        rounds.append(demo.terminal.rss_bytes())
    assert rounds[2] - rounds[1] < MEMORY_BYTES
