"""The prompt boxes: counting, history, pasted text."""

from __future__ import annotations

import json

from textual.events import Paste

from sdtui.settings import history_path
from sdtui.tokens import TokenCounter
from sdtui.ui.history import KEPT, PromptHistory
from tests.ui.scripted import WEIGHTS
from tests.ui.stage import stage, until


async def test_the_counter_counts_as_the_tokenizer_does_and_warns_past_the_end() -> None:
    counter = TokenCounter.load(WEIGHTS / "tokenizer")
    async with stage() as running:
        prompt = running.screen.prompt
        await until(lambda: prompt.border_subtitle == "2/77", "empty count")
        await running.type("a red cat in the desert")
        assert prompt.border_subtitle == f"{counter.count('a red cat in the desert')}/77"
        prompt.load_text("cat " * 90)
        await running.pilot.pause()
        assert "the end is not read · 92/77" in str(prompt.border_subtitle)
        prompt.load_text("cat " * 2000)  # counted in a thread
        await until(lambda: "2002/77" in str(prompt.border_subtitle), "long count")


async def test_up_in_the_first_line_shows_older_prompts_and_down_comes_back() -> None:
    for text in ("first", "second\nof two lines", "third"):
        PromptHistory(history_path()).add(text)
    async with stage() as running:
        prompt = running.screen.prompt
        await running.type("draft")
        await running.pilot.press("up")
        assert prompt.text == "third"
        await running.pilot.press("up")
        assert prompt.text == "second\nof two lines"
        await running.pilot.press("up")  # from the second line to the first
        assert prompt.text == "second\nof two lines"
        await running.pilot.press("up", "up")
        assert prompt.text == "first"
        await running.pilot.press("down", "down", "down")
        assert prompt.text == "draft"


async def test_a_generated_prompt_is_in_the_history_of_the_next_session() -> None:
    async with stage() as running:
        await running.type("a cat [/] here")
        await running.pilot.press("f5")
        await running.finished()
    assert [json.loads(line) for line in history_path().read_text().splitlines()] == ["a cat [/] here"]
    async with stage() as running:
        await running.pilot.press("up")
        assert running.screen.prompt.text == "a cat [/] here"


def test_two_sessions_write_one_history_and_it_stays_limited() -> None:
    one, two = PromptHistory(history_path()), PromptHistory(history_path())
    for number in range(KEPT + 300):
        (one if number % 2 else two).add(f"prompt {number}")
    two.add(f"prompt {KEPT + 299}")  # the newest again: not kept twice
    entries = PromptHistory(history_path()).load()
    assert len(entries) == KEPT
    assert entries[-2:] == [f"prompt {KEPT + 298}", f"prompt {KEPT + 299}"]


def test_lines_that_are_no_prompts_are_passed_over() -> None:
    history_path().parent.mkdir(parents=True)
    history_path().write_text('"good"\n{"not": "text"}\nhalf a li\n\n"last"\n')
    assert PromptHistory(history_path()).load() == ["good", "last"]


async def test_pasted_control_characters_never_get_into_the_prompt() -> None:
    async with stage() as running:
        running.app.screen.post_message(Paste("a \x1b]0;title\x07cat\x1b[31m [/]\nin\x00 two lines\u202e"))
        await until(lambda: running.screen.prompt.text, "paste")
        assert running.screen.prompt.text == "a cat [/]\nin two lines"


async def test_a_pasted_file_is_refused_at_once_and_the_text_stays() -> None:
    async with stage() as running:
        await running.type("a cat")
        running.app.screen.post_message(Paste("x" * 100_000))
        await until(lambda: "100,000 characters" in running.toasts(), "refusal")
        assert running.screen.prompt.text == "a cat"
        running.app.screen.post_message(Paste("y" * 9_995))
        await until(lambda: len(running.screen.prompt.text) == 10_000, "what just fits is taken")


async def test_a_prompt_that_is_too_long_is_not_sent() -> None:
    async with stage() as running:
        running.screen.prompt.load_text("word " * 2100)
        await running.pilot.press("f5")
        await running.pilot.pause()
        assert "at most 10,000" in running.screen.prompt.error
        assert running.client.log == []
