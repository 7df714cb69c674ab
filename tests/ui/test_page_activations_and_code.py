"""The activations and the code on a module's page, and plots that follow the theme."""

from __future__ import annotations

import os
from typing import Any

from sdtui.protocol import JobInspected, ReadSource
from sdtui.ui.widgets.pages.activations import NO_JOB
from tests.ui.inspecting import NASTY, SHOWN
from tests.ui.paging import (
    activations,
    code,
    is_settled,
    one_line,
    open_page,
    select,
    weights,
    write_job,
)
from tests.ui.stage import stage, until

# --- activations ----------------------------------------------------------------------------------------------------


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
