"""The parts of a module's page: weights, activations, code and place, at every size, and what can be wrong with each."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdtui.inspected import Inspected, SheetFacts, inspected_path, write_inspected
from sdtui.protocol import JobInspected, MeasureWeight, ReadSource, SourceRead, WeightMeasured
from sdtui.server.inspector import InspectorError
from sdtui.settings import tapes_dir
from sdtui.ui.bindings import own_bindings
from sdtui.ui.outline import MODEL
from sdtui.ui.screens.inspect import InspectScreen
from sdtui.ui.widgets.module_pages import PARTS
from sdtui.ui.widgets.module_tree import ModuleLines
from sdtui.ui.widgets.pages.activations import NO_JOB, ActivationsPart
from sdtui.ui.widgets.pages.place import PlacePart
from sdtui.ui.widgets.pages.source_code import CodePart
from sdtui.ui.widgets.pages.weight_text import effective_rank
from sdtui.ui.widgets.pages.weights import WeightsPart
from sdtui.ui.widgets.schematic import Schematic
from tests.ui.inspecting import NASTY, SHOWN, open_inspect
from tests.ui.stage import Stage, stage, until

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


class ScriptedInspector:
    """Answers with figures that tell what was asked; notes the questions."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.pid: int | None = 1
        self.error = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False
        self.changes: dict[str, Any] = {}
        """Of the figures that are answered."""
        self.code = 'def forward(self, x):\n    """Doubles."""\n    return 2 * x  # twice\n'

    async def request(self, message: Any) -> Any:
        self.asked.append(message)
        await self.gate.wait()
        if self.error:
            raise InspectorError(self.error)
        if isinstance(message, MeasureWeight):
            return self.measured(message)
        assert isinstance(message, ReadSource)
        return SourceRead(
            request=0, component=message.component, path=message.path, class_name="Conv2d", python_module="torch.nn",
            file="torch/nn/modules/conv.py", line=564, signature="forward(self, x)", settings={}, source=self.code,
        )  # fmt: skip

    def measured(self, message: MeasureWeight) -> WeightMeasured:
        values = (4.0, 2.0, 1.0) if message.singular_values else None
        counts = tuple(int(1000 * math.exp(-(((number - 32) / 10) ** 2))) for number in range(64))
        figures: dict[str, Any] = {
            "minimum": -0.5, "maximum": 0.25, "mean": 0.125, "std": 0.0625, "norm": 7.5, "zeros": 0.5, "nans": 0, "infinities": 0,
        }  # fmt: skip
        return WeightMeasured(
            request=0, component=message.component, key=message.key, file="f", shape=(64, 4, 3, 3), dtype="F16", count=2304,
            histogram=counts, singular_values=values, **(figures | self.changes),
        )  # fmt: skip

    async def close(self) -> None:
        self.closed = True


async def open_page(
    running: Stage, part: str, key: tuple[str, str] = ("unet", "conv_in")
) -> tuple[InspectScreen, ScriptedInspector]:
    """A part of a module's page, with an inspector that answers at once."""
    screen = await open_inspect(running)
    inspector = ScriptedInspector()
    screen._inspector = inspector  # type: ignore[assignment]
    select(screen, key)
    await running.pilot.press(*("p" for _ in range(PARTS.index(part))))
    await until(lambda: screen.page.shown == part and screen.page.part is not None and screen.page.part.children, "the part")
    await running.pilot.pause()
    return screen, inspector


def select(screen: InspectScreen, key: tuple[str, str]) -> None:
    assert screen.outline is not None
    screen.tree_lines.go_to(MODEL if key == ("", "") else screen.outline.find_key(key) or 0)


def weights(screen: InspectScreen) -> WeightsPart:
    assert isinstance(screen.page.part, WeightsPart)
    return screen.page.part


def activations(screen: InspectScreen) -> ActivationsPart:
    assert isinstance(screen.page.part, ActivationsPart)
    return screen.page.part


def code(screen: InspectScreen) -> CodePart:
    assert isinstance(screen.page.part, CodePart)
    return screen.page.part


def place(screen: InspectScreen) -> PlacePart:
    assert isinstance(screen.page.part, PlacePart)
    return screen.page.part


def one_line(text: str) -> str:
    return " ".join(text.split())


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


async def test_hidden_parts_do_nothing_while_the_cursor_moves() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "weights")
        await until(lambda: weights(screen).found is not None, "figures")
        hidden = weights(screen)
        await running.pilot.press("P")
        asked, facts = len(inspector.asked), []
        show = screen.page.facts.show
        screen.page.facts.show = lambda *told: [facts.append(told), show(*told)][1]  # type: ignore[method-assign,func-returns-value]
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


