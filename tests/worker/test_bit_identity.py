"""The promise that everything else rests on: watching changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from sdtui.protocol import PreviewOptions, PreviewReady, StepFinished
from sdtui.schedulers import BY_NAME

from .conftest import Run

STEPS = 4


def plain(pipe: Any, scheduler: str, sigmas: str, seeds: list[int], guidance: float, **call: Any) -> tuple[torch.Tensor, Any]:
    """`pipe(...)` as anybody would call it: its latents and its pictures."""
    own = pipe.scheduler
    flags: dict[str, Any] = {} if sigmas == "default" else {f"use_{sigmas}_sigmas": True}
    if scheduler != "default":
        spec = BY_NAME[scheduler]
        if scheduler == "dpmpp_sde":
            flags["noise_sampler_seed"] = seeds[0]
        pipe.scheduler = getattr(diffusers, spec.class_name).from_config(own.config, **spec.config, **flags)
    else:
        pipe.scheduler = type(own).from_config(own.config)
    results = []
    try:
        for output_type in ("latent", "pil"):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            results.append(
                pipe(
                    "a red cat",
                    negative_prompt="moon",
                    num_inference_steps=STEPS,
                    guidance_scale=guidance,
                    num_images_per_prompt=len(seeds),
                    generator=generators if len(seeds) > 1 else generators[0],
                    output_type=output_type,
                    **call,
                ).images
            )
    finally:
        pipe.scheduler = own
    return results[0], results[1]


CASES = [
    ("default", "default", [7], 4.0),
    ("ddim", "default", [7], 4.0),
    ("ddpm", "default", [7], 4.0),
    ("euler", "karras", [7], 4.0),
    ("euler_a", "default", [7], 4.0),
    ("euler_a", "default", [7, 8], 4.0),
    ("heun", "default", [7], 4.0),
    ("dpm2_a", "default", [7], 4.0),
    ("dpmpp_2m", "karras", [7], 1.0),
    ("dpmpp_2m_sde", "exponential", [7, 8], 4.0),
    ("dpmpp_2s", "default", [7], 4.0),
    ("unipc", "default", [7], 4.0),
    ("deis", "default", [7], 4.0),
    ("lcm", "default", [7], 1.5),
    ("tcd", "default", [7], 4.0),
]


@pytest.mark.parametrize(
    ("scheduler", "sigmas", "seeds", "guidance", "method"),
    [(*case, "vae" if index % 2 else "linear") for index, case in enumerate(CASES)],
)
def test_the_picture_is_bit_identical_to_the_plain_pipeline_with_previews_and_log_on(
    run: Callable[..., Run], plain_pipe: Any, scheduler: str, sigmas: str, seeds: list[int], guidance: float, method: Any
) -> None:
    expected_latents, expected_images = plain(plain_pipe, scheduler, sigmas, seeds, guidance)
    result = run(
        PreviewOptions(method=method, max_per_s=10_000),
        negative_prompt="moon",
        scheduler=scheduler,
        sigmas=sigmas,
        seed=seeds[0],
        batch_size=len(seeds),
        guidance_scale=guidance,
        num_inference_steps=STEPS,
    )
    assert torch.equal(result.latents[0], expected_latents)
    for path, expected in zip(result.paths, expected_images, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(expected))
    assert len(result.of(PreviewReady)) == len(result.of(StepFinished)) >= STEPS, "previews and log were on"


def test_a_brownian_tree_takes_its_seed_from_the_job(run: Callable[..., Run], plain_pipe: Any) -> None:
    pytest.importorskip("torchsde")
    expected, _ = plain(plain_pipe, "dpmpp_sde", "default", [7], 4.0)
    state = torch.get_rng_state()
    result = run(negative_prompt="moon", scheduler="dpmpp_sde", num_inference_steps=STEPS)
    assert torch.equal(result.latents[0], expected)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_each_batch_goes_on_with_the_next_seeds(run: Callable[..., Run]) -> None:
    together = run(scheduler="euler_a", seed=20, batch_count=3)
    alone = run(scheduler="euler_a", seed=22)
    assert torch.equal(together.latents[2], alone.latents[-1])


def test_a_size_that_halves_to_odd_latents_works_as_in_the_plain_pipeline(run: Callable[..., Run], plain_pipe: Any) -> None:
    expected, _ = plain(plain_pipe, "euler", "default", [7], 4.0, width=72, height=40)
    result = run(negative_prompt="moon", scheduler="euler", width=72, height=40, num_inference_steps=STEPS)
    assert torch.equal(result.latents[0], expected)


def test_a_job_leaves_the_pipeline_as_it_was(run: Callable[..., Run], model: Any) -> None:
    run(scheduler="heun")
    pipe = model.pipe
    assert pipe.scheduler is model.own_scheduler
    assert "step" not in vars(pipe.scheduler) and "prepare_latents" not in vars(pipe)
    hooks = [
        module for part in (pipe.unet, pipe.vae, pipe.text_encoder) for module in part.modules() if module._forward_pre_hooks
    ]
    assert not hooks and not pipe.unet._forward_hooks
