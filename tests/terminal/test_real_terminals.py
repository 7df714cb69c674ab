"""Pictures in real terminal emulators: what is on the screen is compared with the files it should show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from . import script
from .demo import Demo
from .real import Alacritty, Emulator, Kitty, SixelXterm, TmuxInXterm

pytestmark = [pytest.mark.xdist_group("real_terminals"), pytest.mark.timeout(240)]
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
    if reason := kind.why_not():
        pytest.skip(f"{reason}; .ci/run installs what these tests need on Debian")


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
    script.show_the_next(demo)


def test_a_dialog_covers_pictures_that_move_and_leaves_them_whole(demo: Demo) -> None:
    script.cover_with_a_dialog(demo)


def test_a_dialog_that_opens_before_a_picture_is_drawn_is_no_hindrance(demo: Demo) -> None:
    script.open_a_dialog_at_once(demo)


def test_a_toast_covers_a_corner_until_it_goes(demo: Demo) -> None:
    script.cover_with_a_toast(demo)


def test_another_theme_leaves_the_pictures_alone(demo: Demo) -> None:
    script.change_the_theme(demo)


def test_pictures_come_back_when_they_were_hidden_or_scrolled_away(demo: Demo) -> None:
    script.hide_and_scroll(demo)


def test_pictures_follow_the_size_of_the_window(demo: Demo) -> None:
    script.resize(demo)


def test_pictures_keep_their_proportions_when_the_font_grows(demo: Demo) -> None:
    if not demo.terminal.zoom_key:
        pytest.skip(f"no key of {demo.terminal.name} changes the font")
    script.zoom(demo)


def test_many_frames_leave_the_memory_of_the_terminal_as_it_was(demo: Demo) -> None:
    if demo.state.protocol not in ("kitty", "sixel"):
        pytest.skip("characters are not kept")
    rounds = []
    for _ in range(3):
        script.stream(demo)
        rounds.append(demo.terminal.rss_bytes())
    assert rounds[2] - rounds[1] < MEMORY_BYTES


@pytest.mark.parametrize("kind", [case.kind for case in CASES], ids=ids)
def test_nothing_remains_when_the_app_has_ended(kind: type[Emulator], home: Path) -> None:
    need(kind)
    script.leave(kind, home)