def is_settled(screen: InspectScreen) -> bool:
    """Whether a part shows all that it will show."""
    part = screen.page.part
    if isinstance(part, WeightsPart):
        return part.found is not None and part.histogram.is_drawn and bool(part.histogram.text)
    if isinstance(part, ActivationsPart):
        return part.seen is not None and part.is_painted and part.histogram.is_drawn
    if isinstance(part, CodePart):
        return part.found is not None and part.view.is_made
    return part is not None and bool(place(screen).view.text)


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


# --- activations ----------------------------------------------------------------------------------------------------


def write_job(
    job: str = "j-1", path: str = "conv_in", channels: int = 64, *, model: str = "scenes-128", shape: tuple[int, int] = (16, 16),
    faults: int = 0, seen: Sequence[str] | None = None,
) -> Path:  # fmt: skip
    """The file of an inspected job; in its nth channel only the nth pixel is white."""
    directory = tapes_dir() / job
    directory.mkdir(parents=True, exist_ok=True)
    kept = min(36, channels)
    sheet = np.zeros((kept, *shape), np.uint8)
    for number in range(kept):
        sheet[number].flat[number % sheet[0].size] = 255
    facts = SheetFacts(
        network="unet", path=path, class_name="Conv2d", step_index=3, shape=(2, channels, 64, 64), channels=channels,
        low=-1.0, high=2.0, mean=0.25, std=0.5, faults=faults,
    )  # fmt: skip
    sheets = (facts,) if seen is None else ()
    inspected = Inspected(
        job=job, batch_index=0, model=model, prompt="a cat", seeds=(7,), width_px=128, height_px=128, steps=4, sheets=sheets
    )
    file = inspected_path(directory, 0)
    write_inspected(file, inspected, {"sheet/0": sheet, "histogram/0": np.arange(64, dtype=np.int64)})
    return file


async def test_the_channels_of_the_last_job_are_shown_with_figures_and_whence_they_are() -> None:
    write_job()
    async with stage() as running:
        screen, _ = await open_page(running, "activations")
        await until(lambda: is_settled(screen) and "▀" in running.screen_text(), "the channels")
        text = activations(screen).view.text
        for told in ("Conv2d [2, 64, 64, 64]", "mean, std   0.25, 0.5", "min, max    -1, 2", "step 4 of 4, job j-1"):
            assert told in text
        assert "of scenes" not in text
        assert activations(screen).histogram.text.splitlines()[-1].split() == ["-1", "0", "2"]


async def test_more_channels_than_fit_are_turned_through() -> None:
    write_job()
    async with stage() as running:
        screen, _ = await open_page(running, "activations")
        await until(lambda: is_settled(screen), "the channels")
        part = activations(screen)
        first, step = part.view.text, part._step
        assert f"channels    1–{step} of 64, next with ." in first
        before = part.live._frame
        await running.pilot.press("full_stop")
        assert f"channels    {step + 1}–{min(2 * step, 36)} of 64" in part.view.text
        await until(lambda: part.is_painted and part.live._frame != before, "others")
        await running.pilot.press("comma")
        await until(lambda: part.view.text == first and part.is_painted, "the first again")


async def test_of_another_models_job_it_is_said_of_which() -> None:
    write_job(model=f"other {NASTY}")
    async with stage() as running:
        screen, _ = await open_page(running, "activations")
        await until(lambda: is_settled(screen), "the channels")
        assert f"of other {SHOWN}" in activations(screen).view.text


async def test_without_a_job_or_a_sheet_a_sentence_says_so() -> None:
    async with stage() as running:
        screen, _ = await open_page(running, "activations")
        await until(lambda: activations(screen).view.text.strip() == NO_JOB, "no job")
        write_job(faults=3)
        await running.pilot.press("p", "P")
        await until(lambda: "! 3 values NaN or infinite" in activations(screen).view.text, "the job")
        select(screen, ("unet", "conv_out"))
        await until(lambda: "did not look at this module" in activations(screen).view.text, "not looked at")
        assert activations(screen).live._frame is None
        select(screen, ("", ""))
        await until(lambda: "choose a module" in activations(screen).view.text, "the model")
        write_job("j-2", seen=())
        select(screen, ("unet", "conv_in"))
        await until(lambda: "kept no activations" in activations(screen).view.text, "nothing kept")


