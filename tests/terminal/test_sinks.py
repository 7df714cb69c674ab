"""Every sink's bytes, decoded and compared with the picture they are of."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from sdtui.bench.screen import Parser, Screen
from sdtui.terminal.blocks import BlockSink
from sdtui.terminal.iterm2 import Iterm2Sink
from sdtui.terminal.kitty import KittySink
from sdtui.terminal.picture import CellSize, Frame, Spot, fit
from sdtui.terminal.sink import ImageSink
from sdtui.terminal.sixel import SixelSink
from tests.terminal.encoders import difference, gradient, noise

CELL = CellSize(8, 17)
SPOT = Spot(3, 2, 64, 30)
MAKERS: dict[str, Callable[[], ImageSink]] = {
    "kitty": lambda: KittySink(CELL),
    "kitty above text": lambda: KittySink(CELL, below=False),
    "kitty, swapping": lambda: KittySink(CELL, edits=False),
    "kitty in tmux": lambda: KittySink(CELL, in_tmux=True),
    "iterm2": lambda: Iterm2Sink(CELL),
    "sixel": lambda: SixelSink(CELL),
    "sixel, synchronized": lambda: SixelSink(CELL, synchronized=True),
    "half": lambda: BlockSink("half", CELL),
    "quadrant": lambda: BlockSink("quadrant", CELL),
    "sextant": lambda: BlockSink("sextant", CELL),
}
KITTIES = [name for name in MAKERS if name.startswith("kitty")]
PIXELS = [*KITTIES, "iterm2", "sixel", "sixel, synchronized"]
CELLS = ["half", "quadrant", "sextant"]
every_sink = pytest.mark.parametrize("name", MAKERS)
every_kitty = pytest.mark.parametrize("name", KITTIES)


def photo(width: int = 512, height: int = 510) -> Image.Image:
    """Smooth areas, edges and some texture, as in a picture that is nearly done."""
    base = np.asarray(gradient(width, height), np.float32)
    texture = np.asarray(noise(width, height).filter(ImageFilter.GaussianBlur(2)), np.float32)
    picture = np.clip(base * 0.8 + (texture - 128) * 0.5 + 20, 0, 255).astype(np.uint8)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (220, 40, 30)
    return Image.fromarray(picture, "RGB")


def screen_for(name: str, columns: int = 80, rows: int = 40) -> Screen:
    return Screen(columns, rows, (8, 17), tmux="tmux" in name)


def stretched(picture: Image.Image, spot: Spot) -> Image.Image:
    """The picture as it should be seen."""
    return picture.resize((spot.columns * 8, spot.rows * 17), Image.Resampling.BILINEAR)


def seen(screen: Screen, spot: Spot) -> Image.Image:
    return screen.picture((spot.column, spot.row, spot.columns, spot.rows))


def show(sink: ImageSink, screen: Screen, picture: Image.Image, spot: Spot = SPOT, budget_bytes: int | None = None) -> int:
    """Let a sink show a picture; how many bytes that took."""
    data = b"".join(sink.show(Frame.of(picture), spot, budget_bytes=budget_bytes))
    screen.feed(data)
    return len(data)


def feed(screen: Screen, parts: list[bytes]) -> None:
    screen.feed(b"".join(parts))


# --- what is seen


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [(name, 0.0) for name in KITTIES] + [("iterm2", 2.0), ("sixel", 6.0)] + [(name, 4.0) for name in CELLS],
)
def test_in_full_quality_a_picture_looks_as_it_is(name: str, tolerance: float) -> None:
    sink, screen, source = MAKERS[name](), screen_for(name), photo()
    show(sink, screen, source)
    assert difference(seen(screen, SPOT), source) <= tolerance
    assert screen.finish() == []


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [(name, 8.0) for name in KITTIES] + [("iterm2", 4.0), ("sixel", 8.0)] + [(name, 4.0) for name in CELLS],
)
def test_a_live_frame_is_near_enough(name: str, tolerance: float) -> None:
    sink, screen, source = MAKERS[name](), screen_for(name), photo()
    for picture in (gradient(512, 510), source):  # the second one replaces the first
        show(sink, screen, picture, budget_bytes=1 << 20)
    assert difference(seen(screen, SPOT), source) <= tolerance
    assert screen.finish() == []


@every_sink
@pytest.mark.parametrize("size_px", [(1, 1), (4096, 16), (16, 4096), (64, 64), (513, 7)])
@pytest.mark.parametrize("cells", [(1, 1), (7, 3), (33, 11)])
@pytest.mark.parametrize("budget_bytes", [None, 20_000])
def test_pictures_and_places_of_any_size_are_shown_and_nothing_beside_them(
    name: str, size_px: tuple[int, int], cells: tuple[int, int], budget_bytes: int | None
) -> None:
    sink, screen, source = MAKERS[name](), screen_for(name, 50, 20), gradient(*size_px)
    spot = Spot(5, 3, *fit(*size_px, *cells, CELL))
    show(sink, screen, source, spot, budget_bytes)
    assert screen.finish() == []
    shown = np.asarray(seen(screen, spot))
    rim = 1 if "tmux" in name else 0  # placeholders keep proportions, to a pixel
    assert shown[rim : len(shown) - rim, rim : shown.shape[1] - rim].any(axis=2).all(), "a hole in the picture"
    assert np.abs(shown.mean(axis=(0, 1)) - np.asarray(source).mean(axis=(0, 1))).max() < 18
    if min(spot.columns, spot.rows) > 5:
        assert difference(seen(screen, spot), stretched(source, spot)) < 8
    outside = np.asarray(screen.picture()).copy()
    outside[spot.row * 17 : (spot.row + spot.rows) * 17, spot.column * 8 : (spot.column + spot.columns) * 8] = 0
    assert not outside.any()


@every_sink
@pytest.mark.parametrize("frame", [Frame(0, 0, b""), Frame(2, 2, b"x" * 11), Frame(-1, -1, b"xxx"), Frame(1, 0, b"")])
def test_what_is_no_picture_is_refused_and_nothing_is_written(name: str, frame: Frame) -> None:
    sink = MAKERS[name]()
    for refused in (
        lambda: sink.show(frame, SPOT, budget_bytes=None),
        lambda: sink.show(frame, SPOT, budget_bytes=10_000),
        lambda: sink.inline(frame, 4, 4),
        lambda: sink.show(Frame.of(gradient(4, 4)), Spot(0, 0, 0, 3), budget_bytes=None),
        lambda: sink.inline(Frame.of(gradient(4, 4)), 4, 0),
    ):
        with pytest.raises(ValueError, match=r"\d"):
            refused()
    assert sink.place(SPOT) == [] and sink.close() == []


@every_sink
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.builds(Spot, st.integers(0, 9), st.integers(0, 4), st.integers(1, 10), st.integers(1, 5)),
    st.sampled_from([None, 1_000, 5_000, 50_000]),
)
@settings(max_examples=25, deadline=None)
def test_no_frame_and_no_place_makes_a_sequence_that_a_terminal_would_garble(name, size_px, spot, budget_bytes) -> None:
    sink, screen = MAKERS[name](), screen_for(name, 20, 10)
    show(sink, screen, noise(*size_px), spot, budget_bytes)
    feed(screen, sink.place(Spot(0, 0, spot.columns, spot.rows)))
    feed(screen, sink.hide() + sink.close())
    assert screen.finish() == []


# --- bytes


@pytest.mark.parametrize(
    ("name", "size_px", "limit_bytes"),
    [
        ("kitty", 64, 20_000),
        ("kitty", 256, 65_000),
        ("kitty", 512, 65_000),
        ("kitty, swapping", 512, 65_000),
        ("kitty in tmux", 512, 85_000),
        ("sixel", 64, 70_000),
        ("sixel", 512, 70_000),
        ("iterm2", 512, 75_000),
    ],
)
@pytest.mark.parametrize("make", [noise, photo])
def test_a_live_frame_is_small_even_when_it_is_noise(name: str, size_px: int, limit_bytes: int, make: Callable) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    for _ in range(2):
        sent = show(sink, screen, make(size_px, size_px), budget_bytes=1 << 20)
    assert sent <= limit_bytes


@pytest.mark.parametrize("name", [name for name in PIXELS if "tmux" not in name])
@pytest.mark.parametrize("budget_bytes", [40_000, 20_000, 10_000, 5_000])
def test_the_budget_is_kept(name: str, budget_bytes: int) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    for _ in range(2):
        assert show(sink, screen, photo(), budget_bytes=budget_bytes) <= budget_bytes * 1.1
    assert screen.finish() == []


@pytest.mark.parametrize("name", CELLS)
def test_cells_get_coarser_on_a_small_budget(name: str) -> None:
    sent = [show(MAKERS[name](), screen_for(name), photo(), budget_bytes=budget) for budget in (1 << 20, 40_000, 20_000)]
    assert sent[0] > sent[1] > sent[2] and sent[1] <= 40_000 * 1.1


@every_sink
def test_every_part_is_whole_and_text_may_go_between_any_two(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    parts = sink.show(Frame.of(photo()), SPOT, budget_bytes=None)
    screen.feed(b"\x1b[1;1H\x1b[38;2;9;9;9m")
    for number, part in enumerate(parts):
        parser = Parser()
        list(parser.feed(part))
        assert parser.pending == b""
        screen.feed(part)
        screen.feed(b"%d" % (number % 10))
    assert screen.cells.text(0).startswith("0123"[: len(parts)])
    assert {pen.foreground for text, pen in screen.cells.lines[0] if text.isdigit()} == {0x090909}
    assert difference(seen(screen, SPOT), photo()) < 7
    assert screen.finish() == []


# --- moved, hidden, lost


@every_sink
def test_the_same_picture_is_shown_elsewhere(name: str) -> None:
    sink, screen, there = MAKERS[name](), screen_for(name), Spot(10, 7, 64, 30)
    show(sink, screen, photo())
    moved = b"".join(sink.place(there))
    if name in KITTIES:
        assert b";" not in moved.replace(b"tmux;", b"").partition(b"\x1b_G")[2].partition(b"\x1b\\")[0]  # no pixels
        assert len(moved) < 200 or "tmux" in name
    screen.feed(moved)
    assert difference(seen(screen, there), photo()) < 7
    assert screen.finish() == []


@every_kitty
def test_a_hidden_picture_leaves_the_screen_but_can_come_back(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    show(sink, screen, photo())
    feed(screen, sink.hide())
    assert not np.asarray(screen.picture()).any()
    assert screen.images_held == 1
    feed(screen, sink.place(SPOT))
    assert difference(seen(screen, SPOT), photo()) < 7
    feed(screen, sink.hide())
    show(sink, screen, photo(), budget_bytes=60_000)  # a frame brings it back, too
    assert np.asarray(seen(screen, SPOT)).any()
    assert screen.finish() == []


@every_sink
def test_what_the_terminal_forgot_is_sent_again(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    show(sink, screen, photo(64, 64), budget_bytes=20_000)
    screen.feed(b"\x1bc")
    sink.forget()
    show(sink, screen, photo(64, 64), budget_bytes=20_000)
    assert np.asarray(seen(screen, SPOT)).any()
    assert screen.finish() == []


@every_kitty
def test_nothing_is_left_in_the_terminal_after_the_end(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    for size_px in (64, 256, 64):
        show(sink, screen, photo(size_px, size_px), budget_bytes=60_000)
    feed(screen, sink.close())
    assert (screen.images_held, screen.bytes_held, len(screen.kitty.placements.all)) == (0, 0, 0)
    assert not np.asarray(screen.picture()).any()
    assert sink.place(SPOT) == []
    feed(screen, sink.close())
    assert screen.images_held == 0
    assert screen.finish() == []


@every_kitty
def test_the_terminals_memory_stays_the_same_over_a_thousand_frames(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    frames = [noise(64, 64, seed) for seed in range(4)]
    held = set()
    for number in range(1000):
        show(sink, screen, frames[number % 4], Spot(0, 0, 4, 2), 20_000)
        held.add((screen.images_held, screen.bytes_held, len(screen.kitty.placements.all)))
    assert len(held) == 1 and held.pop()[0] == 1
    assert screen.finish() == []


# --- each protocol's own rules


def test_a_frame_of_the_same_size_is_edited_in_place_and_another_size_is_swapped() -> None:
    sink, screen = MAKERS["kitty"](), screen_for("kitty")
    show(sink, screen, noise(64, 64, 1), budget_bytes=20_000)
    first = set(screen.kitty.images)
    data = b"".join(sink.show(Frame.of(noise(64, 64, 2)), SPOT, budget_bytes=20_000))
    assert b"a=p" not in data and b"a=t" not in data and data.count(b"a=f,r=1,i=") == data.count(b"\x1b_G")
    screen.feed(data)
    assert set(screen.kitty.images) == first and len(next(iter(screen.kitty.images.values())).frames) == 1
    parts = sink.show(Frame.of(photo()), SPOT, budget_bytes=None)
    shown = [len(screen.kitty.placements.all)]
    for part in parts:
        screen.feed(part)
        shown.append(len(screen.kitty.placements.all))
    assert min(shown) == 1, "a moment without a picture"
    assert set(screen.kitty.images) != first and screen.images_held == 1
    assert screen.finish() == []


def test_kitty_edits_nothing_where_it_cannot() -> None:
    sink, screen = MAKERS["kitty, swapping"](), screen_for("kitty")
    screen = Screen(80, 40, (8, 17), graphics={"kitty"})
    for seed in range(3):
        show(sink, screen, noise(64, 64, seed), budget_bytes=20_000)
    assert screen.images_held == 1 and screen.finish() == []


def test_text_with_a_background_hides_kittys_picture_and_a_blank_cell_brings_it_back() -> None:
    sink, screen = MAKERS["kitty"](), screen_for("kitty")
    show(sink, screen, photo())
    before = screen.picture()
    overlay = b"\x1b[10;20H\x1b[48;2;0;0;99m          \x1b[0m"
    screen.feed(overlay)
    assert screen.picture().getpixel((19 * 8 + 4, 9 * 17 + 4)) == (0, 0, 99)
    show(sink, screen, photo(), budget_bytes=None)
    assert screen.picture().getpixel((19 * 8 + 4, 9 * 17 + 4)) == (0, 0, 99), "a frame is drawn over what hides it"
    screen.feed(b"\x1b[10;20H          ")
    assert screen.picture() == before


def test_two_kitty_pictures_do_not_disturb_each_other() -> None:
    screen, spots = screen_for("kitty"), [Spot(0, 0, 20, 10), Spot(30, 0, 20, 10)]
    sinks = [MAKERS["kitty"](), MAKERS["kitty"]()]
    for seed in range(3):
        for sink, spot in zip(sinks, spots, strict=True):
            show(sink, screen, noise(64, 64, seed), spot, 20_000)
    feed(screen, sinks[0].close())
    assert screen.images_held == 1
    assert not np.asarray(seen(screen, spots[0])).any() and np.asarray(seen(screen, spots[1])).any()


def test_a_picture_cut_between_its_parts_can_be_ended_and_another_one_sent() -> None:
    sink, screen = MAKERS["kitty"](), screen_for("kitty")
    parts = sink.show(Frame.of(photo()), SPOT, budget_bytes=None)
    assert len(parts) > 10
    feed(screen, parts[:3] + sink.abort())
    assert not screen.kitty.unfinished
    sink.forget()
    show(sink, screen, photo())
    assert difference(seen(screen, SPOT), photo()) == 0


@pytest.mark.parametrize("name", ["sixel", "sixel, synchronized"])
@pytest.mark.parametrize(("budget_bytes", "most_colours"), [(None, 256), (1 << 20, 64), (5_000, 64)])
def test_sixel_colours_are_few_and_all_defined_before_the_first_pixel(
    name: str, budget_bytes: int | None, most_colours: int
) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    show(sink, screen, photo(), budget_bytes=budget_bytes)
    assert screen.sixels
    for picture in screen.sixels:
        assert picture.late_definitions == 0 and picture.registers <= most_colours and not picture.errors
    assert screen.synchronized_updates == (len(screen.sixels) if "synchronized" in name else 0)


def test_sixel_keeps_to_the_terminals_registers() -> None:
    screen = screen_for("sixel")
    show(SixelSink(CELL, registers=16), screen, photo())
    assert max(picture.registers for picture in screen.sixels) <= 16


@pytest.mark.parametrize("name", ["sixel", "iterm2"])
def test_a_frame_is_drawn_over_the_one_before_without_a_blank_between(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    show(sink, screen, photo(), budget_bytes=60_000)
    for part in sink.show(Frame.of(gradient(512, 510)), SPOT, budget_bytes=60_000):
        screen.feed(part)
        assert np.asarray(seen(screen, SPOT)).any(axis=2).mean() > 0.99


@pytest.mark.parametrize("name", ["sixel", "iterm2"])
def test_a_picture_that_ends_on_the_last_row_does_not_scroll_the_screen(name: str) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    screen.feed(b"top")
    for _ in range(3):
        show(sink, screen, photo(), Spot(0, 10, 64, 29), 60_000)
    assert screen.text().startswith("top")


@pytest.mark.parametrize(("name", "down"), [("half", 2), ("quadrant", 2), ("sextant", 3)])
def test_every_pattern_of_a_cells_parts_has_its_character(name: str, down: int) -> None:
    across = 1 if name == "half" else 2
    for bits in range(1 << across * down):
        parts = np.array([bits >> part & 1 for part in range(across * down)], bool).reshape(down, across)
        pattern = np.where(parts[..., None], (200, 180, 20), (30, 40, 90)).astype(np.uint8)
        screen = screen_for(name, 2, 2)
        show(MAKERS[name](), screen, Image.fromarray(pattern, "RGB"), Spot(0, 0, 1, 1))
        cell = np.asarray(seen(screen, Spot(0, 0, 1, 1)))
        middles = cell[[17 * (2 * row + 1) // (2 * down) for row in range(down)]][
            :, [8 * (2 * n + 1) // (2 * across) for n in range(across)]
        ]
        assert np.array_equal(middles, pattern), f"{bits:b}"


def test_iterm2_gets_jpeg() -> None:
    screen = screen_for("iterm2")
    show(MAKERS["iterm2"](), screen, photo())
    assert {picture.format for picture in screen.inline_images} == {"JPEG"}


# --- without a full screen


@every_sink
@pytest.mark.parametrize("row", [0, 5, 30, 39])
def test_inline_the_cursor_is_below_the_picture_and_what_was_written_stays_above(name: str, row: int) -> None:
    sink, screen = MAKERS[name](), screen_for(name)
    screen.feed(b"\r\n" * row + b"above\r\n" + sink.inline(Frame.of(photo(160, 170)), 20, 10) + b"below")
    lines = screen.text().splitlines()
    above, below = lines.index("above"), lines.index("below")
    assert below - above == 11
    assert difference(seen(screen, Spot(0, above + 1, 20, 10)), photo(160, 170)) < 12
    assert screen.finish() == []


@every_sink
def test_two_pictures_inline_stand_one_below_the_other(name: str) -> None:
    screen = screen_for(name)
    for colour in ((200, 10, 10), (10, 200, 10)):
        screen.feed(MAKERS[name]().inline(Frame.of(Image.new("RGB", (80, 85), colour)), 10, 5))
    first, second = (np.asarray(seen(screen, Spot(0, row, 10, 5))).mean(axis=(0, 1)) for row in (0, 5))
    assert np.abs(first - (200, 10, 10)).max() < 6 and np.abs(second - (10, 200, 10)).max() < 6
    assert screen.cells.row == 10 and screen.cells.column == 0


@pytest.mark.parametrize("budget_bytes", [None, 1 << 20, 5_000])
@pytest.mark.parametrize("limit_bytes", [9_000, 24_000])
def test_through_tmux_no_picture_is_larger_than_tmux_lets_through(budget_bytes: int | None, limit_bytes: int) -> None:
    sink, screen = KittySink(CELL, in_tmux=True, limit_bytes=limit_bytes), screen_for("kitty in tmux")
    parts = sink.show(Frame.of(noise(512, 512)), SPOT, budget_bytes=budget_bytes)
    passed = sum(len(part) for part in parts if part.startswith(b"\x1bPtmux;"))
    assert passed <= limit_bytes * 1.05 + 200
    feed(screen, parts)
    assert np.asarray(seen(screen, SPOT)).any()


def test_sixels_number_their_colours_without_gaps() -> None:
    sent = b"".join(SixelSink(CELL).show(Frame.of(photo()), SPOT, budget_bytes=None))
    for picture in sent.split(b"\x1bP")[1:]:
        defined = [int(number) for number in re.findall(rb"#(\d+);2;", picture)]
        assert defined == list(range(len(defined)))


def test_in_tmux_a_sixel_picture_ends_with_a_whole_band() -> None:
    sent = b"".join(SixelSink(CELL, in_tmux=True).show(Frame.of(photo()), Spot(0, 0, 10, 5), budget_bytes=None))
    height_px = re.findall(rb'"1;1;\d+;(\d+)', sent)
    assert [int(height) % 6 for height in height_px] == [0]
