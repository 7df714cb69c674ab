"""What was found on the module's page: focus after the zoom, and histograms of numbers far from 0 or far apart."""

from __future__ import annotations

import pytest

from sdtui.ui.widgets.pages.plots import Colours, Histogram, draw
from tests.ui.inspecting import open_inspect
from tests.ui.stage import stage, until

COLOURS = Colours((0, 0, 0), (150, 150, 150), (90, 160, 255))


async def test_who_leaves_the_zoom_for_another_view_has_the_keys_there() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("z", "v")
        await until(lambda: not screen.has_class("-zoomed") and screen.view == "schematic", "the schematic")
        await running.pilot.pause()
        await running.pilot.pause()
        assert running.app.focused is screen.schematic


async def test_who_leaves_the_zoom_has_the_keys_where_they_were() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("z")
        await until(lambda: running.app.focused is screen.page.target, "the page has the keys")
        await running.pilot.press("z")
        await until(lambda: running.app.focused is screen.tree_lines, "the tree has them again")


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (9e15, 9e15, ["9e+15"]),
        (-1e308, 1e308, ["-1e+308", "0", "1e+308"]),
        (1e8, 1e8 + 1, ["100000000", "100000000", "100000001"]),
        (-1.2, 1.1, ["-1.2", "0", "1.1"]),
        (3.0, 3.0, ["3"]),
    ],
)
def test_a_histogram_is_drawn_however_large_or_close_its_numbers_are(low: float, high: float, shown: list[str]) -> None:
    text = draw(Histogram([5, *[1] * 62, 9], low, high), 43, 8, COLOURS).plain
    assert "█" in text
    assert text.rstrip().splitlines()[-1].split() == shown