async def test_a_job_that_ends_is_shown_at_once() -> None:
    async with stage() as running:
        screen, _ = await open_page(running, "activations")
        await until(lambda: activations(screen).view.text.strip() == NO_JOB, "no job")
        path = write_job("j-9")
        running.client.emit(JobInspected(job="j-9", batch_index=0, path=str(path), modules=1))
        await until(lambda: "job j-9" in activations(screen).view.text, "the job")


async def test_torn_and_wrong_files_are_a_sentence() -> None:
    path = write_job()
    whole = path.read_bytes()
    async with stage() as running:
        screen, _ = await open_page(running, "activations")
        await until(lambda: is_settled(screen), "the channels")
        for size in (4, 200, len(whole) - 600):
            path.write_bytes(whole[:size])
            os.utime(path, (1_700_000_000 + size,) * 2)
            await running.pilot.press("p", "P")
            await until(lambda: activations(screen).seen is None, f"{size} bytes")
            assert "inspected-0000.safetensors" in activations(screen).view.text
        path.unlink()
        await running.pilot.press("p", "P")
        await until(lambda: activations(screen).view.text.strip() == NO_JOB, "no job any more")


# --- code -----------------------------------------------------------------------------------------------------------


async def test_the_code_is_shown_in_the_colours_of_the_theme() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "code")
        await until(lambda: is_settled(screen), "the code")
        text = running.screen_text()
        for told in ("torch/nn/modules/conv.py:564", "forward(self, x)", "    return 2 * x  # twice"):
            assert told in text
        [ask] = [ask for ask in inspector.asked if isinstance(ask, ReadSource)]
        assert (ask.component, ask.path) == ("unet", "conv_in")

        def colour() -> Any:
            lines = code(screen).view._lines
            line = next(line for line in lines if "return" in line.plain)
            return next(span.style.color for span in line.spans if "return" in line.plain[span.start : span.end])  # type: ignore[union-attr]

        before = colour()
        running.app.theme = "textual-light"
        await until(lambda: code(screen).view.is_made and colour() != before, "other colours")


async def test_long_lines_of_code_hang_and_nothing_is_lost() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "place")
        call = ", ".join(f"argument_{number}" for number in range(40))
        select(screen, ("unet", "conv_out"))  # of which nothing is known yet
        inspector.code = f"    def forward(self):\n        return call({call})\n"
        await running.pilot.press("P")
        await until(lambda: is_settled(screen), "the code")
        lines = [line.plain for line in code(screen).view._lines]
        assert max(map(len, lines)) <= code(screen).view.room
        assert "def forward(self):" in lines
        start = next(number for number, line in enumerate(lines) if line.startswith("    return"))
        assert all(line.startswith("        argument") for line in lines[start + 1 : -1] if line)
        assert f"return call({call})" == one_line(" ".join(lines[start:]))


async def test_where_there_is_no_code_it_says_why() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "place")
        select(screen, ("unet", "conv_out"))  # of which nothing is known yet
        inspector.error = "No configuration says of which class it is."
        await running.pilot.press("P")
        await until(lambda: "There is no code" in code(screen).view.text, "the sentence")
        assert "Its class is guessed from names and shapes. No configuration" in code(screen).view.text
        select(screen, ("", ""))
        await until(lambda: "The model is no module" in code(screen).view.text, "the model")


async def test_what_code_has_in_it_is_only_text() -> None:
    async with stage() as running:
        screen, inspector = await open_page(running, "place")
        select(screen, ("unet", "conv_out"))  # of which nothing is known yet
        inspector.code = f"def forward(self):\n    return '{NASTY}'\n"
        await running.pilot.press("P")
        await until(lambda: is_settled(screen), "the code")
        joined = "".join(line.plain for line in code(screen).view._lines)
        assert "\x1b" not in joined
        assert "[bold red]x[/]" in joined


# --- plots ----------------------------------------------------------------------------------------------------------


async def test_a_plot_follows_the_theme_and_the_size() -> None:
    async with stage() as running:
        screen, _ = await open_page(running, "weights")
        await until(lambda: is_settled(screen), "the plot")
        plot = weights(screen).histogram
        styles = {str(span.style) for span in plot._text.spans}
        running.app.theme = "textual-light"
        await until(lambda: plot.is_drawn and {str(span.style) for span in plot._text.spans} != styles, "other colours")
        before = plot.text
        await running.pilot.resize_terminal(200, 60)
        await until(lambda: plot.is_drawn and plot.text != before, "another size")
