"""The sampling functions that are to be read give what diffusers' pipelines give, bit for bit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image

from sdtui.checkpoint import shipped_model_dir
from sdtui.scratch.image_to_image import image_to_image
from sdtui.scratch.text_to_image import text_to_image

SCHEDULERS = (
    DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler, UniPCMultistepScheduler,
)  # fmt: skip
STEPS = 5


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = StableDiffusionPipeline.from_pretrained(shipped_model_dir(), dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture
def drawing() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    return Image.fromarray(values)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def with_scheduler(pipe: Any, kind: Any, prediction: str = "") -> Any:
    config = DDIMScheduler.load_config(shipped_model_dir() / "scheduler")  # not what another scheduler made of it
    more = {"prediction_type": prediction} if prediction else {}
    pipe.scheduler = kind.from_config(config, **more)
    return pipe


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_text_to_image_is_the_pipeline(pipe: Any, kind: Any, prediction: str) -> None:
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "negative_prompt": "moon"}
    plain = with_scheduler(pipe, kind, prediction)("a red cat in the desert", generator=seeded(), **arguments).images[0]
    again = text_to_image(with_scheduler(pipe, kind, prediction), "a red cat in the desert", generator=seeded(), **arguments)
    assert png(again) == png(plain)


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
def test_image_to_image_is_the_pipeline(pipe: Any, drawing: Image.Image, kind: Any) -> None:
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = {"strength": 0.6, "num_inference_steps": STEPS, "guidance_scale": 4.0, "negative_prompt": "moon"}
    plain = with_scheduler(other, kind)("a red cat in the desert", image=drawing, generator=seeded(), **arguments).images[0]
    again = image_to_image(with_scheduler(pipe, kind), "a red cat in the desert", drawing, generator=seeded(), **arguments)
    assert png(again) == png(plain)


def test_without_guidance_and_at_another_size_too(pipe: Any) -> None:
    arguments: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 1.0, "height": 96, "width": 160}
    plain = with_scheduler(pipe, DDIMScheduler)("a blue boat", generator=seeded(), **arguments).images[0]
    again = text_to_image(with_scheduler(pipe, DDIMScheduler), "a blue boat", generator=seeded(), **arguments)
    assert again.size == (160, 96) and png(again) == png(plain)


@pytest.mark.parametrize("kind", [DDIMScheduler, PNDMScheduler])  # the second has a timestep more than steps
@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_a_strength_that_leaves_no_step_is_said(pipe: Any, drawing: Image.Image, strength: float, kind: Any) -> None:
    with_scheduler(pipe, kind)
    with pytest.raises(ValueError, match=f"strength {strength:g} of 5 steps leaves none to run"):
        image_to_image(pipe, "a red cat", drawing, strength=strength, num_inference_steps=STEPS)


def test_each_function_fits_on_a_screen() -> None:
    for function in (text_to_image, image_to_image):
        code = function.__wrapped__.__code__
        lines = max(line for _, _, line in code.co_lines() if line) - code.co_firstlineno
        assert lines <= 62
