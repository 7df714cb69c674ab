"""What a job says of itself: order, shapes, figures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from sdtui.metadata import read_png
from sdtui.protocol import (
    ImageSaved,
    JobFinished,
    JobStarted,
    PreviewOptions,
    PreviewReady,
    PromptTokens,
    StageFinished,
    StageStarted,
    StepFinished,
    decode,
    encode,
)
from sdtui.worker.conditioning import encode as encode_prompts

from .conftest import Run


def test_a_job_tells_its_stages_in_order(run: Callable[..., Run]) -> None:
    result = run(PreviewOptions(method="off"), scheduler="euler", batch_count=2, batch_size=2)
    one_batch = [
        ("StageStarted", "tokens"), ("PromptTokens", ""), ("StageFinished", "tokens"),
        ("StageStarted", "embeddings"), ("StageFinished", "embeddings"),
        ("StageStarted", "latents"), ("StageFinished", "latents"),
        ("StageStarted", "denoise"), ("StepFinished", ""), ("StageFinished", "denoise"),
        ("StageStarted", "decode"), ("StageFinished", "decode"),
        ("StageStarted", "save"), ("ImageSaved", ""), ("StageFinished", "save"),
    ]  # fmt: skip
    told = [(type(event).__name__, getattr(event, "stage", "")) for event in result.events]
    without_repeats = [key for key, _ in groupby(told)]
    assert without_repeats == [("JobStarted", ""), *one_batch, *one_batch, ("JobFinished", "")]
    assert [event.batch_index for event in result.of(StageStarted)] == [0] * 6 + [1] * 6


def test_shapes_are_those_of_the_tensors(run: Callable[..., Run]) -> None:
    result = run(scheduler="euler", batch_size=2, width=72, height=64)
    facts = {event.stage: {fact.name: fact for fact in event.tensors} for event in result.of(StageFinished)}
    assert facts["embeddings"]["prompt_embeds"].shape == (1, 77, 32)
    assert facts["embeddings"]["negative_prompt_embeds"].shape == (1, 77, 32)
    assert facts["embeddings"]["prompt_embeds (uncond, text)"].shape == (4, 77, 32)
    assert facts["latents"]["latents"].shape == (2, 4, 8, 9)
    assert facts["latents"]["latents"].note.startswith("x init_noise_sigma")
    assert facts["latents"]["timesteps"].shape == (3,)
    assert facts["decode"]["image"].shape == (2, 3, 64, 72)
    for step in result.of(StepFinished):
        assert step.latents.shape == step.noise_pred.shape == step.denoised.shape == (2, 4, 8, 9)
        assert step.latents.dtype == "float32"


def test_steps_count_what_the_scheduler_does_not_what_was_asked(run: Callable[..., Run]) -> None:
    heun = run(scheduler="heun", num_inference_steps=4).of(StepFinished)
    assert [step.step_index for step in heun] == list(range(7))
    assert {step.total_steps for step in heun} == {7}


def test_figures_are_those_of_the_final_latents(run: Callable[..., Run], model: Any) -> None:
    result = run(scheduler="euler")
    last = result.of(StepFinished)[-1]
    assert last.latents.mean == pytest.approx(float(result.latents[0].mean()), abs=1e-5)
    assert last.latents.std == pytest.approx(float(result.latents[0].std(correction=0)), rel=1e-5)
    assert last.denoised.mean == pytest.approx(last.latents.mean, abs=1e-4), "Euler's last step goes to x0"
    assert last.timestep < result.of(StepFinished)[0].timestep
    assert last.sigma is not None and last.sigma < result.of(StepFinished)[0].sigma
    assert last.elapsed_s > 0 and last.memory_bytes > 0


def test_the_guidance_difference_is_told_only_with_guidance(run: Callable[..., Run]) -> None:
    guided = run(scheduler="euler", guidance_scale=3.0)
    alone = run(scheduler="euler", guidance_scale=1.0)
    assert all(step.guidance_norm > 0 for step in guided.of(StepFinished))
    assert all(step.guidance_norm is None for step in alone.of(StepFinished))
    assert [tokens.which for tokens in alone.of(PromptTokens)] == ["prompt"]
    same = run(scheduler="euler", guidance_scale=3.0, prompt="a cat", negative_prompt="a cat")
    assert all(step.guidance_norm < 1e-5 for step in same.of(StepFinished)), "equal prompts differ in nothing"


def test_tokens_are_words_and_what_was_cut_off(run: Callable[..., Run]) -> None:
    long = " ".join(["red cat"] * 60)
    prompt, negative = run(prompt=long, negative_prompt="red").of(PromptTokens)
    assert len(prompt.ids) == len(prompt.words) == prompt.max_tokens == 77
    assert prompt.words[:3] == ("<|startoftext|>", "red</w>", "cat</w>")
    assert prompt.cut_off.split() == ["cat", *["red", "cat"] * 22], "120 words, of which 75 fit"
    assert (negative.words, negative.cut_off) == (("<|startoftext|>", "red</w>", "<|endoftext|>"), "")


def test_a_prompt_of_exactly_77_tokens_loses_nothing(run: Callable[..., Run]) -> None:
    prompt = run(prompt=" ".join(["cat"] * 75)).of(PromptTokens)[0]
    assert (len(prompt.ids), prompt.cut_off) == (77, "")


def test_every_event_of_a_job_goes_over_the_wire(run: Callable[..., Run]) -> None:
    for event in run(batch_size=2).events:
        assert decode(encode(event)[4:]) == event


def test_a_picture_says_how_it_was_made(run: Callable[..., Run], model: Any) -> None:
    result = run(scheduler="default", seed=5, batch_size=2, negative_prompt="moon")
    started, finished = result.of(JobStarted)[0], result.of(JobFinished)[0]
    assert (started.params.width, started.params.height, started.params.scheduler, started.total_images) == (64, 64, "pndm", 2)
    assert list(finished.images) == [saved.path for saved in result.of(ImageSaved)]
    second = read_png(result.paths[1]).record
    assert second is not None
    assert second.params == msgspec.structs.replace(started.params, seed=6)
    assert (second.scheduler_class, second.first_seed, second.image_index) == ("PNDMScheduler", 5, 1)


def test_a_random_seed_is_drawn_told_and_recorded(run: Callable[..., Run]) -> None:
    result = run(seed=None)
    seed = result.of(JobStarted)[0].seed
    assert 0 <= seed < 2**32
    assert result.of(ImageSaved)[0].seed == seed
    again = run(seed=seed)
    assert torch.equal(result.latents[0], again.latents[-1])
    assert run(seed=None).of(JobStarted)[0].seed != seed


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_clip_skip_takes_an_earlier_layer_through_the_final_norm(model: Any, clip_skip: int) -> None:
    pipe = model.pipe
    found = encode_prompts(pipe, "a cat", "moon", guided=True, clip_skip=clip_skip, device=torch.device("cpu"))
    ids = pipe.tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states
        assert len(states) == 4
        expected = pipe.text_encoder.final_layer_norm(states[3 - clip_skip])
    assert torch.equal(found.prompt_embeds, expected)
    plain = encode_prompts(pipe, "a cat", "moon", guided=True, clip_skip=0, device=torch.device("cpu"))
    assert not torch.equal(found.prompt_embeds, plain.prompt_embeds)
    assert torch.equal(found.negative_prompt_embeds, plain.negative_prompt_embeds)


def test_the_first_and_the_last_step_are_always_shown_and_the_rest_thinned(run: Callable[..., Run]) -> None:
    slow = run(PreviewOptions(method="linear", max_per_s=0.001), scheduler="euler", num_inference_steps=6)
    assert [preview.step_index for preview in slow.of(PreviewReady)] == [0, 5]
    assert not run(PreviewOptions(method="off")).of(PreviewReady)


@pytest.mark.parametrize(
    ("method", "max_px", "expected"), [("linear", 128, (8, 9)), ("linear", 4, (4, 4)), ("vae", 36, (32, 36))]
)
def test_a_preview_is_raw_rgb_at_its_own_size(
    run: Callable[..., Run], method: Any, max_px: int, expected: tuple[int, int]
) -> None:
    preview = run(PreviewOptions(method=method, max_px=max_px), width=72).of(PreviewReady)[-1]
    assert (preview.height_px, preview.width_px, preview.method) == (*expected, method)
    assert len(preview.rgb) == 3 * expected[0] * expected[1]


def test_the_last_full_preview_is_the_picture(run: Callable[..., Run]) -> None:
    from PIL import Image

    result = run(PreviewOptions(method="vae", max_px=64), scheduler="euler")
    preview = result.of(PreviewReady)[-1]
    shown = np.frombuffer(preview.rgb, np.uint8).reshape(64, 64, 3)
    picture = np.asarray(Image.open(result.paths[0]))
    assert np.abs(shown.astype(int) - picture.astype(int)).max() <= 1
