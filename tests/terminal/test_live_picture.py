"""Pictures in a running app: what is on the screen of terminals of many kinds, also far away, and while others draw there."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from sdtui.bench.personalities import (
    ALACRITTY,
    FOOT,
    KITTY,
    OLD_KITTY,
    PLAIN,
    SILENT,
    TMUX,
    XTERM,
    XTERM_JS,
    Personality,
)
from sdtui.bench.screen import Screen
from sdtui.bench.terminal import Terminal
from tests.terminal.demo_app import DIALOG_COLOUR, SIZES_PX, State, scene

DEADLINE_S = 40.0
QUIET_S = 0.3
DEMO = Path(__file__).with_name("demo_app.py")
CELL_PX = (8, 17)
EXACT, CLOSE, CELLS = 3.0, 8.0, 26.0
"""Mean differences of a channel: pixels as they were, few colours or JPEG, characters."""
WAYS = [
    pytest.param(KITTY, "kitty", EXACT, id="kitty"),
    pytest.param(OLD_KITTY, "kitty", EXACT, id="kitty 0.26"),
    pytest.param(XTERM, "sixel", CLOSE, id="xterm"),
    pytest.param(FOOT, "sixel", CLOSE, id="foot"),
    pytest.param(XTERM_JS, "iterm2", CLOSE, id="xterm.js"),
    pytest.param(ALACRITTY, "quadrant", CELLS, id="alacritty"),
]
PIXEL_WAYS = WAYS[:3] + WAYS[4:5]


class Stage:
    """The demo in a terminal."""

    def __init__(self, terminal: Terminal, state: Path) -> None:
        self.terminal = terminal
        self._state = state

    @property
    def state(self) -> State | None:
        """What the app believes."""
        return msgspec.json.decode(self._state.read_bytes(), type=State) if self._state.exists() else None

    def difference(self, name: str) -> float:
        """How far the picture on the screen is from what should be there, where the app believes it to be."""
        state = self.state
        assert state is not None
        return difference(self.terminal.picture(state.spots[name]), scene(name, state.shown[name]))

    def grain(self, name: str) -> float:
        """How much neighbouring pixels within a cell differ; not at all where characters draw the picture."""
        assert self.state is not None
        pixels = np.asarray(self.terminal.picture(self.state.spots[name]), np.int16)
        within = np.arange(pixels.shape[1] - 1) % round(self.state.cell_px[0]) != round(self.state.cell_px[0]) - 1
        return float(np.abs(np.diff(pixels, axis=1))[:, within].mean())

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition, with a deadline."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > end:
                self.terminal.picture().save(self._state.with_suffix(".png"))
                pytest.fail(f"not within {DEADLINE_S:g} s: {what}; see {self._state.with_suffix('.png')}")
            time.sleep(0.02)

    def until_shown(self, tolerance: float) -> None:
        """Wait until both pictures are on the screen."""
        self.until(lambda: self.state is not None and set(self.state.spots) == {"one", "two"}, "two pictures laid out")
        for name in ("one", "two"):
            self.until(lambda name=name: self.difference(name) < tolerance, f"picture {name} on the screen")
            if tolerance != CELLS:
                self.until(lambda name=name: self.grain(name) > 0.2, f"picture {name} in pixels")

    def until_quiet(self) -> None:
        """Wait until nothing more is written: pictures go in parts, and are seen before the last has come."""
        before = -1

        def is_quiet() -> bool:
            nonlocal before
            last, before = before, self.terminal.read_bytes
            time.sleep(QUIET_S)
            return last == self.terminal.read_bytes

        self.until(is_quiet, "quiet")

    def colour(self, spot: tuple[int, int, int, int]) -> tuple[float, ...]:
        """The mean colour of cells."""
        return tuple(ImageStat.Stat(self.terminal.picture(spot)).mean)


def difference(shown: Image.Image, source: Image.Image) -> float:
    """The mean difference of a channel, the source stretched to what is shown."""
    stretched = source.convert("RGB").resize(shown.size, Image.Resampling.BICUBIC)
    return sum(ImageStat.Stat(ImageChops.difference(shown.convert("RGB"), stretched)).mean) / 3


@contextmanager
def demo(tmp_path: Path, personality: Personality, **more: object) -> Iterator[Stage]:
    state = tmp_path / "state.json"
    options = {"columns": 120, "rows": 36, "cell_px": CELL_PX, **more}
    with Terminal(
        [sys.executable, str(DEMO), str(state)], personality=personality, cwd=str(DEMO.parents[2]), **options
    ) as terminal:
        yield Stage(terminal, state)


@pytest.mark.parametrize(("personality", "protocol", "tolerance"), WAYS)
def test_two_pictures_are_shown_covered_uncovered_and_cleared(
    tmp_path: Path, personality: Personality, protocol: str, tolerance: float
) -> None:
    with demo(tmp_path, personality) as stage:
        stage.until_shown(tolerance)
        assert stage.state.protocol == protocol
        stage.terminal.type("m")
        stage.until(lambda: stage.state.dialog, "the dialog")
        stage.until(lambda: _is_near(stage.colour(stage.state.dialog), DIALOG_COLOUR), "the dialog over the pictures")
        stage.until(lambda: stage.difference("one") > 2 * tolerance, "the picture dimmed or hidden under the dialog")
        stage.terminal.type("\x1b")
        stage.until_shown(tolerance)
        stage.terminal.type("q")
        assert stage.terminal.wait_for_end(DEADLINE_S) == 0
        screen = stage.terminal.look()
        assert screen.images_held == 0
        assert [error for error in screen.finish() if "know" not in error] == []  # the probe asks for all
        assert len(stage.terminal.picture().getcolors(1 << 20)) <= 2


def _is_near(colour: tuple[float, ...], wanted: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 6 for one, other in zip(colour, wanted, strict=True))


@pytest.mark.parametrize(("personality", "protocol", "tolerance"), PIXEL_WAYS)
def test_a_toast_lies_over_the_picture_and_leaves_it_whole(
    tmp_path: Path, personality: Personality, protocol: str, tolerance: float
) -> None:
    with demo(tmp_path, personality, columns=80) as stage:
        stage.until_shown(tolerance)
        stage.terminal.type("t")
        stage.until(lambda: stage.state.toast, "the toast")
        overlap = _overlap(stage.state.toast, stage.state.spots["two"])
        assert overlap is not None, "the test is about a toast over a picture"
        stage.until(lambda: "A toast over" in stage.terminal.text(), "the toast's text")
        stage.until(lambda: difference(stage.terminal.picture(overlap), _part(stage, overlap)) > 20, "the toast over the picture")
        stage.until(lambda: not stage.state.toast, "the toast gone")
        stage.until_shown(tolerance)


def test_a_toast_in_the_terminals_own_colour_hides_the_picture_too(tmp_path: Path) -> None:
    """kitty takes that colour for no background, and would show the picture through the toast."""
    with demo(tmp_path, KITTY, columns=80) as stage:
        stage.until_shown(EXACT)
        stage.terminal.type("t")
        stage.until(lambda: stage.state.toast and "A toast over" in stage.terminal.text(), "the toast")
        assert len(stage.terminal.look().kitty.placements.all) == 2, "below any other colour the pictures stay"
        colours = stage.terminal.picture(stage.state.toast).getcolors(1 << 20)
        _, commonest = max(colours)
    with demo(tmp_path, Tinted(**vars(KITTY), background=commonest), columns=80) as stage:
        stage.until_shown(EXACT)
        stage.terminal.type("t")
        stage.until(lambda: not stage.terminal.look().kitty.placements.all, "the pictures taken away")
        stage.until(lambda: not stage.state.toast, "the toast gone")
        stage.until_shown(EXACT)


@dataclass(frozen=True)
class Tinted(Personality):
    """A terminal with a background of its own colour."""

    background: tuple[int, int, int] = (0, 0, 0)

    def screen(self, columns: int, rows: int, cell_px: tuple[int, int]) -> Screen:
        screen = super().screen(columns, rows, cell_px)
        screen.default_background = self.background
        return screen


def _part(stage: Stage, part: tuple[int, int, int, int]) -> Image.Image:
    """What picture two has in these cells of the screen."""
    column, row, columns, rows = stage.state.spots["two"]
    whole = scene("two", stage.state.shown["two"]).resize((columns * 8, rows * 17))
    left, top = (part[0] - column) * 8, (part[1] - row) * 17
    return whole.crop((left, top, left + part[2] * 8, top + part[3] * 17))


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


@pytest.mark.parametrize(("personality", "protocol", "tolerance"), WAYS)
def test_another_theme_sends_no_picture_again(tmp_path: Path, personality: Personality, protocol: str, tolerance: float) -> None:
    with demo(tmp_path, personality) as stage:
        stage.until_shown(tolerance)
        stage.until_quiet()
        first = stage.state.theme
        before = stage.terminal.read_bytes
        stage.terminal.type("d")
        stage.until(lambda: stage.state.theme != first, "another theme")
        stage.until(lambda: _is_near(stage.colour((0, 0, 3, 1)), (250, 250, 250)) or stage.colour((0, 0, 3, 1))[0] > 180, "light")
        stage.until_shown(tolerance)
        stage.until_quiet()
        # The pictures take hundreds of kilobytes in pixels, a hundred in characters; the whole screen of text some ten.
        assert stage.terminal.read_bytes - before < 40_000


@pytest.mark.parametrize(("personality", "protocol", "tolerance"), WAYS)
def test_hidden_and_scrolled_pictures_leave_nothing_and_come_back(
    tmp_path: Path, personality: Personality, protocol: str, tolerance: float
) -> None:
    with demo(tmp_path, personality) as stage:
        stage.until_shown(tolerance)
        spot = stage.state.spots["one"]
        stage.terminal.type("h")
        stage.until(lambda: len(stage.terminal.picture(spot).getcolors(1 << 20)) <= 2, "nothing where the picture was")
        stage.terminal.type("h")
        stage.until_shown(tolerance)
        stage.terminal.type("s")
        stage.until(lambda: stage.state.scrolled == 8, "scrolled")
        column, row, columns, rows = spot
        lower = (column, row, columns, rows - 8)
        whole = scene("one", stage.state.shown["one"]).resize((columns * 8, rows * 17)).crop((0, 8 * 17, columns * 8, rows * 17))
        stage.until(lambda: difference(stage.terminal.picture(lower), whole) < CELLS, "the lower part, further up")
        stage.terminal.type("b")
        stage.until(lambda: stage.state.scrolled == 0, "scrolled back")
        stage.until_shown(tolerance)


@pytest.mark.parametrize(("personality", "protocol", "tolerance"), WAYS)
def test_a_resized_window_and_another_font_keep_the_pictures_proportions(
    tmp_path: Path, personality: Personality, protocol: str, tolerance: float
) -> None:
    with demo(tmp_path, personality) as stage:
        stage.until_shown(tolerance)
        stage.terminal.resize(90, 30, CELL_PX)
        stage.until(lambda: stage.state.size == (90, 30), "the new size")
        stage.until_shown(tolerance)
        stage.terminal.resize(90, 30, (12, 20))
        stage.until(lambda: stage.state.cell_px == (12, 20), "the new font")
        stage.until_shown(tolerance)
        for name, (width_px, height_px) in SIZES_PX.items():
            _, _, columns, rows = stage.state.spots[name]
            wanted = width_px / height_px
            assert abs(columns * 12 / (rows * 20) - wanted) < wanted * (0.6 / columns + 0.6 / rows)


@pytest.mark.parametrize("personality", [pytest.param(KITTY, id="kitty"), pytest.param(TMUX, id="tmux")])
def test_a_killed_app_leaves_no_picture_in_the_terminal(
    tmp_path: Path, personality: Personality, tmux_in_kitty: dict[str, str]
) -> None:
    with demo(tmp_path, personality, environment=tmux_in_kitty) as stage:
        stage.until(lambda: stage.terminal.look().images_held == 2, "two pictures")
        stage.terminal.process.send_signal(signal.SIGTERM)
        stage.terminal.wait_for_end(DEADLINE_S)
        assert stage.terminal.look().images_held == 0


@pytest.mark.parametrize(("personality", "protocol", "tolerance"), WAYS)
def test_far_away_and_slow_one_frame_at_most_is_under_way_and_the_last_picture_is_whole(
    tmp_path: Path, personality: Personality, protocol: str, tolerance: float
) -> None:
    with demo(tmp_path, personality, latency_s=0.15, bytes_per_s=1_000_000.0) as stage:
        stage.until_shown(tolerance)
        first = stage.state.shown["one"]
        asked = len(_questions(stage))
        stage.terminal.type("f")
        stage.until(lambda: stage.state.shown["one"] > first, "the end of the frames")
        assert len(_questions(stage)) > asked + 5
        stage.until_shown(tolerance)
        assert _most_unanswered(stage) <= 1


def test_on_a_slow_line_a_finished_picture_comes_small_first(tmp_path: Path) -> None:
    with demo(tmp_path, KITTY, latency_s=0.1, bytes_per_s=200_000.0) as stage:
        stage.until_shown(EXACT)
        sizes = [len(payload) for payload in _transmissions(stage)]
        assert len(sizes) >= 4, "two pictures, each small and then whole"
        small, whole = min(sizes), max(sizes)
        assert sizes.index(small) < sizes.index(whole)
        assert small * 3 < whole


def test_through_tmux_which_may_drop_it_a_last_picture_is_sent_once_more(tmp_path: Path, tmux_in_kitty: dict[str, str]) -> None:
    with demo(tmp_path, TMUX, environment=tmux_in_kitty) as stage:
        stage.until(lambda: len(_images(stage)) == 4, "two pictures, each sent twice")
        stage.until_quiet()
        assert len(_images(stage)) == 4
        assert stage.terminal.look().images_held == 2


def _images(stage: Stage) -> set[bytes]:
    """The ids of the images that were sent, but for the probe's of one pixel."""
    sent = re.findall(rb"\x1b_Ga=t,i=(\d+),", stage.terminal.output())
    return set(sent)


