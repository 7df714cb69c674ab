"""The guidance scale is changed while the sampling function runs line by line, on a scripted explainer."""

from __future__ import annotations

import pytest

from sdtui.protocol import Advance
from sdtui.server.explainer import ExplainerError
from sdtui.ui.screens.explain import ExplainScreen
from tests.ui.explaining import GUIDED, ScriptedExplainer, made, marked, open_explain, press, said, source
from tests.ui.stage import Stage, stage, until


async def type_guidance(running: Stage, screen: ExplainScreen, text: str) -> None:
    await running.pilot.press("g")
    await until(lambda: running.app.focused is screen.entry, "the line to type in")
    screen.entry.value = text
    await running.pilot.press("enter")
    await running.pilot.pause()


async def test_guidance_is_changed_from_a_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        assert any(row.endswith("← 4") for row in source(screen))
        await press(running, "s", "s", "s")
        await type_guidance(running, screen, "9.5")
        assert said(screen) == "Guidance 9.5 from step 2 on, in place of 4."
        assert "9.5 from step 2 on" in running.screen_text()
        assert running.app.focused is screen.source
        await press(running, "s")
        given = [message.guidance_scale for message in explainer.asked(Advance) if message.guidance_scale is not None]
        assert given == [9.5]
        assert any(row.endswith("← 9.5") for row in source(screen))
        await press(running, "up")
        assert "9.5000" in made(screen), "the line made something else with it"
        await press(running, "space")
        assert explainer.asked(Advance)[-1].guidance_scale is None, "it is given once"


@pytest.mark.parametrize(("lines", "first"), [(0, 1), (3, 1), (4, 1), (6, 1), (7, 2), (8, 2), (9, 2), (12, 3)], ids=str)
async def test_the_step_is_the_first_whose_guidance_is_still_to_come(
    monkeypatch: pytest.MonkeyPatch, lines: int, first: int
) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, *["space"] * lines)
        await running.pilot.press("g")
        await running.pilot.pause()
        assert f"Guidance from step {first} on" in said(screen)


@pytest.mark.parametrize("text", ["", "many", "-1", "51", "nan", "1e999", "[/]"])
async def test_a_wrong_guidance_is_said_and_can_be_corrected(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await type_guidance(running, screen, text)
        assert "0 to 50" in said(screen) or "may not be empty" in said(screen)
        assert running.app.focused is screen.entry
        await running.pilot.press("escape")
        assert running.app.focused is screen.source
        await press(running, "space")
        assert explainer.asked(Advance)[-1].guidance_scale is None


async def test_keys_are_typed_while_a_number_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await running.pilot.press("g")
        await until(lambda: running.app.focused is screen.entry, "the line to type in")
        screen.entry.value = ""
        await running.pilot.press("n", "s", "space", "e", "left", "right")
        assert screen.entry.value == "ns e"
        assert not explainer.asked(Advance)


async def test_a_run_without_guidance_cannot_be_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        running.screen.form.row("guidance_scale").text = "1"
        screen = await open_explain(running, explainer, monkeypatch)
        await press(running, "space", "g")
        assert "began without guidance" in said(screen)
        assert running.app.focused is screen.source


async def test_after_the_last_step_no_guidance_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(steps=1), monkeypatch)
        await press(running, *["space"] * 7, "g")
        assert "No step is left" in said(screen)


async def test_a_guidance_that_the_process_refuses_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await type_guidance(running, screen, "9")
        explainer.problem = ExplainerError("Guidance cannot be changed here.", field="guidance_scale")
        await press(running, "space")
        assert said(screen) == "Guidance cannot be changed here."
        assert any(row.endswith("← 4") for row in source(screen))
        await press(running, "space")
        assert marked(screen, "·") == [GUIDED]
