"""A sampling function line by line: what is told of it, where it stops, and that it gives the pipeline's own bits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from sdtui.params import GenerationParams
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled
from sdtui.worker.explainer import session as session_module
from sdtui.worker.explainer.opening import open_session
from sdtui.worker.explainer.problem import ExplainingProblem
from sdtui.worker.models import LoadedModel
from tests.worker.test_bit_identity import STEPS, plain

from .conftest import PROMPT, Desk

Explain = Callable[..., Desk]


def same_picture(desk: Desk, expected: Any) -> bool:
    assert desk.session.result is not None
    return np.array_equal(np.asarray(desk.session.result), np.asarray(expected))


# --- nothing is changed by looking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["line", "stage", "end"])
@pytest.mark.parametrize(
    ("scheduler", "sigmas", "guidance"),
    [
        ("default", "default", 4.0),
        ("ddim", "default", 1.0),
        ("ddpm", "default", 4.0),
        ("euler", "karras", 4.0),
        ("euler_a", "default", 4.0),
        ("heun", "default", 4.0),
        ("dpm2_a", "default", 4.0),
        ("dpmpp_2m_sde", "exponential", 4.0),
        ("unipc", "default", 4.0),
        ("lcm", "default", 1.5),
    ],
)
def test_the_picture_is_bit_identical_to_the_plain_pipeline(
    explain: Explain, plain_pipe: Any, scheduler: str, sigmas: str, guidance: float, to: Any
) -> None:
    _, (expected,) = plain(plain_pipe, scheduler, sigmas, [7], guidance)
    desk = explain(scheduler=scheduler, sigmas=sigmas, guidance_scale=guidance, num_inference_steps=STEPS)
    desk.to_the_end(to)
    assert same_picture(desk, expected) and desk.told[-1].values["return"] == "a picture, 64x64, RGB"


@pytest.mark.parametrize("to", ["line", "stage", "end"])
@pytest.mark.parametrize(("scheduler", "rounds"), [("ddim", 3), ("euler_a", 3), ("heun", 5), ("pndm", 4)])
def test_image_to_image_is_bit_identical_too(
    explain: Explain, plain_pipe: Any, tmp_path: Path, scheduler: str, rounds: int, to: Any
) -> None:
    drawing = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    drawing.save(tmp_path / "drawing.png")
    sibling = StableDiffusionImg2ImgPipeline(**plain_pipe.components, requires_safety_checker=False)
    sibling.set_progress_bar_config(disable=True)
    (expected,) = plain(sibling, scheduler, "default", [7], 4.0, image=drawing, strength=0.75)[1]
    desk = explain(
        scheduler=scheduler,
        num_inference_steps=STEPS,
        init_image=str(tmp_path / "drawing.png"),
        strength=0.75,
        width=96,
        height=64,
        resize="exact",
    )
    desk.to_the_end(to)
    assert desk.session.listing.name == "image_to_image" and same_picture(desk, expected)
    assert desk.session.total_steps == rounds == 1 + max(line.step_index for line in desk.told if line.step_index is not None)
    assert desk.made("encoded")[0].shape == (1, 4, 8, 12)
    assert [made.shape for made in desk.made("pixels")] == [(1, 64, 96, 3), (1, 3, 64, 96)]


def test_a_session_leaves_torchs_own_random_numbers_alone(explain: Explain) -> None:
    before = torch.get_rng_state()
    explain(scheduler="euler_a").to_the_end("line")
    assert torch.equal(before, torch.get_rng_state())


def test_the_pipeline_is_as_it_was_afterwards(explain: Explain, model: LoadedModel) -> None:
    def wrapped() -> list[str]:
        networks = {"unet": model.pipe.unet, "vae": model.pipe.vae, "text_encoder": model.pipe.text_encoder}
        return [
            f"{name}.{path}" for name, net in networks.items() for path, part in net.named_modules() if "forward" in vars(part)
        ]

    before = wrapped()
    desk = explain()
    desk.go("stage")
    assert len(wrapped()) > len(before), "while it runs it can be stopped within a line"
    desk.to_the_end()
    assert wrapped() == before


# --- what is told -----------------------------------------------------------------------------------------------------


def test_every_line_is_told_in_order_with_what_it_made(explain: Explain) -> None:
    desk = explain(num_inference_steps=2, scheduler="ddim")
    lines = desk.to_the_end("line")
    assert [line.next_line for line in lines[:-1]] == [line.line for line in lines[1:]]
    assert lines[-1].next_line is None and lines[-1].finished and not any(line.finished for line in lines[:-1])
    told = {desk.text(line.line).split(" = ")[0]: line for line in lines}
    parts = ["tokenizer", "text_encoder", "unet", "vae", "scheduler"]
    assert list(told[", ".join(parts)].values) == parts, "in the order of the line"
    assert told["device, guided"].values == {"device": "cpu", "guided": "True"}
    assert told["prompts"].values == {"prompts": "['moon', 'a red cat']"}
    (tokens,) = told["tokens"].made
    assert (tokens.name, tokens.how, tokens.shape, tokens.dtype, tokens.device) == ("tokens", "new", (2, 77), "int64", "cpu")
    assert tokens.words[1] == ("<|startoftext|>", "a</w>", "red</w>", "cat</w>", "<|endoftext|>")
    assert {made.name for made in told["scheduler.set_timesteps(num_inference_steps, device=device)"].made} == {
        "scheduler.timesteps"
    }
    assert told["shape"].values == {"shape": "(1, 4, 8, 8)"}
    (array,) = told["array"].made
    assert (array.shape, array.dtype, array.device) == ((64, 64, 3), "uint8", "numpy")


def test_figures_are_those_of_the_function_s_own_tensors(explain: Explain, plain_pipe: Any) -> None:
    latents, _ = plain(plain_pipe, "euler", "default", [7], 4.0)
    desk = explain(scheduler="euler", num_inference_steps=STEPS, guidance_scale=4.0)
    desk.to_the_end()
    last = desk.made("latents")[-1]
    assert (last.shape, last.faults) == (tuple(latents.shape), 0)
    expected = [latents.min(), latents.mean(), latents.max(), latents.std(correction=0)]
    assert [last.low, last.mean, last.high, last.std] == pytest.approx([float(value) for value in expected], rel=1e-5)


def test_only_what_a_line_made_is_told(explain: Explain) -> None:
    desk = explain(scheduler="euler")
    desk.to_the_end()
    hows = {name: [made.how for made in desk.made(name)] for name in ("noise", "latents", "noise_pred", "latent_input")}
    assert hows["noise"] == ["new"]
    assert hows["latents"] == ["new", *["rebound"] * 3]
    assert hows["noise_pred"] == ["new", *["rebound"] * 5], "by the U-Net and by guidance, in each of three steps"
    assert hows["latent_input"] == ["new", *["rebound"] * 5], "Euler scales it"
    desk = explain(scheduler="ddim")
    desk.to_the_end()
    assert [made.how for made in desk.made("latent_input")] == ["new", *["rebound"] * 2], "DDIM gives it back as it is"


@pytest.mark.parametrize(("scheduler", "rounds"), [("euler", 3), ("heun", 5), ("pndm", 4)])
def test_steps_are_the_loop_s_rounds_with_the_scheduler_s_timesteps(explain: Explain, scheduler: str, rounds: int) -> None:
    desk = explain(scheduler=scheduler)
    lines = desk.to_the_end()
    loop = [line for line in lines if line.step_index is not None]
    assert desk.session.total_steps == rounds and {line.total_steps for line in loop} == {rounds}
    by_step = {index: list(group) for index, group in groupby(loop, key=lambda line: line.step_index)}
    assert list(by_step) == list(range(rounds))
    heads = [group[0] for group in by_step.values()]
    assert {desk.text(line.line) for line in heads} == {"for t in scheduler.timesteps:"}
    wanted = [float(t) for t in desk.session._pipe.scheduler.timesteps]
    assert [line.timestep for line in heads] == wanted and [group[-1].timestep for group in by_step.values()] == wanted
    exhausted = [line for line in lines if line.line == heads[0].line and line.step_index is None]
    assert len(exhausted) == 1 and desk.text(exhausted[0].next_line).startswith("decoded =")


def test_without_pictures_there_are_none(explain: Explain) -> None:
    desk = explain()
    lines = desk.go("end", pictures=False)
    assert not any(made.picture for line in lines for made in line.made)
    assert [made.words for line in lines for made in line.made if made.words], "words are no picture"
    assert any(made.picture for line in explain().go("end") for made in line.made)


# --- where it stops ---------------------------------------------------------------------------------------------------


def stops(desk: Desk) -> list[str]:
    """The lines that the function stands before when it goes stage by stage."""
    found = []
    while not (desk.told and desk.told[-1].finished):
        desk.go("stage")
        found.append(desk.text(desk.told[-1].next_line) if desk.told[-1].next_line else "end")
    return found


def test_a_stage_ends_before_the_next_one_and_the_loop_goes_round_by_round(explain: Explain) -> None:
    assert stops(explain(num_inference_steps=3, scheduler="ddim")) == [
        "prompts = [negative_prompt, prompt] if guided else [prompt]",
        "scheduler.set_timesteps(num_inference_steps, device=device)",
        "extra = step_arguments(scheduler, generator)",
        "for t in scheduler.timesteps:",
        "for t in scheduler.timesteps:",
        "decoded = vae.decode(latents / vae.config.scaling_factor).sample  # (1, 3, 512, 512), from -1 to 1",
        "end",
    ]


def test_from_the_middle_of_a_round_a_stage_ends_with_that_round(explain: Explain) -> None:
    desk = explain(num_inference_steps=3, scheduler="ddim")
    while not desk.told or not desk.text(desk.told[-1].next_line).startswith("noise_pred = unet"):
        desk.go("line")
    lines = desk.go("stage")
    assert {line.step_index for line in lines} == {0} and desk.text(lines[-1].next_line) == "for t in scheduler.timesteps:"


def test_replies_are_cut_and_asking_again_goes_on(explain: Explain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "REPLY_S", 0.0)
    desk = explain(num_inference_steps=3, scheduler="ddim")
    assert stops(desk)[3:6:2] == ["for t in scheduler.timesteps:", desk.text(desk.line_of("decoded ="))]
    ran = explain().session.advance("end", None)
    assert len(ran.lines) == 1 and not ran.stopped and not ran.finished


def test_replies_are_cut_by_their_size_too(explain: Explain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "REPLY_S", 3600.0)
    monkeypatch.setattr(session_module, "REPLY_BYTES", 2_000)
    desk = explain()
    sizes = []
    while not (ran := desk.session.advance("end", None)).stopped:
        sizes.append(sum(len(made.picture.rgb) for line in ran.lines for made in line.made if made.picture))
    assert len(sizes) > 5 and max(sizes) < 2 * 64 * 64 * 3 + 2_000


def test_after_the_end_nothing_runs(explain: Explain) -> None:
    desk = explain()
    desk.to_the_end()
    again = desk.session.advance("line", None)
    assert (again.lines, again.stopped, again.finished, again.picture) == ([], True, True, None)


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance_can_be_changed_half_way(explain: Explain, plain_pipe: Any) -> None:
    """With two steps: the first one as in a run with 4, and after it the noise that 9 makes of the two answers."""
    desk = explain(scheduler="ddim", guidance_scale=4.0)
    plainly = explain(scheduler="ddim", guidance_scale=4.0)
    while not desk.told or desk.told[-1].step_index != 0 or desk.told[-1].next_line != desk.line_of("for t in"):
        desk.go("line")
    changed = desk.go("stage", guidance_scale=9.0)
    plainly.to_the_end()
    assert "guidance_scale" not in {name for line in desk.told for name in line.values}, "no line made that"
    assert desk.session.changes == ["guidance changed to 9 in step 1"]
    first = [(line.line, made.name, made.mean) for line in desk.told if line.step_index == 0 for made in line.made]
    assert first == [(line.line, made.name, made.mean) for line in plainly.told if line.step_index == 0 for made in line.made]
    means = {made.name: made.mean for line in changed for made in line.made}
    uncond, text, guided = (means[name] for name in ("noise_pred_uncond", "noise_pred_text", "noise_pred"))
    assert uncond is not None and text is not None
    assert guided == pytest.approx(uncond + 9 * (text - uncond), abs=1e-5)
    desk.to_the_end()
    assert not same_picture(desk, plainly.session.result)


def test_guidance_that_is_what_it_was_changes_no_bit(explain: Explain, plain_pipe: Any) -> None:
    _, (expected,) = plain(plain_pipe, "euler_a", "default", [7], 4.0)
    desk = explain(scheduler="euler_a", guidance_scale=4.0, num_inference_steps=STEPS)
    while not (desk.told and desk.told[-1].finished):
        desk.go("line", guidance_scale=4.0)
    assert same_picture(desk, expected) and desk.session.changes == []


def test_guidance_changed_before_the_first_line_is_as_if_it_had_been_given(explain: Explain, plain_pipe: Any) -> None:
    _, (expected,) = plain(plain_pipe, "ddim", "default", [7], 1.0)
    desk = explain(scheduler="ddim", guidance_scale=4.0, num_inference_steps=STEPS)
    desk.go("line", guidance_scale=1.0)
    desk.to_the_end()
    assert same_picture(desk, expected)


@pytest.mark.parametrize(
    ("given", "wanted", "says"),
    [(4.0, 51.0, "from 0 to 50"), (4.0, float("nan"), "from 0 to 50"), (1.0, 4.0, "began with 1 or less")],
)
def test_guidance_that_cannot_be_is_refused_and_nothing_runs(explain: Explain, given: float, wanted: float, says: str) -> None:
    desk = explain(guidance_scale=given)
    desk.go("stage")
    line = desk.told[-1].next_line
    with pytest.raises(ExplainingProblem, match=says) as problem:
        desk.session.advance("line", wanted)
    assert problem.value.field == "guidance_scale"
    assert desk.go("line")[0].line == line


# --- how it can end ---------------------------------------------------------------------------------------------------


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "explained function"]


def test_a_dropped_session_leaves_no_thread(explain: Explain) -> None:
    before = len(threads())
    desk = explain()
    desk.go("stage")
    assert len(threads()) == before + 1
    desk.session.drop()
    assert len(threads()) == before
    desk.session.drop()


def test_a_session_can_be_stopped_in_the_middle_of_a_line(explain: Explain, model: LoadedModel) -> None:
    desk = explain()
    while not desk.told or not desk.text(desk.told[-1].next_line).startswith("noise_pred = unet"):
        desk.go("line")
    calls = []

    def stop(*_: Any) -> None:
        calls.append(None)
        desk.token.cancel()

    hook = model.pipe.unet.conv_in.register_forward_hook(stop)
    try:
        for _ in range(2):
            with pytest.raises(Cancelled):
                desk.session.advance("end", None)
    finally:
        hook.remove()
    assert len(calls) == 1 and desk.session.result is None


def test_a_line_that_fails_is_named_after_those_before_it_are_told(explain: Explain, model: LoadedModel) -> None:
    desk = explain()

    def fail(*_: Any) -> None:
        raise RuntimeError("the weights are\nbroken")

    hook = model.pipe.unet.conv_in.register_forward_hook(fail)
    try:
        ran = desk.session.advance("end", None)
        assert not ran.stopped and ran.lines[-1].next_line == desk.line_of("noise_pred = unet")
        for _ in range(2):
            with pytest.raises(ExplainingProblem) as problem:
                desk.session.advance("end", None)
            assert problem.value.line == desk.line_of("noise_pred = unet")
            assert str(problem.value) == f"Line {problem.value.line} failed: RuntimeError: the weights are broken"
            assert "in text_to_image" in problem.value.detail
    finally:
        hook.remove()


def test_memory_that_runs_out_is_a_sentence_with_a_way_on(explain: Explain, model: LoadedModel) -> None:
    desk = explain()

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = model.pipe.vae.decoder.register_forward_pre_hook(fail)
    desk.session._device = torch.device("cuda", 0)
    waited: list[Any] = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "synchronize", waited.append)
            with pytest.raises(ExplainingProblem, match=r"cuda:0 has not enough memory at line 64: .* --device cpu") as problem:
                desk.to_the_end()
    finally:
        hook.remove()
    assert problem.value.field == "device" and waited


def test_sizes_that_the_model_cannot_take_are_named(model: LoadedModel) -> None:
    with pytest.raises(Exception, match="Width must be a multiple of 8") as problem:
        open_session(model, GenerationParams(prompt=PROMPT, width=66), CancelToken())
    assert problem.value.field == "width"  # type: ignore[attr-defined]  # JobProblem's
