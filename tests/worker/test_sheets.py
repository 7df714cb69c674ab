"""Activations of an inspected batch: of the last step, the right picture, the right shape, and small."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from sdtui.inspected import HISTOGRAM_BINS, SHEET_CHANNELS, SHEET_PX, InspectedFile, SheetFacts, files_of
from sdtui.protocol import InspectMode, JobInspected, MemoryRanOut, ModulesRan, ResumePoint, Submit
from sdtui.worker.errors import Cancelled
from sdtui.worker.models import LoadedModel
from sdtui.worker.probe_figures import Spot
from sdtui.worker.sheets import Extent, Sheets, contact_sheet, on_device, picture_of

from .desk import STEPS, Desk, after_step, same

EXTENT = Extent(pictures=1, height_px=64, width_px=64)
SPOT = Spot("unet", "conv_in", "Conv2d", is_block=False)


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def inspected(submit: Submit, mode: InspectMode = "modules") -> Submit:
    return msgspec.structs.replace(submit, inspect=mode)


def the_file(desk: Desk) -> InspectedFile:
    return InspectedFile(files_of(desk.directory())[0])


def kept(output: torch.Tensor, network: str = "unet", extent: Extent = EXTENT) -> tuple[SheetFacts, np.ndarray, np.ndarray]:
    """What is kept of one output at the last step of ten."""
    sheets = Sheets()
    sheets.begin(extent)
    sheets.steps_done = 9
    sheets.denoise(SimpleNamespace(timesteps=range(10)))
    assert sheets.wants(network)
    sheets.keep(Spot(network, "conv_in", "Conv2d", is_block=False), output)
    (taken,) = sheets.take()
    return taken


# --- in a job ---------------------------------------------------------------------------------------------------------


def test_the_file_of_an_inspected_job_has_the_last_activations_of_every_module(desk: Desk) -> None:
    outputs: list[torch.Tensor] = []
    handle = desk.model.pipe.unet.conv_in.register_forward_hook(lambda *given: outputs.append(given[2].clone()))
    plain, watched = desk.run(desk.submit("plain")), desk.run(inspected(desk.submit()))
    handle.remove()
    assert same(plain, watched)
    file = the_file(desk)
    found = file.sheet("unet", "conv_in")
    assert found is not None
    facts, number = found
    last = outputs[-1][1]  # of the prompt's half: (C, h, w)
    assert (facts.step_index, facts.shape, facts.channels) == (STEPS, tuple(outputs[-1].shape), len(last))
    assert facts.class_name == "Conv2d" and facts.faults == 0
    sheet, histogram = file.array(f"sheet/{number}"), file.array(f"histogram/{number}")
    assert sheet.shape == (min(len(last), SHEET_CHANNELS), *last.shape[1:]) and sheet.dtype == np.uint8
    low, high = last[3].min(), last[3].max()
    assert np.array_equal(sheet[3], ((last[3] - low) / (high - low) * 255).round().numpy().astype(np.uint8))
    assert histogram.shape == (HISTOGRAM_BINS,) and histogram.sum() == last.numel()
    assert (facts.low, facts.high) == (float(last.min()), float(last.max()))
    assert facts.mean == pytest.approx(float(last.double().mean()), abs=1e-5)
    (told,) = desk.of(JobInspected)
    assert told.modules == len(file.facts.sheets) > 200
    assert {facts.network for facts in file.facts.sheets} == {"unet", "vae", "text_encoder"}


def test_every_module_that_is_told_of_has_activations_and_no_other(desk: Desk) -> None:
    desk.run(inspected(desk.submit(), "blocks"))
    told = {(event.network, run.path) for event in desk.of(ModulesRan) for run in event.modules}
    assert {(facts.network, facts.path) for facts in the_file(desk).facts.sheets} == told


def test_stages_outside_of_the_steps_keep_the_prompt_and_the_first_picture(desk: Desk) -> None:
    answers: list[torch.Tensor] = []
    handle = desk.model.pipe.text_encoder.register_forward_hook(lambda *given: answers.append(given[2][0].clone()))
    desk.run(inspected(desk.submit(batch_size=2, guidance_scale=3.0)))
    handle.remove()
    text, decoder, network = (the_file(desk).sheet(*spot) for spot in (("text_encoder", ""), ("vae", "decoder"), ("unet", "")))
    assert text is not None and decoder is not None and network is not None
    assert text[0].step_index is None and text[0].channels == 1 and the_file(desk).array(f"sheet/{text[1]}").shape[1] == SHEET_PX
    assert len(answers) == 2 and text[0].low == float(answers[0].min()) != float(answers[1].min()), "not the negative prompt"
    assert (decoder[0].step_index, decoder[0].shape, decoder[0].channels) == (None, (2, 3, 64, 64), 3)
    assert network[0].shape == (4, 4, 8, 8)


def test_each_batch_has_its_own(desk: Desk) -> None:
    desk.run(inspected(desk.submit(batch_count=2), "blocks"))
    one, other = (InspectedFile(path) for path in files_of(desk.directory()))
    assert len(one.facts.sheets) == len(other.facts.sheets)
    found = one.sheet("unet", "")
    assert found is not None
    name = f"sheet/{found[1]}"
    assert not np.array_equal(one.array(name), other.array(name))


def test_schedulers_that_ask_twice_a_step_keep_the_last_answer(desk: Desk) -> None:
    desk.run(inspected(desk.submit(scheduler="heun"), "blocks"))
    found = the_file(desk).sheet("unet", "")
    assert found is not None and found[0].step_index == 2 * STEPS - 2


def test_a_job_of_one_step_has_them_too(desk: Desk) -> None:
    desk.run(inspected(desk.submit(num_inference_steps=1, scheduler="euler"), "blocks"))
    found = the_file(desk).sheet("unet", "")
    assert found is not None and found[0].step_index == 0


def test_a_resumed_job_keeps_its_last_step(desk: Desk) -> None:
    submit = inspected(desk.submit(scheduler="euler_a"), "blocks")
    assert isinstance(desk.run(submit, stop="pause", at=after_step(1)), Cancelled)
    desk.run(msgspec.structs.replace(submit, resume=ResumePoint(batch_index=0, steps_done=2, seed=7)))
    found = the_file(desk).sheet("unet", "")
    assert found is not None and found[0].step_index == STEPS - 1


def test_a_batch_that_memory_split_has_the_activations_of_each_part(desk: Desk) -> None:
    refusals = iter([RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")])

    def refuse(*_: Any) -> None:
        if (error := next(refusals, None)) is not None:
            raise error

    handle = desk.model.pipe.unet.conv_out.register_forward_pre_hook(refuse)
    desk.run(inspected(desk.submit(batch_size=2), "blocks"))
    handle.remove()
    assert len(desk.of(MemoryRanOut)) == 1 and len(files_of(desk.directory())) == 2
    found = the_file(desk).sheet("unet", "")
    assert found is not None and found[0].shape == (2, 4, 8, 8)


def test_without_inspect_mode_nothing_is_kept(desk: Desk) -> None:
    desk.run(msgspec.structs.replace(desk.submit(), words=True))
    assert the_file(desk).facts.sheets == ()


# --- which picture, and of what shape ---------------------------------------------------------------------------------


def test_of_two_halves_the_one_with_the_prompt_is_kept() -> None:
    output = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8)  # two pictures, each without and with the prompt
    facts, _, _ = kept(output, extent=EXTENT._replace(pictures=2))
    assert facts.mean == 2.0
    assert kept(output, extent=EXTENT._replace(pictures=4))[0].mean == 0.0, "four pictures without guidance"
    assert kept(output, "text_encoder", EXTENT._replace(pictures=2))[0].mean == 0.0, "it is given no halves"


@pytest.mark.parametrize(
    ("shape", "channels", "sheet"),
    [
        ((2, 320, 8, 8), 320, (SHEET_CHANNELS, 8, 8)),
        ((2, 3, 96, 64), 3, (3, 32, 21)),
        ((2, 96, 320), 320, (SHEET_CHANNELS, 12, 8)),  # tokens of latents of 12 x 8
        ((2, 24, 320), 320, (SHEET_CHANNELS, 6, 4)),
        ((2, 77, 768), 1, (1, 32, 128)),
        ((2, 1280), 1, (1, 1, 128)),
        ((1, 7), 1, (1, 1, 7)),
        ((5,), 1, (1, 1, 5)),
        ((2, 4, 3, 8, 8), 4, (4, 8, 8)),
    ],
)
def test_outputs_of_every_kind_become_pictures(shape: tuple[int, ...], channels: int, sheet: tuple[int, ...]) -> None:
    output = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    facts, picture, histogram = kept(output, extent=Extent(1, 96, 64))
    assert (facts.shape, facts.channels, picture.shape) == (shape, channels, sheet)
    one, _ = picture_of(output, Extent(1, 96, 64), denoises=True)
    assert histogram.sum() == one.numel()
    assert picture.min() == 0 and picture.max() == 255


def test_tokens_lie_where_their_pixels_are() -> None:
    latents = torch.randn(1, 5, 12, 8)
    picture, wide = picture_of(latents.flatten(2).transpose(1, 2), Extent(1, 96, 64), denoises=True)
    assert not wide and torch.equal(picture, latents[0])
    picture, wide = picture_of(latents.flatten(2).transpose(1, 2), Extent(1, 96, 64), denoises=False)
    assert wide and picture.shape == (1, 96, 5)


def test_channels_are_made_small_by_averaging_and_a_constant_one_is_0() -> None:
    picture = torch.zeros(2, 64, 64)
    picture[1, :32] = 3.0
    picture[1, ::2] += 1.0
    sheet = contact_sheet(picture, wide=False)
    assert sheet.shape == (2, 32, 32) and int(sheet[0].max()) == 0
    assert sheet[1, :16].unique().tolist() == [255] and sheet[1, 16:].unique().tolist() == [0]


# --- no numbers, and other devices ------------------------------------------------------------------------------------


def test_what_is_no_number_is_counted_and_left_out() -> None:
    output = torch.linspace(-1.0, 1.0, 2 * 64).reshape(1, 2, 8, 8).clone()
    output[0, 0, 0, 0], output[0, 1, 7, 7], output[0, 0, 1, 1] = math.nan, math.inf, -math.inf
    facts, picture, histogram = kept(output)
    assert facts.faults == 3 and histogram.sum() == 125 and picture[0, 0, 0] == 0
    assert facts.low is not None and facts.high is not None and facts.mean is not None
    assert -1 < facts.low < facts.high < 1 and picture[0, 0, 1] == 0 and picture[0, 7, 7] == 255


def test_where_no_value_is_a_number_there_are_no_figures() -> None:
    facts, picture, histogram = kept(torch.full((1, 2, 4, 4), math.nan))
    assert (facts.low, facts.high, facts.mean, facts.std, facts.faults) == (None, None, None, None, 32)
    assert picture.max() == 0 and histogram.sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("fault", [0.0, math.nan, math.inf])
def test_a_device_finds_what_the_host_finds(dtype: torch.dtype, fault: float) -> None:
    output = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    output[0, 0, 0, 0] = fault
    facts, _, on_host = kept(output)
    histogram, figures = on_device(output[0])
    mean, std, low, high, faults = figures.tolist()
    assert (facts.low, facts.high, facts.faults) == (low, high, faults)
    assert (facts.mean, facts.std) == (pytest.approx(mean, abs=1e-4), pytest.approx(std, rel=1e-2))
    assert np.abs(on_host - histogram.numpy()).sum() <= 4 and histogram.sum() == on_host.sum(), "edges may fall differently"


def test_constants_lie_in_one_bin() -> None:
    facts, picture, histogram = kept(torch.full((1, 2, 4, 4), 3.0))
    assert (facts.low, facts.high, facts.std) == (3.0, 3.0, 0.0) and picture.max() == 0
    assert histogram.tolist() == [32] + [0] * (HISTOGRAM_BINS - 1)
    assert on_device(torch.full((2, 4, 4), 3.0))[0].tolist() == histogram.tolist()


def test_what_does_not_fit_costs_its_sheet_and_not_the_job(caplog: pytest.LogCaptureFixture) -> None:
    sheets = Sheets()
    sheets.begin(EXTENT)

    class Full(torch.Tensor):
        def detach(self) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    sheets.keep(SPOT, torch.zeros(1, 2, 2, 2).as_subclass(Full))
    assert sheets.take() == [] and "out of memory" in caplog.text


def test_before_the_last_step_and_without_a_batch_nothing_is_wanted() -> None:
    sheets = Sheets()
    assert not sheets.wants("unet") and not sheets.wants("vae")
    sheets.begin(EXTENT)
    sheets.steps_done = 8
    sheets.denoise(SimpleNamespace(timesteps=range(10)))
    assert not sheets.wants("unet") and sheets.wants("text_encoder")
    sheets.close("text_encoder")
    assert not sheets.wants("text_encoder") and sheets.wants("vae")
    sheets.keep(SPOT, torch.zeros(1, 3, dtype=torch.int64))
    assert sheets.take() == [] and not sheets.wants("vae")
