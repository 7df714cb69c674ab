"""Every size from a tiny terminal to a very wide one: nothing overlaps, everything can be reached."""

from __future__ import annotations

import itertools

import pytest

from sdtui.ui.widgets.tab_line import TabLine
from tests.ui.stage import Stage, stage, until

PARTS = ("#header", "#prompt", "#negative-prompt", "#form", "#picture", "#steps", "#progress", "#help", "#keys", "#tabs")


def check_places(running: Stage, width: int, height: int) -> None:
    """What is shown lies inside the screen and apart from everything else."""
    shown = [(part, running.screen.query_one(part).region) for part in PARTS if running.screen.query_one(part).display]
    shown = [(part, region) for part, region in shown if region.area]
    for part, region in shown:
        assert region.right <= width, part
        assert region.bottom <= height, part
    for (one, first), (other, second) in itertools.combinations(shown, 2):
        assert not first.intersection(second).area, f"{one} and {other}"


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60), (240, 60)])
async def test_nothing_overlaps_and_everything_can_be_focused(size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        tabs = running.screen.query_one(TabLine)
        for pane in ("picture", "steps", "form") if tabs.display else ("",):
            if pane:
                tabs.active = pane
                await running.pilot.pause()
            check_places(running, *size)
        running.screen.prompt.focus()
        await running.pilot.pause()
        seen = set()
        for _ in range(40):
            seen.add(running.app.focused.id or running.app.focused.parent.id)
            running.screen.focus_next()
        rows = {f"field-{name.replace('_', '-')}" for name in running.screen.form._rows}
        assert {"prompt", "negative-prompt"} | rows <= seen
        assert "steps" in seen or tabs.display


async def test_narrow_terminals_show_one_pane_at_a_time() -> None:
    async with stage(size=(80, 24)) as running:
        screen = running.screen
        assert (screen.picture.display, screen.steps.display, screen.form.display) == (True, False, False)
        await running.pilot.press("alt+right")
        await until(lambda: screen.steps.display and not screen.picture.display, "steps")
        await running.pilot.press("alt+right")
        await until(lambda: screen.form.display and not screen.steps.display, "form")
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: screen.picture.display and screen.steps.display and screen.form.display, "all")


async def test_a_wrong_field_is_shown_also_where_the_form_is_a_tab() -> None:
    async with stage(size=(80, 24)) as running:
        await running.type("a cat")
        running.screen.form.row("device").text = "tpu"
        await running.pilot.press("f5")
        await until(lambda: running.screen.form.display, "form")
        editor = running.screen.form.row("device").editor
        await until(lambda: running.app.focused is editor, "focus")
        await until(lambda: running.screen.form.region.contains_region(editor.region), "in view")


@pytest.mark.parametrize("size", [(40, 12), (20, 5), (1, 1)])
async def test_a_tiny_terminal_does_not_end_the_app(size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        running.screen.prompt.load_text("a cat")
        await running.pilot.press("f5")
        await running.finished()
        await running.pilot.press("f1", "escape")
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: "done in" in running.screen_text(), "shown when there is room")


async def test_resizing_during_a_generation_changes_nothing_but_the_layout() -> None:
    from tests.ui.scripted import ScriptedClient

    async with stage(ScriptedClient(step_s=0.02), size=(200, 60)) as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        for size in ((80, 24), (40, 12), (240, 60), (120, 36)):
            await running.pilot.resize_terminal(*size)
        await running.finished()
        check_places(running, 120, 36)
        assert "done in" in running.screen.progress.text