def _transmissions(stage: Stage) -> list[bytes]:
    """The base64 of each image that was sent, its chunks joined."""
    found: list[bytes] = []
    for keys, payload in re.findall(rb"\x1b_G([^;\x1b]*);([^\x1b]*)\x1b", stage.terminal.output()):
        if b"f=24" in keys or b"f=100" in keys:
            found.append(payload)
        elif found and b"m=" in keys:
            found[-1] += payload
    return found


@pytest.mark.parametrize("latency_s", [0.05, 0.4])
def test_a_late_answer_is_used_and_never_typed_into_the_app(tmp_path: Path, latency_s: float) -> None:
    with demo(tmp_path, KITTY, latency_s=latency_s) as stage:
        stage.until_shown(EXACT)
        stage.until(lambda: stage.state.protocol == "kitty", "kitty's protocol")
        assert stage.state.dialog is None, "an answer would have been taken for keys"
        assert stage.state.theme == "sdtui-dark"


@pytest.mark.parametrize("personality", [pytest.param(SILENT, id="silent"), pytest.param(PLAIN, id="plain")])
def test_without_a_word_of_graphics_pictures_come_in_characters(tmp_path: Path, personality: Personality) -> None:
    with demo(tmp_path, personality) as stage:
        stage.until_shown(CELLS)


