"""The x0 prediction, against what the schedulers themselves say of it."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch

from sdtui.schedulers import SCHEDULERS
from sdtui.worker.samplers import scheduler_choices
from sdtui.worker.watch import RETURNS_DENOISED, NoiseLevel, noise_level, predict_denoised, watched

TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SHAPE = (1, 4, 4, 4)


def base(prediction_type: str) -> Any:
    return diffusers.DDIMScheduler(**TRAINED, prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=False)


def build(name: str, prediction_type: str) -> Any:
    spec = next(spec for spec in SCHEDULERS if spec.name == name)
    extra = {"noise_sampler_seed": 0} if name == "dpmpp_sde" else {}
    return getattr(diffusers, spec.class_name).from_config(base(prediction_type).config, **spec.config, **extra)


def steps(scheduler: Any, answer: Any, count: int = 8) -> list[dict[str, Any]]:
    """Run a scheduler against `answer(level, sample)`; for each step the level, what went in, and what came out."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(count)
    sample = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    found = []
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(sample, timestep)
        level = noise_level(scheduler, float(timestep))
        model_output = answer(level, sample)
        result = scheduler.step(model_output, timestep, sample, return_dict=False)
        found.append({"level": level, "sample": sample, "model_output": model_output, "result": result})
        sample = result[0]
    return found


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", [spec.name for spec in SCHEDULERS if spec.class_name in RETURNS_DENOISED and spec.name != "lcm"])
def test_our_formula_gives_the_x0_that_the_scheduler_returns(name: str, prediction_type: str) -> None:
    scheduler = build(name, prediction_type)
    noise = torch.Generator().manual_seed(1)
    for step in steps(scheduler, lambda _level, sample: torch.randn(sample.shape, generator=noise)):
        expected = step["result"][1]
        ours = predict_denoised(scheduler, step["level"], step["sample"], step["model_output"])
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "unipc"])
def test_our_formula_gives_the_x0_that_the_multistep_solvers_keep(name: str, prediction_type: str) -> None:
    scheduler = build(name, prediction_type)
    noise = torch.Generator().manual_seed(1)
    scheduler.set_timesteps(6)
    sample = torch.randn(SHAPE, generator=noise) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, float(timestep))
        model_output = torch.randn(SHAPE, generator=noise)
        ours = predict_denoised(scheduler, level, sample, model_output)
        sample = scheduler.step(model_output, timestep, sample, return_dict=False)[0]
        kept = scheduler.model_outputs[-1]
        assert torch.allclose(ours, kept, rtol=1e-3, atol=1e-3 * float(kept.abs().max()))


@pytest.mark.parametrize("name", [spec.name for spec in SCHEDULERS if spec.name != "edm_euler"])
def test_a_network_that_knows_the_picture_leads_every_scheduler_to_it(name: str) -> None:
    """Only with the right noise level is this answer the right one, and the way leads there."""
    if name == "dpmpp_sde":
        pytest.importorskip("torchsde")
    scheduler = build(name, "epsilon")
    picture = torch.linspace(-1, 1, 64).reshape(SHAPE)
    found = steps(scheduler, lambda level, sample: (sample - level.alpha * picture) / level.sigma)
    last = found[-1]
    assert torch.allclose(predict_denoised(scheduler, last["level"], last["sample"], last["model_output"]), picture, atol=1e-3)
    assert (last["result"][0] - picture).square().mean().sqrt() < 0.1, "the final latents are not the picture"


def test_a_flow_model_predicts_the_way_from_noise_to_picture() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    picture = torch.linspace(-1, 1, 64).reshape(SHAPE)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(5)
    sample = start
    for timestep in scheduler.timesteps:
        level = noise_level(scheduler, float(timestep))
        assert level.alpha + level.sigma == pytest.approx(1.0)
        assert torch.allclose(predict_denoised(scheduler, level, sample, start - picture), picture, atol=1e-4)
        sample = scheduler.step(start - picture, timestep, sample, return_dict=False)[0]


def test_sigmas_of_all_kinds_of_schedulers_compare() -> None:
    first = {}
    for name in ("ddim", "euler", "dpmpp_2m"):
        scheduler = build(name, "epsilon")
        scheduler.set_timesteps(10)
        first[name] = noise_level(scheduler, float(scheduler.timesteps[0])).ratio
    assert first["euler"] == pytest.approx(first["dpmpp_2m"], rel=0.3)
    assert first["ddim"] == pytest.approx(first["euler"], rel=0.5)
    assert NoiseLevel(0.0, 1.0).ratio == math.inf


def test_pure_noise_says_nothing_of_x0() -> None:
    sample = torch.ones(SHAPE)
    assert not predict_denoised(base("epsilon"), NoiseLevel(0.0, 1.0), sample, sample).any()


def test_the_wrapper_keeps_the_signature_that_pipelines_look_into(model: Any) -> None:
    import inspect

    before = list(inspect.signature(model.pipe.scheduler.step).parameters)
    with watched(model.pipe, lambda _: None):
        assert list(inspect.signature(model.pipe.scheduler.step).parameters) == before
    assert "step" not in vars(model.pipe.scheduler)


def test_every_scheduler_offered_can_be_built_and_says_its_sigmas() -> None:
    own = base("epsilon")
    choices = scheduler_choices(own)
    assert {choice.name for choice in choices} == {spec.name for spec in SCHEDULERS}
    for choice in choices:
        for sigmas in choice.sigmas[1:]:
            scheduler = getattr(diffusers, choice.class_name).from_config(own.config, **{f"use_{sigmas}_sigmas": True})
            scheduler.set_timesteps(4)
