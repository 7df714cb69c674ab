"""The Timeline screen: going through the steps, the views of them, their facts and curves, and what happens in little room."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from textual.widgets import Static

from sdtui.trajectory import INITIAL
from sdtui.ui.bindings import key_text, own_bindings, unknown_ids
from sdtui.ui.screens import timeline as timeline_module
from sdtui.ui.screens.chooser import Chooser
from sdtui.ui.screens.help import HelpScreen
from sdtui.ui.screens.timeline import TimelineScreen
from sdtui.ui.timeline_rows import TABS
from tests.ui.scripted_queue import ScriptedQueue
from tests.ui.stage import Stage, stage, until
from tests.ui.timeline_jobs import notice, open_timeline, pixel, press, settled, timeline, title, write_steps

NASTY = "a [/] cat [bold red]x[/] \\[y] \u202ertl \x1b[31mred\x1b]0;title\x07 \x9b2J end"
SHOWN = "a [/] cat [bold red]x[/] \\[y] rtl red  end"


def grey(step: int) -> int:
    """Of the x0 prediction of a step in these jobs."""
    return int(0.4 * (step + 1) / 5 * 127.5 + 127.5 + 0.5)


# --- the steps ------------------------------------------------------------------------------------------------------


async def test_a_job_is_opened_at_its_last_step_with_its_picture_figures_and_curves() -> None:
    write_steps(steps=6)
    async with stage(size=(120, 36)) as running:
        screen = await open_timeline(running)
        assert (screen.job, screen.step) == ("j-1", 5)
        assert pixel(screen.one) == (grey(5),) * 3
        text = running.screen_text()
        assert "j-1 · a red cat" in text or "1 · a red cat" in text
        for words in ("Step 6 / 6", "x0 prediction · 16×16", "1×4×16×16 fp32", "+1.200 ± 0.000", "DDIM", "σ/α", "50.0", "6 / 6"):
            assert words in text, words
        assert notice(screen) == ""


async def test_keys_go_through_the_steps_and_stop_at_the_ends() -> None:
    write_steps(steps=12)
    async with stage() as running:
        screen = await open_timeline(running)
        seen = []
        for key in ("right", "left", "h", "pageup", "l", "pagedown", "pagedown", "home", "left", "right", "end", "g", "G"):
            await running.pilot.press(key)
            seen.append(screen.step)
        assert seen == [11, 10, 9, 4, 5, 10, 11, INITIAL, INITIAL, 0, 11, INITIAL, 11]
        await press(running, "left", "left")
        assert pixel(screen.one) == (grey(9),) * 3
        assert "Step 10 / 12" in running.screen_text()


async def test_the_newest_wish_wins_and_nothing_queues_up_behind_a_held_key(monkeypatch: pytest.MonkeyPatch) -> None:
    write_steps(steps=40)
    async with stage() as running:
        screen = await open_timeline(running)
        record = screen.record
        assert record is not None
        looked: list[int] = []
        look, gate = record.look, asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(step: int, *rest: Any) -> object:
            looked.append(step)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
            return look(step, *rest)

        monkeypatch.setattr(record, "look", slow)
        await running.pilot.press(*["left"] * 30)
        await until(lambda: looked, "the first of them is read")
        gate.set()
        await settled(screen)
        assert screen.step == 9
        assert looked[-1] == 9
        assert len(looked) < 5
        assert pixel(screen.one) == (grey(9),) * 3


async def test_space_plays_to_the_end_and_from_the_end_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "PLAY_S", 0.02)
    write_steps(steps=6)
    async with stage() as running:
        screen = await open_timeline(running)
        seen: list[int] = []
        show = screen.go_to
        monkeypatch.setattr(screen, "go_to", lambda step: (seen.append(step), show(step))[1])
        await running.pilot.press("space")
        await until(lambda: screen._playing is None and screen.step == 5, "the end")
        assert seen == [INITIAL, 0, 1, 2, 3, 4, 5]
        monkeypatch.setattr(timeline_module, "PLAY_S", 60)
        await running.pilot.press("home", "space")
        assert screen._playing is not None
        assert "▶" in running.screen_text()
        await running.pilot.press("space")
        assert screen._playing is None
        await running.pilot.press("space", "right")
        assert (screen._playing, screen.step) == (None, 0)


async def test_the_mouse_scrubs() -> None:
    write_steps(steps=11)
    async with stage(size=(120, 36)) as running:
        screen = await open_timeline(running)
        left, cells = screen.scrubber.content_region.x, screen.scrubber._cells

        def at(step: int) -> tuple[int, int]:
            return left + round((step + 1) * (cells - 1) / 11) - screen.scrubber.region.x, 0

        await running.pilot.click(screen.scrubber, offset=at(4))
        assert screen.step == 4
        await running.pilot.mouse_down(screen.scrubber, offset=at(2))
        await running.pilot.hover(screen.scrubber, offset=at(7))
        assert screen.step == 7
        await running.pilot.mouse_up(screen.scrubber, offset=at(7))
        await running.pilot.hover(screen.scrubber, offset=at(1))
        assert screen.step == 7
        await running.pilot.click(screen.scrubber, offset=(0, 0))
        assert screen.step == INITIAL


# --- the views ------------------------------------------------------------------------------------------------------


async def test_the_views_are_turned_by_a_key_and_chosen_by_a_click() -> None:
    write_steps(steps=6)
    async with stage(size=(120, 36)) as running:
        screen = await open_timeline(running)
        seen = [screen.view]
        titles = [title(screen.one)]
        for _ in TABS[1:]:
            await press(running, "v")
            seen.append(screen.view)
            titles.append(title(screen.one))
        assert seen == [view for view, _ in TABS]
        assert titles[2] == "channel 1 of 4 of x_t · 16×16"
        assert len({*titles}) == len(TABS)
        await press(running, "v")
        assert screen.view == "denoised"
        await press(running, "V", "V")
        assert screen.view == "difference"
        await running.pilot.click(screen.views, offset=(3, 0))
        await settled(screen)
        assert screen.view == "denoised"
        await running.pilot.press("left")
        assert (screen.step, screen.view) == (4, "denoised")


async def test_channels_are_turned_by_the_arrow_keys() -> None:
    write_steps(steps=6)
    async with stage() as running:
        screen = await open_timeline(running)
        await press(running, "down")
        assert (screen.view, screen.channel) == ("channel", 0)
        await press(running, "down", "j", "up")
        assert title(screen.one).startswith("channel 2 of 4")
        await press(running, "k", "k")
        assert title(screen.one).startswith("channel 4 of 4")


async def test_what_a_step_has_not_is_said_and_something_else_is_shown() -> None:
    write_steps(steps=6)
    async with stage(size=(160, 40)) as running:
        screen = await open_timeline(running)
        await press(running, "home")
        assert title(screen.one) == "latents x_t · before the first step · nothing is predicted yet · 16×16"
        await press(running, "end", "V")
        assert title(screen.one) == "x0 prediction · not decoded: d decodes it · 16×16"
        assert pixel(screen.one) == (grey(5),) * 3


async def test_a_job_without_guidance_says_so_in_the_pictures_place_and_has_no_curve_of_it() -> None:
    write_steps(steps=4, taped=False)
    async with stage(size=(200, 60)) as running:
        screen = await open_timeline(running)
        assert "guidance" not in screen.curves.shown
        assert "x_t std" in screen.curves.shown
        screen.views.active = "guidance"
        await running.pilot.pause()
        await until(lambda: screen.one.sentence, "the sentence")
        assert "batch-0000.tape is not there" in screen.one.sentence.replace("\n", "")
        await press(running, "v", "v", "v")
        assert screen.one.sentence == ""


# --- facts and curves -----------------------------------------------------------------------------------------------


async def test_as_many_curves_are_shown_as_there_is_room_for() -> None:
    write_steps(steps=6)
    async with stage(size=(80, 24)) as running:
        screen = await open_timeline(running)
        assert screen.curves.shown == ("σ/α",)
        await press(running, "p")
        assert screen.curves.shown == ("x_t std",)
        await press(running, "P", "P")
        assert screen.curves.shown == ("x0 mean",)
        await press(running, "z")
        assert len(screen.curves.shown) > 1
        assert not screen.one.region.area
        await press(running, "z")
        assert not screen.curves.region.area
        assert screen.one.region.width == 80
        await press(running, "z")
        assert screen.curves.region.area and screen.one.region.area
        await running.pilot.resize_terminal(200, 60)
        await until(lambda: len(screen.curves.shown) == 10 and screen.curves.is_drawn, "all of them")
        text = running.screen_text()
        assert all(name in text for name in screen.curves.shown)


async def test_a_curve_says_its_value_at_the_cursor_and_the_ends_of_its_scale() -> None:
    write_steps(steps=6)
    async with stage(size=(120, 36)) as running:
        screen = await open_timeline(running)
        line = next(line for line in running.screen_text().splitlines() if "σ/α" in line and "–" in line)
        assert "0.2 – 5" in line
        await press(running, "home", "right", "right")
        line = next(line for line in running.screen_text().splitlines() if "σ/α" in line and "–" in line)
        assert "σ/α  2.000" in line
        assert screen.curves._steps == (1,)


# --- around it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60), (60, 50)])
async def test_nothing_overlaps(size: tuple[int, int]) -> None:
    write_steps(steps=20, pictures=2, batch_count=2, prompt="long " * 60)
    write_steps("j-2", steps=20, age_s=5)
    async with stage(ScriptedQueue([]), size=size) as running:
        screen = await open_timeline(running)
        for comparing in (False, True):
            if comparing:
                await running.pilot.press("D")
                await until(lambda: isinstance(running.app.screen, Chooser), "the chooser")
                await running.pilot.press("enter")
                await until(lambda: screen.other is not None, "the other job")
                await settled(screen)
            parts = ("#header", "#one", "#two", "#facts", "#curves", "#views", "#scrubber", "#say", "#keys")
            places = [screen.query_one(part).region for part in parts if screen.query_one(part).display]
            assert all(place.area and place.right <= size[0] and place.bottom <= size[1] for place in places)
            assert not any(one.intersection(other).area for at, one in enumerate(places) for other in places[:at])
            assert "space Play" in running.screen_text()
            assert size[0] < 80 or "x0   x_t   channel   RGB   noise   guidance   change   full VAE" in running.screen_text()


@pytest.mark.parametrize("size", [(40, 12), (20, 5), (1, 1)])
async def test_too_little_room_does_no_harm(size: tuple[int, int]) -> None:
    write_steps(steps=6)
    async with stage(size=size) as running:
        await running.pilot.press("alt+3")
        await until(lambda: isinstance(running.app.screen, TimelineScreen), "the screen")
        await running.pilot.press("left", "v", "down", "z", "z", "z", "space", "b", "escape", "e", "escape", "f1", "escape")
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: "▀" in running.screen_text() and "σ/α" in running.screen_text(), "shown when there is room")


async def test_untrusted_text_is_shown_as_it_is() -> None:
    write_steps(steps=3, prompt=NASTY)
    write_steps("j-2", steps=3, age_s=5, prompt=NASTY)
    async with stage(ScriptedQueue([]), size=(200, 60)) as running:
        screen = await open_timeline(running)
        assert SHOWN in running.screen_text()
        await running.pilot.press("o")
        await until(lambda: running.app.screen is not screen, "the chooser")
        await running.pilot.pause()
        assert running.screen_text().count(SHOWN) >= 2
        await running.pilot.press("escape", "b")
        await running.pilot.press("home", "right", "right", "b")
        await until(lambda: running.app.screen is not screen, "the dialog")
        await running.pilot.pause()
        assert running.screen_text().count("a [/] cat") == 2


async def test_every_key_has_an_id_a_tooltip_and_a_place_in_the_help() -> None:
    write_steps(steps=3)
    async with stage(size=(100, 60)) as running:
        await open_timeline(running)
        await running.pilot.press("f1")
        await until(lambda: isinstance(running.app.screen, HelpScreen), "the help")
        text = str(running.app.screen.query_one("#help-box Static", Static).content)
        for binding in own_bindings(TimelineScreen):
            assert binding.id and binding.id.startswith("timeline.") and binding.tooltip
            assert binding.tooltip in text
            assert "alt" not in binding.key
            assert key_text(binding.key.split(",")[0]) in text
    assert unknown_ids({"timeline.play": "x", "branch.submit": "f4", "export.write": "f4"}) == []
    assert "timeline.play" in unknown_ids({"timeline.pla": "x"})[0]


async def test_the_palette_offers_what_the_keys_do() -> None:
    write_steps(steps=3)
    async with stage() as running:
        screen = await open_timeline(running)
        commands = {command.title: command for command in running.app.get_system_commands(screen)}
        assert {"Play", "Decode", "Branch", "Compare", "Jobs", "Export", "Go to Timeline"} <= {*commands}
        await commands["Branch"].callback()
        await until(lambda: "No step is left" in notice(screen), "what a branch of the last step is told")


STARTS = """
import asyncio, sys
from tests.ui.stage import stage
from tests.ui.timeline_jobs import open_timeline, write_steps

