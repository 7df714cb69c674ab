"""The form: typed values, checked as one types, with help, reset and seed keys."""

from __future__ import annotations

from sdtui.params import FIELDS, GenerationParams
from sdtui.protocol import Submit
from tests.ui.stage import Stage, stage, until


async def put(running: Stage, name: str, text: str) -> None:
    """Go to a field and put another text in it; the last key is pressed."""
    editor = running.screen.form.row(name).editor
    editor.focus()
    await running.pilot.pause()
    editor.value = text[:-1]
    editor.cursor_position = len(editor.value)
    await (running.pilot.press({"-": "minus"}.get(text[-1], text[-1])) if text else running.pilot.pause())


async def test_every_parameter_but_the_prompts_has_a_field() -> None:
    async with stage() as running:
        for field in FIELDS:
            assert (running.screen.form.row(field.name) is not None) == (field.spec.group != "prompt")


async def test_an_untouched_form_holds_the_defaults() -> None:
    async with stage() as running:
        values, problems = running.screen.form.values()
        defaults = GenerationParams()
        assert problems == []
        assert values == {name: getattr(defaults, name) for name in values}


WRONG = [
    ("num_inference_steps", "0", "from 1 to 1000"),
    ("num_inference_steps", "10001", "from 1 to 1000"),
    ("num_inference_steps", "many", "whole number"),
    ("num_inference_steps", "", "whole number"),
    ("guidance_scale", "nan", "from 0 to 50"),
    ("width", "7", "from 8 to 4096"),
    ("width", "100", "multiple of 8"),
    ("height", "100000", "from 8 to 4096"),
    ("seed", "-1", "Seed must be"),
    ("device", "tpu", "auto, cpu, cuda"),
]


async def test_a_wrong_value_is_said_under_its_field_while_typing() -> None:
    async with stage() as running:
        for name, text, words in WRONG:
            await put(running, name, text)
            row = running.screen.form.row(name)
            assert words in row.error
            assert words in str(running.screen.help_line.content)
            assert row.query_one(".error").region.height > 0
            await put(running, name, "cpu" if name == "device" else "16")
            assert row.error == ""
            assert not row.query(".error")


async def test_the_help_line_says_what_the_focused_field_does() -> None:
    async with stage() as running:
        for name in ("num_inference_steps", "scheduler", "variant"):
            running.screen.form.row(name).editor.focus()
            await running.pilot.pause()
            assert running.screen.form.row(name).field.spec.help == str(running.screen.help_line.content)


async def test_arrows_count_by_the_step_of_the_field() -> None:
    async with stage() as running:
        form = running.screen.form
        form.row("guidance_scale").editor.focus()
        await running.pilot.press("up", "up", "down")
        assert form.text("guidance_scale") == "4.5"
        form.row("width").editor.focus()
        await running.pilot.press("up")
        assert form.text("width") == "192"  # from the model's 128, in steps of 64
        form.row("num_inference_steps").editor.focus()
        await running.pilot.press("shift+down", "shift+down", "shift+down")
        assert form.text("num_inference_steps") == "1"


async def test_f2_puts_the_focused_field_back() -> None:
    async with stage() as running:
        await put(running, "num_inference_steps", "33")
        await running.pilot.press("f2")
        assert running.screen.form.text("num_inference_steps") == "20"


async def test_reset_form_puts_all_fields_back_and_keeps_the_prompt() -> None:
    async with stage() as running:
        await running.type("a cat")
        await put(running, "num_inference_steps", "33")
        await put(running, "seed", "5")
        running.screen.action_reset_form()
        await running.pilot.pause()
        assert running.screen.form.values()[0]["num_inference_steps"] == 20
        assert running.screen.form.values()[0]["seed"] is None
        assert running.screen.prompt.text == "a cat"


async def test_a_random_seed_is_drawn_and_kept() -> None:
    async with stage() as running:
        await running.pilot.press("f3")
        first = running.screen.form.values()[0]["seed"]
        await running.pilot.press("f3")
        second = running.screen.form.values()[0]["seed"]
        assert isinstance(first, int)
        assert first != second
        assert running.screen.form.row("seed").mark


async def test_locking_the_seed_keeps_the_one_that_the_last_job_used() -> None:
    async with stage() as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await running.finished()
        assert running.client.sent(Submit)[0].params.seed is None
        await running.pilot.press("f4")
        assert running.screen.form.values()[0]["seed"] == 1234
        await running.pilot.press("f4")
        assert running.screen.form.values()[0]["seed"] is None


async def test_the_scheduler_field_offers_what_the_model_can_take() -> None:
    async with stage() as running:
        offered = [value for value, _ in running.screen.form.row("scheduler").editor.choices]
        assert offered == ["default", "ddim", "dpmpp_2m", "euler"]


async def test_sigmas_are_restricted_to_what_the_scheduler_has() -> None:
    async with stage() as running:
        form = running.screen.form
        form.row("scheduler").text = "dpmpp_2m"
        await running.pilot.pause()
        form.row("sigmas").text = "beta"
        await running.pilot.pause()
        assert [value for value, _ in form.row("sigmas").editor.choices] == ["default", "karras", "exponential", "beta"]
        form.row("scheduler").text = "euler"
        await running.pilot.pause()
        assert [value for value, _ in form.row("sigmas").editor.choices] == ["default", "karras"]
        assert form.text("sigmas") == "default"


async def test_enter_opens_the_list_of_a_choice() -> None:
    async with stage() as running:
        running.screen.form.row("scheduler").editor.focus()
        await running.pilot.press("enter")
        await until(lambda: len(running.app.screen_stack) == 2, "list")
        await running.pilot.pause()
        await running.pilot.press("down", "down", "enter")
        await until(lambda: running.screen.form.text("scheduler") == "dpmpp_2m", "choice taken")


async def test_a_pasted_value_becomes_one_safe_line() -> None:
    async with stage() as running:
        from textual.events import Paste

        editor = running.screen.form.row("model").editor
        editor.focus()
        editor.value = ""
        running.app.screen.post_message(Paste("\x1b[31m[/]owner/name\nsecond\x07"))
        await until(lambda: "owner/name" in running.screen.form.text("model"), "paste")
        assert running.screen.form.text("model") == "[/]owner/name second"
