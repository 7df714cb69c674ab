"""The app around the screens: keys, help, commands, what it imports, what it survives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sdtui.settings import General, Settings, output_dir
from sdtui.ui.bindings import own_bindings
from sdtui.ui.commands import commands
from sdtui.ui.screens.create import CreateScreen
from sdtui.ui.screens.queue import QueueScreen
from sdtui.ui.widgets.choice import Choice
from sdtui.ui.widgets.field import FieldInput
from sdtui.ui.widgets.job_table import JobTable
from sdtui.ui.widgets.prompt import PromptBox
from sdtui.ui.widgets.step_log import StepLog
from sdtui.ui.widgets.tab_line import TabLine
from tests.ui.scripted_queue import ScriptedQueue
from tests.ui.stage import stage, until

NASTY = "a [/] cat [bold red]x[/] \\[y] \u202ertl"
RUN_ONCE = """
import asyncio, sys
from sdtui.settings import Settings
from sdtui.ui.app import SdtuiApp
from tests.ui.scripted import ScriptedClient

async def main():
    client = ScriptedClient()
    app = SdtuiApp(Settings(), connect=client.connect)
    async with app.run_test(size=(120, 36)) as pilot:
        while app.screen.model is None:
            await asyncio.sleep(0.01)
        app.screen.prompt.load_text("a cat")
        await pilot.press("f5")
        while not (app.screen.following.job and app.screen.following.over):
            await asyncio.sleep(0.01)

asyncio.run(main())
heavy = {"torch", "diffusers", "transformers", "accelerate", "peft", "huggingface_hub"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
AT_IMPORT = """
import sys
import sdtui.ui.app, sdtui.ui.screens.create
late = {"PIL", "numpy", "tokenizers", "textual_image", "torch", "tomlkit", "sqlite3"} & set(sys.modules)
late |= {"sdtui.ui.screens.queue", "sdtui.ui.widgets.job_table", "sdtui.terminal.notice"} & set(sys.modules)
print("early:", sorted(late))
"""


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_whole_generation_imports_nothing_of_the_worker() -> None:
    assert "heavy: []" in run_python(RUN_ONCE)


def test_the_first_frame_waits_for_no_imaging_library() -> None:
    assert "early: []" in run_python(AT_IMPORT)


async def test_every_key_has_an_id_and_says_what_it_does_in_the_help() -> None:
    async with stage() as running:
        await running.pilot.press("f1")
        await until(lambda: len(running.app.screen_stack) == 2, "help")
        text = str(running.app.screen.query_one("#help-box Static").content)
        for kind in (type(running.app), CreateScreen, PromptBox, TabLine, FieldInput, Choice, StepLog):
            declared = vars(kind)["BINDINGS"]
            assert len(own_bindings(kind)) == len(declared), f"a key of {kind.__name__} has no id"
            for binding in declared:
                assert binding.tooltip
                assert binding.tooltip in text
        await running.pilot.press("escape")
        await until(lambda: len(running.app.screen_stack) == 1, "closed")


async def test_the_help_and_the_palette_have_every_key_of_the_queue() -> None:
    async with stage(ScriptedQueue()) as running:
        await running.open_queue()
        offered = [command.help for command in commands(running.app, running.app.screen, running.app._settings)]
        assert any("Begin no further job, or go on (H)" in text for text in offered)
        assert not any("Queue a failed" in text for text in offered)  # the running job is selected
        await running.pilot.press("f1")
        await until(lambda: len(running.app.screen_stack) == 2, "help")
        text = str(running.app.screen.query_one("#help-box Static").content)
        for kind in (QueueScreen, JobTable):
            assert len(own_bindings(kind)) == len(vars(kind)["BINDINGS"]), f"a key of {kind.__name__} has no id"
            for binding in own_bindings(kind):
                assert binding.tooltip
                assert binding.tooltip in text


async def test_binding_ids_are_unique() -> None:
    kinds = (CreateScreen, QueueScreen, JobTable, PromptBox, TabLine, FieldInput, Choice, StepLog)
    async with stage() as running:
        ids = [binding.id for kind in (type(running.app), *kinds) for binding in own_bindings(kind)]
        assert len(ids) == len(set(ids))


async def test_the_keymap_of_the_settings_changes_keys_here_and_in_the_help() -> None:
    settings = Settings(general=General(), keymap={"create.generate": "f9"})
    async with stage(settings=settings) as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await running.pilot.pause()
        assert running.screen.following.job is None
        await running.pilot.press("f9")
        await running.finished()
        await running.pilot.press("f1")
        await until(lambda: len(running.app.screen_stack) == 2, "help")
        assert "F9" in str(running.app.screen.query_one("#help-box Static").content)


async def test_an_unknown_id_in_the_keymap_is_said_with_the_nearest_known_one() -> None:
    settings = Settings(general=General(), keymap={"create.generte": "f9", "log.copy": "c"})
    async with stage(settings=settings) as running:
        await until(lambda: "did you mean 'create.generate'" in running.toasts(), "toast")
        assert "log.copy" not in running.toasts()


async def test_a_click_does_what_the_key_does() -> None:
    async with stage(size=(80, 24)) as running:
        await running.type("a cat")
        await running.pilot.click("#keys", offset=(3, 0))  # F5 Generate
        await running.finished()
        await running.pilot.click("#tabs", offset=(13, 0))  # Steps
        await until(lambda: running.screen.steps.display, "pane")
        await running.pilot.click("#steps", offset=(5, 2))
        assert running.screen.steps.cursor == 2 + running.screen.steps.scroll_offset.y


async def test_without_colours_the_picture_is_grey_and_nothing_fails(monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with stage() as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await running.finished()
        assert "done in" in running.screen_text()


async def test_the_palette_offers_our_commands_and_runs_them() -> None:
    async with stage() as running:
        offered = {command.title: command for command in commands(running.app, running.screen, running.app._settings)}
        assert {"Generate", "Random seed", "Lock seed", "Reset form", "Change theme", "Load model", "Server status"} <= set(
            offered
        )
        offered["Random seed"].callback()
        await running.pilot.pause()
        assert running.screen.form.values()[0]["seed"] is not None
        offered["Copy output folder"].callback()
        assert running.app.clipboard == str(output_dir(running.app._settings))
        await running.type("a cat")
        await offered["Generate"].callback()
        await running.finished()
        await running.pilot.press("ctrl+p")
        await until(lambda: len(running.app.screen_stack) == 2, "palette")
        await running.pilot.press("escape")


async def test_markup_and_controls_in_a_prompt_are_text_wherever_they_are_shown() -> None:
    async with stage() as running:
        running.screen.prompt.load_text(NASTY)
        await running.pilot.press("f5")
        await running.finished()
        assert "a [/] cat [bold red]x[/] \\[y] rtl" in running.log_text()
        await running.pilot.press("f1", "escape", "ctrl+p", "escape")
        running.screen.prompt.load_text("")
        await running.pilot.press("up")
        assert "[/]" in running.screen.prompt.text
