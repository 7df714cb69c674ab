"""The Explain screen on a scripted explainer: what is shown of each line, and what keys do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdtui.params import GenerationParams
from sdtui.protocol import Advance, SaveExplained, StartExplaining
from sdtui.server.explainer import ExplainerError
from sdtui.settings import General, Inspect, Settings, initial_dir
from sdtui.ui.bindings import key_text, own_bindings, unknown_ids
from sdtui.ui.screens.create import CreateScreen
from sdtui.ui.screens.explain import ExplainScreen
from sdtui.ui.widgets.source_lines import SourceLines
from tests.ui.explaining import (
    GUIDE,
    GUIDED,
    IF,
    LATENTS,
    LINES,
    LOOP,
    RETURN,
    STEP,
    TOKENS,
    UNET,
    ScriptedExplainer,
    begin_explain,
    downloading,
    made,
    marked,
    open_explain,
    press,
    said,
    source,
)
from tests.ui.inspecting import SHOWN
from tests.ui.stage import Stage, stage, until

STARTS = """
import asyncio, sys
import pytest
from tests.ui.explaining import ScriptedExplainer, open_explain, press
from tests.ui.stage import stage

async def main():
    async with stage() as running:
        with pytest.MonkeyPatch.context() as monkeypatch:
            await open_explain(running, ScriptedExplainer(), monkeypatch)
            await press(running, "space", "e")
        print("heavy:", [name for name in ("torch", "diffusers", "transformers") if name in sys.modules])

