"""The Explain screen on the real process with the model that ships: its picture is that of the plain function."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sdtui.params import GenerationParams
from sdtui.protocol import TensorPicture
from sdtui.ui.screens.explain import ExplainScreen
from tests.ui.explaining import made, press, said
from tests.ui.scripted import WEIGHTS
from tests.ui.stage import Stage, stage, until

PARAMS = GenerationParams(
    prompt="a red cat", negative_prompt="moon", num_inference_steps=3, seed=7, device="cpu", dtype="float32"
)


async def opened(running: Stage) -> ExplainScreen:
    """The screen, its function ready; the process imports torch first."""
    await running.app.show_explain(PARAMS)
    screen = running.app.screen
    assert isinstance(screen, ExplainScreen)
    await until(lambda: screen.busy is None, "the process", within_s=90)
    await running.pilot.pause()
    assert screen.run is not None, str(screen.none.content)
    return screen


async def to_the_end(running: Stage, screen: ExplainScreen) -> TensorPicture:
    await running.pilot.press("e")
    await until(lambda: screen.busy is None, "the end", within_s=90)
    await running.pilot.pause()
    assert screen.run is not None
    assert screen.run.picture is not None, said(screen)
    return screen.run.picture


def plain(guidance_scale: float) -> bytes:
    """What the function returns when nobody looks on."""
    import torch
    from diffusers import StableDiffusionPipeline

    from sdtui.scratch.text_to_image import text_to_image

    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as the process has them: other sums have other last bits
    try:
        image = text_to_image(
            pipe,
            PARAMS.prompt,
            PARAMS.negative_prompt,
            num_inference_steps=3,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(7),
        )
    finally:
        torch.set_num_threads(threads)
    return image.tobytes()


async def test_the_picture_is_the_functions_own_and_guidance_changed_half_way_makes_another() -> None:
    async with stage() as running:
        screen = await opened(running)
        await press(running, "s", "s")
        await press(running, "up")
        assert "  0  <|startoftext|> moon <|endoftext|>\n  1  <|startoftext|> a red cat <|endoftext|>\n" in made(screen)
        first = await to_the_end(running, screen)
        assert first.rgb == plain(PARAMS.guidance_scale)
        await press(running, "r")
        await until(lambda: screen.run is not None and not screen.run.ran and screen.busy is None, "the first line")
        await press(running, "s", "s", "s", "s")
        await running.pilot.press("g")
        screen.entry.value = "9"
        await running.pilot.press("enter")
        assert said(screen) == "Guidance 9 from step 2 on, in place of 4."
        second = await to_the_end(running, screen)
        assert second.rgb not in (first.rgb, plain(9.0))


async def test_a_process_that_is_killed_is_followed_by_another() -> None:
    async with stage() as running:
        screen = await opened(running)
        await press(running, "s")
        first = screen.explainer.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: screen.explainer.pid is None, "its death is known")
        await press(running, "space")
        assert said(screen) == "The process has ended, and its run with it. r runs it anew."
        await running.pilot.press("r")
        await until(lambda: screen.busy is None, "another process", within_s=90)
        await press(running, "space")
        assert screen.explainer.pid not in (None, first)
        assert made(screen).split()[0] == "tokenizer"


async def test_the_process_ends_with_the_screen() -> None:
    async with stage() as running:
        await running.app.show_explain(PARAMS)
        screen = running.app.screen
        assert isinstance(screen, ExplainScreen)
        await until(lambda: screen.explainer.pid is not None, "the process")
        process = screen.explainer.pid
        await running.pilot.press("escape")
        await until(lambda: running.app.screen is running.screen, "Create, at once")
        await until(lambda: not Path(f"/proc/{process}").exists(), "the end of the process")
