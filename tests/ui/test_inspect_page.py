"""The parts of a module's page: weights, activations, code and place, at every size, and what can be wrong with each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdtui.protocol import MeasureWeight
from sdtui.ui.bindings import own_bindings
from sdtui.ui.screens.inspect import InspectScreen
from sdtui.ui.widgets.module_pages import PARTS
from sdtui.ui.widgets.module_tree import ModuleLines
from sdtui.ui.widgets.pages.weight_text import effective_rank
from sdtui.ui.widgets.schematic import Schematic
from tests.ui.inspecting import NASTY, SHOWN, open_inspect
from tests.ui.paging import (
    code,
    is_settled,
    one_line,
    open_page,
    place,
    select,
    weights,
    write_job,
)
from tests.ui.stage import stage, until

SIZES = [(80, 24), (120, 36), (200, 60)]
STARTS = """
import asyncio, sys
from tests.ui.stage import stage
from tests.ui.inspecting import open_inspect

async def main():
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("down", "down")
        heavy = ("plotext", "textual_plotext", "torch", "sdtui.ui.contact_sheet", "sdtui.ui.widgets.pages.weights")
        early = [name for name in heavy if name in sys.modules]
        await running.pilot.press("p", "p", "p", "p")
        print("early:", early, "torch:", "torch" in sys.modules)