async def main():
    write_steps(steps=3)
    async with stage() as running:
        await open_timeline(running)
        print("heavy:", [name for name in ("torch", "diffusers", "av") if name in sys.modules])

asyncio.run(main())
"""


def test_the_screen_needs_no_torch() -> None:
    shown = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, timeout=120).stdout
    assert "heavy: []" in shown


async def test_a_theme_that_is_chosen_colours_curves_and_marks() -> None:
    write_steps(steps=6)
    async with stage(size=(120, 36)) as running:
        screen = await open_timeline(running)
        before, facts = screen.curves._styles, screen.facts._styles
        running.app.theme = next(name for name in running.app.own_themes if name != running.app.theme)
        await until(lambda: screen.curves.is_drawn and screen.curves._styles != before, "drawn anew")
        await until(lambda: screen.facts._styles != facts, "the facts, too")


async def reopened(running: Stage) -> TimelineScreen:
    await running.pilot.press("alt+1")
    await running.pilot.press("alt+3")
    await running.pilot.pause()
    return timeline(running)


async def test_what_was_shown_is_shown_again_when_one_comes_back() -> None:
    write_steps(steps=6)
    async with stage() as running:
        await open_timeline(running)
        await press(running, "left", "left", "v")
        screen = await reopened(running)
        await settled(screen)
        assert (screen.job, screen.step, screen.view) == ("j-1", 3, "latents")