asyncio.run(main())
"""


# --- opening and leaving --------------------------------------------------------------------------------------------


async def test_it_is_opened_with_what_the_form_says_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        running.screen.form.row("num_inference_steps").text = "7"
        running.screen.form.row("guidance_scale").text = "2.5"
        await open_explain(running, explainer, monkeypatch)
        (asked,) = explainer.asked(StartExplaining)
        assert (asked.params.prompt, asked.params.num_inference_steps, asked.params.guidance_scale) == ("a red cat", 7, 2.5)
        assert "scenes-128 · cpu fp32 · 128×128 · seed 1234" in running.screen_text()
        await running.pilot.press("escape")
        await until(lambda: explainer.closed, "the end of the process")
        assert running.app.screen is running.screen
        assert running.screen.prompt.text == "a red cat"
        assert running.screen.form.text("num_inference_steps") == "7"


async def test_what_a_command_explains_is_in_the_form_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer(problem=ExplainerError("Steps are too many.", field="num_inference_steps"))
    async with stage() as running:
        monkeypatch.setattr("sdtui.ui.screens.explain._make_explainer", explainer)
        await running.app.show_explain(GenerationParams(prompt="a boat [/]", num_inference_steps=900))
        await until(lambda: "Steps are too many." in running.screen_text(), "the answer")
        await running.pilot.press("escape")
        editor = running.screen.form.row("num_inference_steps").editor
        await until(lambda: running.app.focused is editor, "the field")
        assert (running.screen.prompt.text, editor.value) == ("a boat [/]", "900")


async def test_an_initial_image_is_taken_in_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "sun.png"
    Image.new("RGB", (32, 32), "yellow").save(path)
    explainer = ScriptedExplainer()
    async with stage() as running:
        running.screen.form.row("init_image").text = str(path)
        await open_explain(running, explainer, monkeypatch)
        (asked,) = explainer.asked(StartExplaining)
        assert Path(asked.params.init_image).parent == initial_dir()
        await running.pilot.press("escape")
        await until(lambda: running.app.screen is running.screen, "Create")
        running.screen.form.row("init_image").text = str(tmp_path / "none.png")
        await running.pilot.press("f12")
        await until(lambda: "none.png" in running.screen.form.row("init_image").error, "what is wrong with it")
        assert running.app.screen is running.screen


async def test_what_is_wrong_in_the_form_is_said_there(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        monkeypatch.setattr("sdtui.ui.screens.explain._make_explainer", explainer)
        running.screen.prompt.load_text("a cat")
        running.screen.form.row("guidance_scale").text = "many"
        await running.pilot.press("f12")
        editor = running.screen.form.row("guidance_scale").editor
        await until(lambda: running.app.focused is editor, "the field")
        assert running.app.screen is running.screen
        assert not explainer.log


async def test_while_it_starts_it_is_said_what_is_done_and_one_can_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer(hold=True)
    async with stage() as running:
        screen = await begin_explain(running, explainer, monkeypatch)
        assert "Starting with scenes-128" in running.screen_text()
        await press_only(running, "space", "e", "g", "w")
        explainer.tell(downloading())
        screen._tick()
        await running.pilot.pause()
        assert "Fetching scenes-128: 3 MiB of 9 MiB" in running.screen_text()
        await running.pilot.press("escape")
        await until(lambda: explainer.closed and isinstance(running.app.screen, CreateScreen), "Create")
        assert [type(message) for message in explainer.log] == [StartExplaining]


async def press_only(running: Stage, *keys: str) -> None:
    """Press keys while something is at work."""
    await running.pilot.press(*keys)
    await running.pilot.pause()


async def test_what_the_process_finds_wrong_with_a_parameter_leads_to_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ExplainerError("Batch count must be 1 in explain mode; it is 3 [/].", field="batch_count")
    async with stage(size=(80, 24)) as running:
        screen = await begin_explain(running, ScriptedExplainer(problem=problem), monkeypatch)
        await until(lambda: screen.busy is None, "the answer")
        await running.pilot.pause()
        assert "Batch count must be 1 in explain mode; it is 3 [/]." in running.screen_text()
        assert "Esc goes to Batch count in Create." in running.screen_text()
        await running.pilot.press("escape")
        editor = running.screen.form.row("batch_count").editor
        await until(lambda: running.app.focused is editor, "the field")
        assert "must be 1 in explain mode" in running.screen_text()


async def test_a_start_that_failed_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer(problem=ExplainerError("The explainer ended"))
    async with stage() as running:
        screen = await begin_explain(running, explainer, monkeypatch)
        await until(lambda: screen.busy is None, "the answer")
        await running.pilot.pause()
        assert "The explainer ended." in running.screen_text()
        assert "r tries again, esc goes back to Create." in running.screen_text()
        await press(running, "r")
        assert screen.run is not None
        assert f"▶ {GUIDED}" in running.screen_text()
        await press(running, "space")
        assert marked(screen, "·") == [GUIDED]


# --- running --------------------------------------------------------------------------------------------------------


async def test_a_line_that_ran_is_marked_and_what_it_made_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        assert marked(screen, "▶") == [GUIDED]
        assert made(screen) == "Nothing has run yet.\n"
        await press(running, "space")
        assert (marked(screen, "·"), marked(screen, "▶")) == ([GUIDED], [TOKENS])
        assert made(screen).split()[:2] == ["guided", "True"]
        await press(running, "enter", "n")
        assert marked(screen, "·") == [GUIDED, TOKENS, LATENTS]
        assert screen.made.border_title == f"Line {LATENTS} made"
        names, titles, tensor, figures = made(screen).splitlines()[:4]
        assert tensor.split("  ")[0] == "latents"
        assert tensor.index("[1, 4, 16, 16]") == names.index("shape")
        assert tensor.index("float32") == names.index("dtype")
        assert figures.split() == ["cpu", "-3.5000", "0.5000", "4.2500", "1.1250"]
        ends = [titles.index(title) + len(title) for title in ("min", "mean", "max", "std")]
        assert [figures[:end].split()[-1] for end in ends] == figures.split()[1:]
        assert screen.why.text.startswith(f"Why {LATENTS} is there")


async def test_wide_terminals_have_a_tensor_in_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(size=(200, 60)) as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "space", "space", "space")
        titles, tensor = made(screen).splitlines()[:2]
        assert titles.split() == ["tensor", "shape", "dtype", "device", "min", "mean", "max", "std"]
        assert len(titles) == len(tensor)
        assert tensor.endswith("float32  cpu      -3.5000   0.5000   4.2500   1.1250")


async def test_words_and_notes_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "space", "space")
        assert f"  0  <|startoftext|> {SHOWN} des·ert <|endoftext|>\n" in made(screen)
        assert SHOWN in screen.why.text
        assert "[bold red]x[/]" in running.screen_text()


async def test_a_tensor_that_took_the_place_of_another_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(size=(200, 60)) as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "s", "s", "s", "s")
        lines = made(screen).splitlines()
        names = [line.split()[0] for line in lines if line]
        assert (names.count("latents"), names.count("noise_pred")) == (1, 1)
        assert "Also there" in lines


async def test_a_key_that_is_held_runs_no_more_lines_than_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        explainer.go.clear()
        await press_only(running, *["space"] * 6)
        assert len(explainer.asked(Advance)) == 1
        assert f"Line {GUIDED} runs" in said(screen)
        explainer.go.set()
        await until(lambda: screen.busy is None, "the line")
        await running.pilot.pause()
        assert len(explainer.asked(Advance)) == 1
        assert marked(screen, "·") == [GUIDED]


async def test_stages_end_before_the_next_and_the_loop_goes_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        reached = []
        for _ in range(6):
            await press(running, "s")
            assert screen.run is not None
            reached.append((screen.run.last.line if screen.run.last else 0, screen.run.next_line))
        steps = [(STEP, LOOP)] * 2 + [(STEP, RETURN)]
        assert reached == [(GUIDED, TOKENS), (LATENTS, LOOP), *steps, (RETURN, None)]


async def test_where_the_loop_is_stands_above_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "s", "s", "s", "space", "space")
        assert f"Line {IF} is next · step 2 of 3, t 899 · guidance 4" == said(screen)
        assert screen.source.border_subtitle == "denoise: step by step"
        assert screen.made.border_subtitle == "step 2 of 3 · 48 ms"


async def test_to_the_end_goes_on_until_the_function_has_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer(steps=5, chunk=3)
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await press(running, "e")
        assert len(explainer.asked(Advance)) == 10, "29 lines, 3 at once"
        assert screen.run is not None
        assert screen.run.finished
        assert "The function has returned" in said(screen)
        assert marked(screen, "▶") == []
        await until(lambda: screen.made.is_painted, "the picture")
        assert "finished, 128×128 px" in running.screen_text()
        frame = screen.made.places[0].live._frame
        assert frame is not None
        assert (frame.width_px, frame.rgb[:3]) == (128, bytes((250, 60, 90)))
        await press_only(running, "space", "s", "e", "g")
        assert len(explainer.asked(Advance)) == 10, "nothing is left to run"


@pytest.mark.parametrize("key", ["escape", "ctrl+x"])
async def test_what_runs_stops_at_the_next_line(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    explainer = ScriptedExplainer(chunk=2)
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        explainer.go.clear()
        await press_only(running, "e", key)
        assert "stops at the next line" in said(screen)
        explainer.go.set()
        await until(lambda: screen.busy is None, "the stop")
        await running.pilot.pause()
        assert running.app.screen is screen
        assert (marked(screen, "·"), marked(screen, "▶")) == ([GUIDED, TOKENS], [LATENTS])
        await press(running, "space")
        assert marked(screen, "▶") == [LOOP], "it can go on"


async def test_who_does_not_wait_for_the_stop_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        await open_explain(running, explainer, monkeypatch)
        explainer.go.clear()
        await press_only(running, "e", "escape", "escape")
        await until(lambda: explainer.closed and isinstance(running.app.screen, CreateScreen), "Create")


# --- reading --------------------------------------------------------------------------------------------------------


async def test_other_lines_can_be_read_without_running_any(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await press(running, "s", "s", "s")
        asked = len(explainer.log)
        await press(running, "up")
        assert screen.made.border_title == f"Line {GUIDE} made"
        assert screen.why.text.startswith(f"Why {GUIDE} is there")
        await press(running, "home")
        assert made(screen).split()[0] == "guided"
        await press(running, "end")
        assert made(screen) == f"Line {RETURN} has not run yet.\n"
        assert screen.made.border_subtitle == "has not run yet"
        assert len(explainer.log) == asked
        await press(running, "space")
        assert screen.source.cursor == LOOP, "the reader goes with what runs again"


async def test_the_picture_is_that_of_the_line_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)

        async def red() -> int | None:
            await until(lambda: screen.made.is_painted, "the picture")
            frame = screen.made.places[0].live._frame
            return frame.rgb[0] if frame is not None and not screen.made.has_class("-bare") else None

        assert await red() is None
        await press(running, "s", "s", "s")
        assert await red() == 30
        await press(running, "space")
        assert await red() == 30, "a line without one leaves it"
        assert "latents · line 36" in running.screen_text()
        await press(running, "up")
        assert (screen.source.cursor, await red()) == (LATENTS, 1)
        await press(running, "up")
        assert (screen.source.cursor, await red()) == (TOKENS, None), "of another line its own, or none"


async def test_every_line_that_can_run_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(size=(80, 24)) as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        read = [screen.source.cursor]
        for _ in LINES[1:]:
            await running.pilot.press("down")
            read.append(screen.source.cursor)
            await running.pilot.pause()
            assert any(f"{screen.source.cursor}  " in row for row in source(screen)), "in view"
        assert tuple(read) == LINES


async def test_what_was_made_can_be_seen_over_the_whole_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(size=(80, 24)) as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "s", "s")
        before = screen.made.places[0].live.size
        await press(running, "z")
        assert not screen.source.region.area
        assert screen.made.places[0].live.size.area > 2 * before.area
        await press(running, "space")
        assert marked_next(screen) == UNET, "keys run lines there, too"
        await press(running, "escape")
        assert screen.source.region.area
        assert running.app.screen is screen


def marked_next(screen: ExplainScreen) -> int | None:
    assert screen.run is not None
    return screen.run.next_line


# --- the end, and faults --------------------------------------------------------------------------------------------


async def test_a_process_that_dies_is_said_and_another_runs_the_same_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await press(running, "space", "space")
        explainer.problem = ExplainerError("The explainer ended. Its log ends with: Killed [/]")
        await press(running, "space")
        assert said(screen) == "The explainer ended. Its log ends with: Killed [/]. r runs it anew."
        assert marked(screen, "·") == [GUIDED, TOKENS], "what ran can still be read"
        asked = len(explainer.log)
        await press_only(running, "space", "s", "e", "g")
        assert len(explainer.log) == asked
        await press(running, "r", "space")
        assert explainer.asked(StartExplaining)[-1].params.seed == 1234
        assert marked(screen, "·") == [GUIDED]


async def test_a_fault_that_nobody_foresaw_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        monkeypatch.setattr(explainer, "request", None)
        await running.pilot.press("space")
        await until(lambda: "TypeError" in said(screen), "the fault")
        assert screen.busy is None
        assert said(screen).endswith("r runs it anew.")


async def test_running_anew_drops_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ScriptedExplainer()
    async with stage() as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await press(running, "s", "s")
        explainer.go.clear()
        await press_only(running, "e", "r")
        explainer.go.set()
        await until(lambda: screen.busy is None, "the new run")
        await running.pilot.pause()
        assert (marked(screen, "·"), marked(screen, "▶")) == ([], [GUIDED])
        assert screen.made.has_class("-bare")


async def test_the_finished_picture_is_saved_where_pictures_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    explainer = ScriptedExplainer()
    settings = Settings(general=General(output_dir=str(tmp_path)), inspect=Inspect(estimate=False))
    async with stage(settings=settings) as running:
        screen = await open_explain(running, explainer, monkeypatch)
        await press(running, "w")
        assert not explainer.asked(SaveExplained)
        await press(running, "e", "w")
        (asked,) = explainer.asked(SaveExplained)
        assert asked.path == str(tmp_path / "explained-1234.png")
        assert said(screen) == f"Saved {asked.path}"
        explainer.problem = ExplainerError("No space left on device.")
        await press(running, "w")
        assert said(screen) == "Not saved: No space left on device."
        assert not screen.lost


# --- the screen itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_nothing_overlaps(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "s", "s", "s")
        parts = ("#header", "#source", "#why", "#made-text", "#made-0", "#bottom", "#keys")
        regions = [screen.query_one(part).region for part in parts]
        for at, region in enumerate(regions):
            assert region.area, parts[at]
            assert region.right <= size[0], parts[at]
            assert region.bottom <= size[1], parts[at]
            assert not any(region.intersection(other).area for other in regions[at + 1 :]), parts[at]
        assert screen.source.scrollable_content_region.height >= 5


async def test_a_tiny_terminal_does_not_end_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(size=(20, 5)) as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)
        await press(running, "s", "s", "z", "e")
        await running.pilot.resize_terminal(1, 1)
        await running.pilot.resize_terminal(120, 36)
        await press(running, "z")
        await until(lambda: f"{RETURN}      return" in running.screen_text(), "shown when there is room")
        assert screen.run is not None


async def test_its_keys_are_in_the_help_the_palette_and_the_keymap(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [binding.id or "" for binding in [*own_bindings(ExplainScreen), *own_bindings(SourceLines)]]
    assert unknown_ids(dict.fromkeys(ids, "f3")) == []
    async with stage(size=(120, 60)) as running:
        await open_explain(running, ScriptedExplainer(), monkeypatch)
        commands = {command.title for command in running.app.get_system_commands(running.app.screen)}
        assert {"Next", "Stage", "End", "Guidance", "Anew", "Zoom"} <= commands
        await running.pilot.press("f1")
        await running.pilot.pause()
        text = running.screen_text()
        for binding in own_bindings(ExplainScreen):
            assert binding.tooltip in text
            assert key_text(binding.key.split(",")[0]) in text
        await running.pilot.press("escape", "escape")
        await until(lambda: isinstance(running.app.screen, CreateScreen), "Create")
        assert "Explain" in {command.title for command in running.app.get_system_commands(running.app.screen)}


async def test_another_theme_colours_the_source_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        screen = await open_explain(running, ScriptedExplainer(), monkeypatch)

        def colours() -> set[str]:
            strips = (screen.source.render_line(y) for y in range(screen.source.size.height))
            return {str(segment.style.color) for strip in strips for segment in strip if segment.style and segment.style.color}

        await until(lambda: len(colours()) > 4, "colours")
        before = colours()
        running.app.theme = "nord"
        await until(lambda: len(colours()) > 4 and not colours() & before, "other ones")


def test_the_screen_needs_no_torch() -> None:
    ended = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "heavy: []" in ended.stdout


async def test_the_picture_of_create_is_put_away_below_it_and_not_below_a_dialog(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as running:
        picture = running.screen.picture._live
        await running.pilot.press("f1")
        await running.pilot.pause()
        assert not picture._is_put_away
        await running.pilot.press("escape")
        await open_explain(running, ScriptedExplainer(), monkeypatch)
        assert picture._is_put_away
        await running.pilot.press("escape")
        await until(lambda: not picture._is_put_away, "Create")