asyncio.run(main())
"""


# --- the parts themselves -------------------------------------------------------------------------------------------


async def test_p_turns_the_page_and_the_part_stays_while_the_cursor_moves() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        seen = [screen.page.shown]
        for _ in PARTS:
            await running.pilot.press("p")
            seen.append(screen.page.shown)
        assert seen == [*PARTS, PARTS[0]]
        await running.pilot.press("P")
        assert screen.page.shown == "place"
        await until(lambda: screen.page.part is not None and screen.page.part.children, "the part")
        await running.pilot.press("down", "down", "down")
        await until(lambda: "conv_in Conv2d" in place(screen).view.text, "the module's place")
        assert screen.page.shown == "place"
        assert isinstance(running.app.focused, ModuleLines)
        await running.pilot.press("p")
        await until(lambda: screen.page.text.startswith("unet.conv_in\n"), "the facts of where the cursor is")
        assert screen.page.facts.display


async def test_a_click_on_a_name_shows_its_part() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.click("#parts", offset=(len("Facts  Weights  Act"), 0))
        await until(lambda: screen.page.shown == "activations", "the part")


async def test_hidden_parts_do_nothing_while_the_cursor_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "figures")
        hidden = weights(screen)
        await running.pilot.press("P")
        asked, facts = len(inspector.asked), []
        show = screen.page.facts.show

        def noted(*told: Any) -> None:
            facts.append(told)
            show(*told)

        monkeypatch.setattr(screen.page.facts, "show", noted)
        await running.pilot.press("down", "up", "down")
        await until(lambda: len(facts) == 3, "the facts are told")
        assert hidden.node == screen.outline.find_key(("unet", "conv_in"))  # type: ignore[union-attr]
        await running.pilot.press("p", "p", "p", "p")  # to the place
        await running.pilot.press("down", "up")
        await running.pilot.pause()
        assert len(facts) == 3
        assert len([ask for ask in inspector.asked if isinstance(ask, MeasureWeight)]) <= asked + 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("part", PARTS[1:])
async def test_every_part_fits_at_every_size_and_zoomed(size: tuple[int, int], part: str) -> None:
    write_job()
    async with stage(size=size) as running:
        screen, _ = await open_page(running, part)
        await until(lambda: is_settled(screen), "the part")
        plain = screen.page.region
        assert plain.height >= 10
        assert not plain.intersection(screen.box.region).area
        assert screen.box.region.height >= 5
        for widget in screen.page.walk_children():
            if widget.display and widget.region.area:
                assert screen.page.region.contains_region(widget.region), widget
        await running.pilot.press("z")
        await until(lambda: screen.page.region.width == size[0], "the whole width")
        assert screen.page.region.height >= size[1] - 4
        assert screen.page.has_focus_within
        await until(lambda: is_settled(screen), "the part, larger")
        await running.pilot.press("z")
        await until(lambda: screen.page.region == plain, "as before")
        await until(lambda: isinstance(running.app.focused, ModuleLines), "the tree has the keys again")


@pytest.mark.parametrize("size", [(40, 12), (20, 5), (1, 1)])
async def test_too_little_room_does_no_harm(size: tuple[int, int]) -> None:
    write_job()
    async with stage(size=size) as running:
        screen, _ = await open_page(running, "weights")
        await running.pilot.press("S", "full_stop", "p", "full_stop", "p", "p", "z", "p", "escape", "p")
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: is_settled(screen), "shown when there is room")


async def test_escape_and_other_views_leave_the_zoom() -> None:
    async with stage() as running:
        screen, _ = await open_page(running, "place")
        await running.pilot.press("z", "escape")
        assert not screen.has_class("-zoomed")
        await running.pilot.press("z", "v")
        await until(lambda: isinstance(running.app.focused, Schematic), "the schematic")
        assert not screen.has_class("-zoomed")
        await running.pilot.press("v", "z", "p")
        assert screen.view == "words"
        assert screen.page.shown == "place"
        assert not screen.has_class("-zoomed")


def test_the_keys_of_the_page_are_no_others() -> None:
    pages = {
        key
        for binding in own_bindings(InspectScreen)
        if binding.action.partition("(")[0] in PAGE_ACTIONS
        for key in [binding.key]
    }
    assert pages == {"p", "P", "z", "S", "full_stop", "comma"}
    others = [binding for kind in (InspectScreen, ModuleLines, Schematic) for binding in own_bindings(kind)]
    taken = [key for binding in others if binding.action.partition("(")[0] not in PAGE_ACTIONS for key in binding.key.split(",")]
    assert not pages.intersection(taken)


PAGE_ACTIONS = {"turn_page", "zoom_page", "decompose", "turn_part"}


def test_nothing_heavy_is_imported_before_a_part_is_shown_and_torch_never() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip().endswith("early: [] torch: False"), done.stdout


# --- weights --------------------------------------------------------------------------------------------------------


async def test_the_weights_are_measured_and_drawn() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: is_settled(screen), "figures and histogram")
        text = weights(screen).view.text
        for told in (
            "weight [64, 4, 3, 3]  1 of 2", "2,304 numbers as F16", "min, max    -0.5, 0.25", "mean, std   0.125, 0.0625",
            "norm        7.5", "zeros       50.00 %", "NaN, inf    none",
        ):  # fmt: skip
            assert told in text
        assert "█" in running.screen_text()
        assert "-0.5" in weights(screen).histogram.text.splitlines()[-1]
        [ask] = inspector.asked
        assert (ask.component, ask.key, ask.singular_values) == ("unet", "conv_in.weight", False)


async def test_keys_go_through_the_tensors_of_a_module_and_back() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "the first")
        assert screen.check_action("turn_part", (1,))
        await running.pilot.press("full_stop")
        await until(lambda: weights(screen).view.text.startswith("bias [64]  2 of 2") and weights(screen).found, "the second")
        await running.pilot.press("comma")
        await until(lambda: weights(screen).view.text.startswith("weight [64, 4, 3, 3]  1 of 2"), "the first again")
        assert [ask.key for ask in inspector.asked] == ["conv_in.weight", "conv_in.bias"]
        select(screen, ("unet", "time_embedding"))
        await until(lambda: weights(screen).found is None, "nothing to measure")
        assert not screen.check_action("turn_part", (1,))


async def test_singular_values_come_on_request_with_the_effective_rank() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "figures")
        assert "S singular values" in weights(screen).view.text
        assert not weights(screen).spectrum.display
        await running.pilot.press("S")
        await until(lambda: weights(screen).has_class("-spectrum") and weights(screen).spectrum.is_drawn, "the spectrum")
        assert [ask.singular_values for ask in inspector.asked] == [False, True]
        text = weights(screen).view.text
        assert "largest     4" in text
        assert "smallest    1, 1/4 of it" in text
        assert f"eff. rank   {effective_rank((4, 2, 1)):.1f} of 3 (Roy & Vetterli)" in text
        assert weights(screen).spectrum.text.strip()
        await running.pilot.press("S")
        await running.pilot.pause()
        assert len(inspector.asked) == 2
        select(screen, ("unet", "conv_out"))
        await until(lambda: weights(screen).found is not None and not weights(screen).has_class("-spectrum"), "another one's")


async def test_what_was_measured_is_not_asked_again_until_the_model_is_read_anew() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "figures")
        for key in ("conv_out", "conv_in"):
            select(screen, ("unet", key))
            await until(lambda key=key: weights(screen).found is not None and weights(screen).found.key == f"{key}.weight", key)
        assert len(inspector.asked) == 2
        await running.pilot.press("r")
        await until(lambda: len(inspector.asked) == 3, "asked anew")


async def test_who_passes_by_asks_nothing_and_late_answers_are_dropped() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "figures")
        inspector.gate.clear()
        select(screen, ("unet", "conv_out"))
        await until(lambda: len(inspector.asked) == 2, "asked")
        select(screen, ("unet", "conv_norm_out"))
        select(screen, ("unet", "time_embedding"))
        await running.pilot.pause()
        inspector.gate.set()
        select(screen, ("unet", "conv_norm_out"))
        await until(lambda: weights(screen).found is not None, "the last one's figures")
        assert weights(screen).found.key == "conv_norm_out.weight"  # type: ignore[union-attr]
        assert [ask.key for ask in inspector.asked] == ["conv_in.weight", "conv_out.weight", "conv_norm_out.weight"]


async def test_while_torch_starts_that_is_said() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "figures")
        inspector.pid = None
        inspector.gate.clear()
        select(screen, ("unet", "conv_out"))
        await until(lambda: "takes some seconds to start" in weights(screen).view.text, "the sentence")


async def test_what_holds_others_says_how_many_tensors_are_below() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights", ("unet", "time_embedding"))
        assert one_line(weights(screen).view.text) == "It has no tensor itself; the 2 modules below have 4."
        select(screen, ("", ""))
        await until(lambda: "The model has" in weights(screen).view.text, "the model")
        assert "in 5 components; choose a module" in weights(screen).view.text
        select(screen, ("scheduler", ""))
        await until(lambda: "It has no tensors, and no file of them." in weights(screen).view.text, "no file")
        assert not inspector.asked
        assert not screen.check_action("decompose", ())


async def test_nan_and_infinities_are_marked_and_nothing_finite_is_no_plot() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "place")
        nothing = dict.fromkeys(("minimum", "maximum", "mean", "std", "norm"))
        select(screen, ("unet", "conv_out"))  # of which nothing is known yet
        inspector.changes = {"nans": 2303, "infinities": 1, **nothing}
        await running.pilot.press("p", "p")
        await until(lambda: weights(screen).found is not None, "figures")
        assert "! 2,303 NaN and 1 infinity, left out below" in weights(screen).view.text
        assert "min, max    not a finite number" in weights(screen).view.text
        assert "S singular" not in weights(screen).view.text
        assert not weights(screen).histogram.text


async def test_a_killed_inspector_is_a_sentence_and_the_next_turn_asks_again() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "place")
        select(screen, ("unet", "conv_out"))  # of which nothing is known yet
        inspector.error = f"The inspector ended. Its log ends with: {NASTY}"
        await running.pilot.press("p", "p")
        await until(lambda: "The inspector ended" in running.screen_text(), "the sentence")
        assert SHOWN in weights(screen).view.text
        inspector.error = ""
        await running.pilot.press("p", "P")
        await until(lambda: weights(screen).found is not None, "figures")


# --- the real process -----------------------------------------------------------------------------------------------


async def answered(condition: Any) -> None:
    """Wait for the process, which imports torch first."""
    for _ in range(9):
        if condition():
            return
        with contextlib.suppress(pytest.fail.Exception):
            await until(condition)
    await until(condition, "an answer")


async def test_the_real_inspector_tells_weights_and_code(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    odd = np.array([[1, np.nan], [np.inf, 0]], np.float32)
    save_file({"a.weight": odd, "b.weight": np.zeros((0, 4), np.float32), "c.ids": np.arange(12).reshape(3, 4)}, path)
    async with stage() as running:
        screen = await open_inspect(running)
        select(screen, ("unet", "conv_in"))
        await running.pilot.press("p")
        await answered(lambda: weights(screen).found is not None)
        found = weights(screen).found
        assert found is not None
        assert found.count == 2304
        await running.pilot.press("S")
        await answered(lambda: weights(screen).has_class("-spectrum"))
        assert f"count       {len(weights(screen).found.singular_values)}" in weights(screen).view.text  # type: ignore[union-attr,arg-type]
        await running.pilot.press("p", "p")
        await answered(lambda: code(screen).found is not None and code(screen).view.is_made)
        assert "torch/nn/modules/conv.py:" in running.screen_text()
        assert "self._conv_forward" in running.screen_text()
        await running.pilot.press("P", "P")
        await open_inspect(running, str(path))
        for key, told in (("a", "! 1 NaN and 1 infinity"), ("b", "It is empty"), ("c", "min, max    0, 11")):
            select(screen, next(each for each in keys(screen) if each[1] == key))
            await answered(lambda told=told: told in weights(screen).view.text)
        path.unlink()
        await running.pilot.press("S")
        await answered(lambda: "odd.safetensors" in weights(screen).view.text)
        pid = screen.inspector.pid
        assert pid is not None
        select(screen, next(each for each in keys(screen) if each[1] == "b"))
        await running.pilot.press("p", "p")
        os.kill(pid, 9)
        await answered(lambda: "There is no code to show" in code(screen).view.text)


def keys(screen: InspectScreen) -> list[tuple[str, str]]:
    assert screen.outline is not None
    return [screen.outline.key(node) for node in range(len(screen.outline.modules))]