@pytest.mark.parametrize(
    ("more", "columns"), [({"NO_COLOR": "1"}, 120), ({"COLORTERM": "", "TERM": "xterm-256color"}, 120), ({}, 20)]
)
def test_few_colours_and_little_room_do_not_end_the_app(tmp_path: Path, more: dict[str, str], columns: int) -> None:
    plain = replace(ALACRITTY, environment={**ALACRITTY.environment, **more})
    with demo(tmp_path, plain, columns=columns, rows=12) as stage:
        stage.until(lambda: stage.state is not None and "demo" in stage.terminal.text(), "the app")
        stage.terminal.type("q")
        assert stage.terminal.wait_for_end(DEADLINE_S) == 0


def _questions(stage: Stage) -> list[float]:
    return [at for at, kind in _traffic(stage) if kind == "question"]


def _most_unanswered(stage: Stage) -> int:
    """The most pictures that were under way at once."""
    most = under_way = 0
    for _, kind in _traffic(stage):
        under_way = under_way + 1 if kind == "question" else max(0, under_way - 1)
        most = max(most, under_way)
    return most


def _traffic(stage: Stage) -> list[tuple[float, str]]:
    """Questions and answers, as they came and went."""
    found = []
    for at, kind, data in list(stage.terminal.happenings):
        if kind == "read":
            found += [(at, "question")] * data.count(b"\x1b[5n")
        else:
            found += [(at, "answer")] * data.count(b"\x1b[0n")
    return found
