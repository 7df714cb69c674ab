"""Pipelines that encode and decode in their own way run as a whole, and are watched all the same."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdtui.protocol import (
    JobStarted,
    MemoryRanOut,
    Message,
    PreviewOptions,
    PreviewReady,
    PromptTokens,
    ResumePoint,
    StageFinished,
    StepFinished,
)
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled, JobProblem
from sdtui.worker.generate import run_job
from sdtui.worker.models import LoadedModel
from sdtui.worker.start import generators_of

from .conftest import a_submit, build_tokenizer
from .desk import Desk, after_step, same

SIZE_PX = 64


def build_xl(folder: Path) -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "vocabulary")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, projection_dim=32, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIZE_PX // 8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=64,
        attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32, use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), norm_num_groups=8, layers_per_block=1, latent_channels=4, sample_size=SIZE_PX,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=0.13025,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), text_encoder_2=CLIPTextModelWithProjection(text), tokenizer=tokenizer,
        tokenizer_2=tokenizer, unet=unet, scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )  # fmt: skip


@pytest.fixture
def run_xl(xl: LoadedModel, tmp_path: Path) -> Callable[..., tuple[list[Message], list[str]]]:
    def run(**params: Any) -> tuple[list[Message], list[str]]:
        events: list[Message] = []
        submit = a_submit(tmp_path / "out", PreviewOptions(max_per_s=1000), **params)
        return events, run_job(xl, submit, emit=events.append, cancelled=lambda: False)

    return run


def test_an_sdxl_picture_is_bit_identical_to_the_plain_pipeline(xl: LoadedModel, run_xl: Callable[..., Any]) -> None:
    assert not xl.simple
    _, paths = run_xl(negative_prompt="moon", batch_size=2, seed=3)
    xl.pipe.scheduler = EulerDiscreteScheduler.from_config(xl.own_scheduler.config)
    expected = xl.pipe(
        "a red cat", negative_prompt="moon", num_inference_steps=3, guidance_scale=4.0, num_images_per_prompt=2,
        generator=generators_of([3, 4]), height=SIZE_PX, width=SIZE_PX,
    ).images  # fmt: skip
    for path, image in zip(paths, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(image))


def test_its_stages_and_steps_are_told(run_xl: Callable[..., Any]) -> None:
    events, _ = run_xl(scheduler="euler_a")
    kinds = [key for key, _ in groupby(type(event).__name__ + ":" + getattr(event, "stage", "") for event in events)]
    stages = ["tokens", "embeddings", "latents", "denoise", "decode", "save"]
    assert [kind.removeprefix("StageFinished:") for kind in kinds if kind.startswith("StageFinished")] == stages
    facts = {event.stage: event.tensors for event in events if isinstance(event, StageFinished)}
    assert facts["embeddings"][0].shape == (1, 77, 64)
    assert facts["latents"][0].shape == (1, 4, 8, 8)
    assert facts["decode"][0].shape == (1, 3, SIZE_PX, SIZE_PX)
    steps = [event for event in events if isinstance(event, StepFinished)]
    assert [step.step_index for step in steps] == [0, 1, 2] and all(step.guidance_norm for step in steps)
    previews = [event for event in events if isinstance(event, PreviewReady)]
    assert [(preview.width_px, preview.method) for preview in previews] == [(8, "linear")] * 3
    assert [event.which for event in events if isinstance(event, PromptTokens)] == ["prompt", "negative_prompt"]
    started = events[0]
    assert isinstance(started, JobStarted) and (started.params.width, started.params.scheduler) == (SIZE_PX, "euler_a")


def test_it_stops_within_a_step(xl: LoadedModel, tmp_path: Path) -> None:
    token = CancelToken()
    events: list[Message] = []
    handle = xl.pipe.unet.mid_block.resnets[0].register_forward_pre_hook(lambda *_: token.cancel())
    try:
        with pytest.raises(Cancelled):
            run_job(xl, a_submit(tmp_path), emit=events.append, cancelled=token)
    finally:
        handle.remove()
    assert not any(isinstance(event, StepFinished) for event in events)
    assert "decode" not in vars(xl.pipe.vae) and "encode_prompt" not in vars(xl.pipe)


def test_it_has_no_safety_checker(run_xl: Callable[..., Any]) -> None:
    with pytest.raises(JobProblem, match="brings no safety checker"):
        run_xl(safety_checker=True)


def test_clip_skip_is_its_own(run_xl: Callable[..., Any]) -> None:
    _, plain = run_xl()
    _, skipped = run_xl(clip_skip=1)
    assert not np.array_equal(np.asarray(Image.open(plain[0])), np.asarray(Image.open(skipped[0])))


@pytest.mark.parametrize("params", [{"scheduler": "euler_a", "batch_size": 2}, {"scheduler": "heun", "guidance_scale": 1.0}])
def test_it_goes_on_from_its_tape_bit_for_bit(xl: LoadedModel, tmp_path: Path, params: dict[str, Any]) -> None:
    desk = Desk(xl, tmp_path)
    whole = desk.run(desk.submit("whole", **params))
    calls = desk.network_calls
    stopped = desk.run(desk.submit("cut", **params), stop="pause", at=after_step(1))
    assert isinstance(stopped, Cancelled) and stopped.progress.steps_done == 2
    assert same(whole, desk.run(desk.submit("cut", ResumePoint(seed=7, steps_done=2), **params)))
    assert desk.network_calls == calls - 2


def test_a_decode_that_runs_out_of_memory_is_tried_in_tiles_without_a_step_made_again(
    xl: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(xl, tmp_path)
    whole = desk.run(desk.submit("whole", scheduler="euler"))
    calls, real, left = desk.network_calls, xl.pipe.vae.decode, [True]

    def decode(*args: Any, **kwargs: Any) -> Any:
        if left and left.pop():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")
        return real(*args, **kwargs)

    monkeypatch.setitem(vars(xl.pipe.vae), "decode", decode)
    assert same(whole, desk.run(desk.submit("short", scheduler="euler")))
    assert [(event.stage, event.remedy) for event in desk.of(MemoryRanOut)] == [("decode", "vae_tiling")]
    assert desk.network_calls == calls
    assert [event.step_index for event in desk.of(StepFinished)] == list(range(calls))
