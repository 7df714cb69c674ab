"""What the parts of a module's page are made of: plots, contact sheets, figures, and where a module stands."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdtui.anatomy.read import open_anatomy
from sdtui.ui.contact_sheet import contact_sheet, lay_out
from sdtui.ui.outline import Outline
from sdtui.ui.schematic_plan import plan_of
from sdtui.ui.widgets.pages.place import place_spans
from sdtui.ui.widgets.pages.plots import Colours, Curve, Histogram, draw
from sdtui.ui.widgets.pages.weight_text import effective_rank, share_text

COLOURS = Colours((0, 0, 0), (150, 150, 150), (100, 200, 255))


@pytest.mark.parametrize("size", [(12, 3), (43, 16), (120, 40)])
@pytest.mark.parametrize(
    "what",
    [
        Histogram((1, 5, 0, 2), -1.0, 1.0), Histogram((7, 0, 0, 0), 3.0, 3.0), Histogram((0,) * 9, 0.0, 1.0), Histogram((), 0, 1),
        Histogram((1, 2), -1e300, 1e300), Histogram((1, 2), 1e-300, 2e-300),
        Curve((4.0, 2.0, 1.0)), Curve((4.0,)), Curve((0.0, 0.0)), Curve((1e9, 1e-30, 0.0)), Curve(()),
        Curve((1e300, 1.0)),
    ],
)  # fmt: skip
def test_plots_fill_their_size_whatever_they_are_of(what: Histogram | Curve, size: tuple[int, int]) -> None:
    lines = draw(what, *size, COLOURS).plain.splitlines()
    assert len(lines) <= size[1]
    assert max(map(len, lines), default=0) <= size[0]


def test_an_empty_bin_stays_empty() -> None:
    lines = draw(Histogram((9, 0, 0, 9), 0.0, 4.0), 40, 10, COLOURS).plain.splitlines()
    assert "█" in lines[-2][:10]
    assert not lines[-2][12:28].strip()


@pytest.mark.parametrize("room", [(44, 40), (400, 200), (3, 3), (1, 1), (200, 9)])
@pytest.mark.parametrize("shape", [(36, 32, 32), (1, 1, 1), (36, 1, 128), (4, 32, 8), (2, 77, 32)])
def test_a_contact_sheet_fills_its_room_and_each_channel_keeps_its_shape(
    room: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    layout = lay_out(shape, room)
    frame = contact_sheet(np.full(shape, 255, np.uint8), 0, room, (1, 2, 3))
    assert (frame.width_px, frame.height_px) == room
    assert frame.is_whole
    assert layout.room >= 1
    assert layout.across * layout.width_px + (layout.across - 1) * layout.gap_px <= max(room[0], layout.across * 3)
    if min(layout.width_px, layout.height_px) > 10:
        assert layout.width_px / layout.height_px == pytest.approx(shape[2] / shape[1], rel=0.2)


def test_pixels_of_a_channel_are_enlarged_as_they_are() -> None:
    sheet = np.array([[[0, 255], [255, 0]]], np.uint8)
    frame = contact_sheet(sheet, 0, (8, 8), (9, 9, 9))
    grey = np.frombuffer(frame.rgb, np.uint8).reshape(8, 8, 3)[..., 0]
    assert (grey == np.kron(sheet[0], np.ones((4, 4), np.uint8))).all()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("conv_in", ["    └ conv_in Conv2d".strip(), "▸ conv in", "2 of 7 modules in unet", "  down_blocks ModuleList"]),
        ("down_blocks.1.attentions.0", ["▸    down 1 R [A] ↓", "1 of 1 module in attentions"]),
        ("mid_block", ["▸       mid R A R", "4 of 7 modules in unet"]),
        ("", ["unet, in 9 blocks", "└ unet UNet2DConditionModel", "  vae AutoencoderKL"]),
    ],
)
def test_the_place_names_the_way_the_neighbours_and_the_block(path: str, told: list[str]) -> None:
    outline = Outline(open_anatomy("scenes-128"))
    node, root = outline.find_key(("unet", path)), outline.find_key(("unet", ""))
    assert node is not None
    assert root is not None
    text = "".join(text for text, _ in place_spans(outline, node, plan_of(outline, root)))
    for words in told:
        assert words in text
    assert text.count("▸") == (2 if path else 1)


def test_what_has_no_plan_has_a_place_all_the_same() -> None:
    outline = Outline(open_anatomy("scenes-128"))
    node = outline.find_key(("scheduler", ""))
    assert node is not None
    text = "".join(text for text, _ in place_spans(outline, node, None))
    assert "5 of 5 modules in scenes-128" in text
    assert "block" not in text


def test_the_effective_rank_is_that_of_roy_and_vetterli() -> None:
    assert effective_rank([3.0] * 8) == pytest.approx(8)
    assert effective_rank([5.0, 0.0, 0.0]) == pytest.approx(1)
    shares = np.array([4, 2, 1]) / 7
    assert effective_rank([4, 2, 1]) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert effective_rank([0.0, 0.0]) == 0
    assert effective_rank([]) == 0


@pytest.mark.parametrize(("share", "text"), [(0, "none"), (1, "all"), (1e-6, "< 0.01 %"), (0.25, "25.00 %")])
def test_a_share_is_never_rounded_to_nothing(share: float, text: str) -> None:
    assert share_text(share) == text
